"""What a prepared folder holds: every file with size and time, written last, forced onto the disk.

The hashes were checked when the files were copied, and nobody else can write there. Size and time are what a
worker checks before it maps: they find what a broken disk, or a person, has changed since.
"""

import json
import os
from pathlib import Path

from recsys.files import sync_folder

LISTING = "prepared.json"
IN_USE = "in-use"
"""An empty file that is locked by whoever uses the folder."""


def write_listing(folder: Path) -> None:
    """Force a folder's files onto the disk, then list them.

    Raises: OSError.
    """
    (folder / IN_USE).touch(mode=0o600)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            _sync(path)
        else:
            sync_folder(path)
    with (folder / LISTING).open("x") as stream:
        json.dump(_state(folder), stream)
        stream.flush()
        os.fsync(stream.fileno())
    sync_folder(folder)


def is_as_listed(folder: Path) -> bool:
    """Tell whether a folder is there with all its files as they were listed."""
    try:
        listed = json.loads((folder / LISTING).read_text())
        return bool(listed == _state(folder)) and not folder.is_symlink()
    except (OSError, ValueError):
        return False


def _state(folder: Path) -> dict[str, list[int]]:
    found = {}
    for path in sorted(folder.rglob("*")):
        state = path.lstat()
        if path.is_symlink() or not path.is_dir():
            found[str(path.relative_to(folder))] = [state.st_mode, state.st_size, state.st_mtime_ns]
    for own in (LISTING, IN_USE):
        found.pop(own, None)
    return found


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
