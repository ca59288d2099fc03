"""Reads a folder of journals as they grow: what all other servers of one LOG write, each record once.

An open file is held by its descriptor, so that its renaming or removal loses no record. A record that is
still being written is read when it is whole. The folder is listed only when its time of change has moved:
ten thousand sealed files cost nothing.
"""

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from recsys import item_patches
from recsys.errors import DataError
from recsys.journal import (
    MAGIC,
    OPEN_SUFFIX,
    SEALED_SUFFIX,
    Rows,
    check_magic,
    ended_before,
    records_of,
    server_of,
)

TABLES = frozenset({*item_patches.TABLES, "feedback"})
# A folder that changes twice within a tick of the file system's clock has one time of change.
_SETTLED_NS = 100_000_000
# A file that cannot be opened for want of these is opened later.
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
NewRows = Iterable[tuple[int, Rows]]
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _File:
    """A file that may still grow, read as far as its last whole record."""

    path: Path
    descriptor: int
    offset: int = 0
    ended: bool = False
    """Sealed or removed: it is read once more."""


class JournalTail:
    """Reads the rows of `TABLES` in a journal folder; safe to call from many threads.

    Args: own_id: files of this server are left out; since_ms: the first reading leaves out sealed files that
    ended earlier.
    """

    def __init__(self, folder: Path, *, own_id: str | None = None, since_ms: int = 0) -> None:
        self._folder = folder
        self._own_id = own_id
        self._since_ms = since_ms
        self._lock = threading.Lock()
        self._names: frozenset[str] = frozenset()
        self._listed_ns: int | None = None
        """The folder's time of change at the last listing; None: it may have changed since."""
        self._unread: deque[Path] = deque()
        self._growing: dict[str, _File] = {}
        """By stem."""

    def read(self, apply: Callable[[NewRows], None]) -> None:
        """Hand over, as (instant in ms, rows), what was written since the last reading, file by file.

        When this returns, all that was written before the call has been handed over, by this or another call.
        Raises: OSError when the folder cannot be read, or descriptors or memory are used up.
        """
        with self._lock:
            apply(self._new_rows())

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            for stem in list(self._growing):
                self._forget(stem)

    def _new_rows(self) -> Iterator[tuple[int, Rows]]:
        self._list()
        while self._unread:
            path = self._unread[0]
            file = self._open(path)
            self._unread.popleft()
            if file is not None:
                self._growing[path.stem] = file
                if file.ended:  # thousands are sealed at a start: one is open at a time
                    yield from self._rest_of(path.stem)
        for stem in sorted(self._growing):
            yield from self._rest_of(stem)

    def _rest_of(self, stem: str) -> Iterator[tuple[int, Rows]]:
        file = self._growing[stem]
        ended = file.ended
        try:
            yield from _new_rows(file)
        except (OSError, DataError) as error:
            _log.error("journal_not_followed", path=str(file.path), error=str(error))
            ended = True
        if ended:
            self._forget(stem)

    def _forget(self, stem: str) -> None:
        os.close(self._growing.pop(stem).descriptor)

    def _list(self) -> None:
        """Find new files, and those that were sealed or removed, if the folder has changed."""
        try:
            changed_ns = os.stat(self._folder).st_mtime_ns
            if changed_ns == self._listed_ns:
                return
            names = frozenset(os.listdir(self._folder))
        except FileNotFoundError:
            return
        settled = abs(time.time_ns() - changed_ns) > _SETTLED_NS
        self._listed_ns = changed_ns if settled else None
        self._unread.extend(self._new_paths(names))
        for stem, file in self._growing.items():
            file.ended = stem + OPEN_SUFFIX not in names
        self._names = names

    def _new_paths(self, names: frozenset[str]) -> list[Path]:
        first = not self._names
        found = []
        for name in names - self._names:
            stem, suffix = os.path.splitext(name)
            if suffix not in (OPEN_SUFFIX, SEALED_SUFFIX) or server_of(stem) == self._own_id:
                continue
            if suffix == SEALED_SUFFIX and stem + OPEN_SUFFIX in self._names:
                continue  # it was followed before it was sealed
            path = self._folder / name
            if not (first and suffix == SEALED_SUFFIX and self._is_old(path)):
                found.append(path)
        return sorted(found, key=lambda path: path.stem)

    def _is_old(self, path: Path) -> bool:
        try:
            return ended_before(path, self._since_ms)
        except DataError:
            return True

    def _open(self, path: Path) -> _File | None:
        """Open a file under the name that it has now; None when it is gone."""
        for name in (path, path.with_suffix(SEALED_SUFFIX)):
            try:
                descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno in _SCARCE:
                    raise
                _log.error("journal_not_followed", path=str(name), error=str(error))
                return None
            return _File(path=name, descriptor=descriptor, ended=name.suffix == SEALED_SUFFIX)
        return None


def _new_rows(file: _File) -> Iterator[tuple[int, Rows]]:
    """Read from the last whole record on.

    Raises: DataError for another format; OSError.
    """
    size = os.fstat(file.descriptor).st_size
    if size <= max(file.offset, len(MAGIC)):
        return
    data = os.pread(file.descriptor, size - file.offset, file.offset)
    start = 0
    if file.offset == 0:
        check_magic(file.path, data)
        start = len(MAGIC)
    records, end = records_of(data, TABLES, start)
    file.offset += end
    for record in records:
        for rows in record.rows:
            yield record.at_ms, rows
