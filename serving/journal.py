"""The journal's writer: one append-only file per process, one write before each reply.

A written record survives kill -9. A power cut loses at most the last second, because a thread syncs the file
and its folder each second. The file is sealed by rename when it is old or large, and at shutdown. Files that
a killed server left open are sealed by the next server. The format is defined in `recsys.journal`.
"""

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import structlog

from recsys.errors import JournalError
from recsys.files import make_folder, sync_folder
from recsys.journal import MAGIC, OPEN_SUFFIX, SEALED_SUFFIX, Rows, encode, stem

SYNC_EVERY_S = 1.0
MAX_BYTES = 64 * 1024 * 1024
_CREATIONS = 3
_log = structlog.get_logger(__name__)


class JournalFile(Protocol):
    """An append-only file; tests replace it by a full disk."""

    def write(self, data: bytes) -> int:
        """Append; return the number of bytes written."""

    def truncate(self, size: int) -> None:
        """Cut back to a size."""

    def sync(self) -> None:
        """Force the written bytes onto the disk."""

    def close(self) -> None:
        """Close it."""


class Journal:
    """Appends records; safe to call from many threads."""

    def __init__(
        self,
        folder: Path,
        server_id: str,
        now_ms: Callable[[], int],
        *,
        rotate_s: float = 300.0,
        max_bytes: int = MAX_BYTES,
        open_file: "Callable[[Path], JournalFile] | None" = None,
    ) -> None:
        self.folder = folder
        self._server_id = server_id
        self.now_ms = now_ms
        """The clock of the records."""
        self._rotate_ms = int(rotate_s * 1000)
        self._max_bytes = max_bytes
        self._open_file = open_file or AppendFile
        self._lock = threading.Lock()
        """Guards the fields below, down to the next lock; held for one write at most."""
        self._file: JournalFile | None = None
        self._path = folder
        self._opened_ms = 0
        self._size = 0
        self._number = 0
        self._dirty = False
        self._created = False
        """A file was created whose folder was not synced since."""
        self._healthy = True
        self._retired: list[tuple[JournalFile, Path]] = []
        self._sync_lock = threading.Lock()
        """Held while syncing, which is slow; files are closed only while it is held."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_synced, name="journal-sync", daemon=True)

    def start(self) -> None:
        """Seal files that killed servers left open, and start the sync thread."""
        with contextlib.suppress(OSError):
            seal_abandoned(self.folder)
        self._thread.start()

    @property
    def healthy(self) -> bool:
        """Tell whether the last write or sync succeeded."""
        return self._healthy

    @property
    def num_bytes(self) -> int:
        """Count the bytes of the file being written."""
        return self._size

    def append(self, *rows: Rows, after_ms: int = 0) -> int:
        """Write one record, whole or not at all; return its instant, in milliseconds.

        Args: after_ms: the record's instant is later than this, also when the clock is not.
        Raises: JournalError when it could not be written; the next call tries again.
        """
        at_ms = max(self.now_ms(), after_ms + 1)
        data = encode(at_ms, rows)
        with self._lock:
            try:
                self._write(data)
            except OSError as error:
                self._fail(error)
                raise JournalError(
                    f"the journal {self._path} cannot be written: {error.strerror or error}; free space or "
                    "fix permissions. Until then, answers are not logged and do not explore"
                ) from error
            self._recover()
        return at_ms

    def close(self) -> None:
        """Seal the file and stop the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            self._retire()
        self.sync()

    def sync(self) -> None:
        """Force all written records onto the disk, and seal files that are old or full."""
        with self._sync_lock:
            with self._lock:
                if abs(self.now_ms() - self._opened_ms) >= self._rotate_ms:  # or the clock was set back
                    self._retire()
                file, self._dirty = (self._file if self._dirty else None), False
                created, self._created = self._created, False
                retired, self._retired = self._retired, []
            try:
                if file is not None:
                    file.sync()
                if created:
                    sync_folder(self.folder)
            except OSError as error:
                self._replace_after_failed_sync(file, error)
            for old, path in retired:
                self._seal(old, path)
            if retired:
                self._sync_names()

    def _write(self, data: bytes) -> None:
        if self._file is not None and self._size + len(data) > self._max_bytes:
            self._retire()
        file = self._file or self._open()
        try:
            written = file.write(data)
            if written != len(data):
                raise OSError(f"only {written} of {len(data)} bytes were written; the disk is full")
        except OSError:
            self._undo(file)
            raise
        self._size += written
        self._dirty = True

    def _open(self) -> JournalFile:
        make_folder(self.folder)
        file = self._create()
        try:
            if file.write(MAGIC) != len(MAGIC):
                raise OSError("only a part of the header was written; the disk is full")
        except OSError:
            file.close()
            self._path.unlink(missing_ok=True)
            raise
        self._file, self._size, self._created = file, len(MAGIC), True
        return file

    def _create(self) -> JournalFile:
        self._opened_ms = self.now_ms()
        for _ in range(_CREATIONS):
            self._number += 1
            self._path = self.folder / (stem(self._opened_ms, self._server_id, self._number) + OPEN_SUFFIX)
            with contextlib.suppress(FileNotFoundError):
                return self._open_file(self._path)
        raise FileNotFoundError(errno.ENOENT, "new files are taken away at once", str(self.folder))

    def _undo(self, file: JournalFile) -> None:
        """Remove a half-written record; if that fails, continue in a new file (readers skip the half)."""
        try:
            file.truncate(self._size)
        except OSError:
            self._retire()

    def _retire(self) -> None:
        """Hand the current file to the next sync, which seals it."""
        if self._file is not None:
            self._retired.append((self._file, self._path))
            self._file, self._size, self._dirty = None, 0, False

    def _seal(self, file: JournalFile, path: Path) -> None:
        try:
            file.sync()
        except OSError as error:
            self._fail(error)
        with contextlib.suppress(OSError):
            file.close()
            _rename_sealed(path)

    def _sync_names(self) -> None:
        try:
            sync_folder(self.folder)
        except OSError as error:
            self._fail(error)

    def _replace_after_failed_sync(self, file: JournalFile | None, error: OSError) -> None:
        """Continue in a new file: after a failed sync it is unknown what reached the disk."""
        self._fail(error)
        with self._lock:
            if self._file is file:
                self._retire()

    def _fail(self, error: OSError) -> None:
        if self._healthy:
            _log.error("journal_unavailable", path=str(self._path), error=str(error))
        self._healthy = False

    def _recover(self) -> None:
        if not self._healthy:
            _log.info("journal_available_again", path=str(self._path))
        self._healthy = True

    def _keep_synced(self) -> None:
        while not self._stop.wait(SYNC_EVERY_S):
            self.sync()


