"""Folders of temporary files beside the data they are of; the next one removes what a killed process left."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

_LOCK = ".lock"


@contextmanager
def scratch_folder(parent: Path, name: str) -> Iterator[Path]:
    """Make a hidden folder for some time, and remove those of this name whose processes are gone.

    A process holds a lock while it lives, so that a folder in use by another container is left alone too.
    """
    prefix = f".{name}-"
    parent.mkdir(parents=True, exist_ok=True)
    for folder in parent.glob(f"{prefix}*"):
        if _is_left(folder):
            shutil.rmtree(folder, ignore_errors=True)
    with TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as folder_name:
        folder = Path(folder_name)
        made = folder / f"{_LOCK}.new"
        with made.open("wb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            made.rename(folder / _LOCK)  # nobody sees it without its lock
            yield folder


def _is_left(folder: Path) -> bool:
    try:
        with (folder / _LOCK).open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # in use, being made, or removed meanwhile
        return False
    return True
