"""The files of a finished stage: written down and forced onto the disk when made, checked when used again.

Size, time of change and inode tell a file that was cut, edited or replaced without reading it. A file that
was only copied, as with its whole folder, differs in these and is read once; then its new state is noted.
"""

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from recsys.errors import DataError
from recsys.files import sync_folder

Files = dict[str, list[int | str]]
"""Name -> size, SHA-256, time of change in ns, inode."""
_SYNCED_AT_ONCE = 8
"""File systems write out files that wait together in one go."""


def describe(folder: Path) -> Files:
    """Say what files a folder has."""
    return {
        str(path.relative_to(folder)): _hashed(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def check(folder: Path, files: Mapping[str, list[int | str]], *, full: bool) -> Files:
    """Check the files of a folder; give them as they are now.

    Args: full: read every file, not only those that were moved or touched.
    Raises: DataError for the first one that is not what was written.
    """
    now: Files = {}
    for name, (size, digest, *stamp) in files.items():
        path = folder / name
        try:
            state = path.stat()
            same = stamp == [state.st_mtime_ns, state.st_ino] and size == state.st_size
            now[name] = files[name] if same and not full else _hashed(path)
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror})") from error
        if now[name][:2] != [size, digest]:
            raise DataError(f"{path} is not what was written (its size or its SHA-256)")
    return now


def sync_tree(folder: Path) -> None:
    """Force a folder's files and entries onto the disk.

    Raises: OSError.
    """
    found = [*folder.rglob("*"), folder]
    with ThreadPoolExecutor(_SYNCED_AT_ONCE) as threads:
        for _ in threads.map(_sync_file, [path for path in found if not path.is_dir()]):
            pass
    for path in found:
        if path.is_dir():
            sync_folder(path)


def _hashed(path: Path) -> list[int | str]:
    with path.open("rb") as stream:
        state = os.fstat(stream.fileno())
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return [state.st_size, digest, state.st_mtime_ns, state.st_ino]


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
