"""Folders of temporary files beside the data they are of; the next one removes what a killed process left."""

import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

_LOCK = ".lock"
_BEING_MADE_S = 60.0
"""A folder that has no lock for so long was left by a process killed between making the two."""


@contextmanager
def scratch_folder(parent: Path, name: str) -> Iterator[Path]:
    """Make a hidden folder for some time, and remove those of this name whose processes are gone.

    A process holds a lock while it lives, so that a folder in use by another container is left alone too.
    """
    prefix = f".{name}-"
    parent.mkdir(parents=True, exist_ok=True)
    remove_left(parent, name)
    with TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as folder_name:
        folder = Path(folder_name)
        made = folder / f"{_LOCK}.new"
        with made.open("wb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            made.rename(folder / _LOCK)  # nobody sees it without its lock
            yield folder


def remove_left(parent: Path, name: str = "*") -> list[Path]:
    """Remove hidden folders of a name, or of any, whose processes are gone; give them."""
    left = [folder for folder in parent.glob(f".{name}-*") if _is_left(folder)]
    for folder in left:
        shutil.rmtree(folder, ignore_errors=True)
    return left


def _is_left(folder: Path) -> bool:
    try:
        with (folder / _LOCK).open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return age_s(folder) > _BEING_MADE_S
    except OSError:  # in use, or removed meanwhile
        return False
    return True


def age_s(path: Path) -> float:
    """Return the seconds since a file or folder was changed; 0 for one that has just gone."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
