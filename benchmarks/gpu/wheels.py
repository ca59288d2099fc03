"""Wheels that were carried along: unpacked into a folder for `sys.path`, without pip or a network."""

import sys
import zipfile
from pathlib import Path


def unpacked_wheels(folder: Path | None, target: Path) -> list[Path]:
    """Unpack every wheel of a folder; a broken one is said and left out. Gives what to import from."""
    if folder is None:
        return []
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        print(f"skipped: no wheel in {folder}", file=sys.stderr)
    place = target / "wheels"
    for wheel in wheels:
        try:
            with zipfile.ZipFile(wheel) as packed:
                packed.extractall(place)
        except (OSError, zipfile.BadZipFile) as error:
            print(f"skipped: {wheel.name} is no wheel: {error}", file=sys.stderr)
    return [place] if place.is_dir() else []
