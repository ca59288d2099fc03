"""Text files written whole or not at all, and folders forced onto the disk."""

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> Path:
    """Write a file whole or not at all; one that is there is replaced.

    Raises: OSError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def make_folder(folder: Path) -> None:
    """Make a folder that may be there already, so that a power cut does not take it away.

    Raises: OSError.
    """
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Force a folder's entries onto the disk: without it a power cut may undo a file's creation or renaming.

    Raises: OSError.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