class AppendFile:
    """A file on disk, locked while its server process lives.

    Raises: FileNotFoundError when a starting server sealed it before it was locked; other OSErrors.
    """

    def __init__(self, path: Path) -> None:
        # Never another's file: two writers would tear each other's records.
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o640)
        with contextlib.suppress(OSError):  # some file systems have no locks
            fcntl.flock(self._fd, fcntl.LOCK_EX)  # a starting server may just be looking at it
        if not path.exists():
            os.close(self._fd)
            raise FileNotFoundError(errno.ENOENT, "it was sealed before it was locked", str(path))

    def write(self, data: bytes) -> int:
        """Append in one system call."""
        return os.write(self._fd, data)

    def truncate(self, size: int) -> None:
        """Cut back to a size."""
        os.ftruncate(self._fd, size)

    def sync(self) -> None:
        """Force the written bytes onto the disk."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Close the file and release its lock."""
        os.close(self._fd)


def seal_abandoned(folder: Path) -> list[Path]:
    """Seal open files whose server process has ended; return their new paths."""
    found = [_seal_if_abandoned(path) for path in sorted(folder.glob(f"*{OPEN_SUFFIX}"))]
    sealed = [path for path in found if path is not None]
    if sealed:
        sync_folder(folder)
    return sealed


def _seal_if_abandoned(path: Path) -> Path | None:
    with contextlib.ExitStack() as opened:
        try:
            file = opened.enter_context(path.open("rb"))
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:  # its server lives, or has just sealed it
            return None
        return _rename_sealed(path)  # under the lock: its server finds it gone, or is seen to live


def _rename_sealed(path: Path) -> Path:
    sealed = path.with_suffix(SEALED_SUFFIX)
    # Another server may have sealed this abandoned file first.
    with contextlib.suppress(FileNotFoundError):
        os.replace(path, sealed)
    return sealed
