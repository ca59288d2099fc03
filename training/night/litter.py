"""What killed processes left in a RUNS folder and a log, removed when the next night begins."""

import shutil
from pathlib import Path

from recsys.scratch import age_s, remove_left
from recsys.stages import UNFINISHED

_WRITTEN_S = 60.0
"""Writing a small file takes milliseconds; a temporary one that is older was left."""
_CONVERTED_S = 3_600.0
"""Of a log: `recsys convert` may write one large file for minutes."""
_FORGOTTEN_S = 7 * 86_400.0
"""What a killed stage would go on from: of a night that nobody has run again for so long."""


def collect_litter(runs: Path, log: Path | None = None) -> list[Path]:
    """Remove it; give what was removed. What another process is writing stays.

    Args: log: of which temporary files go too, as ingests of killed nights leave them.
    """
    removed: list[Path] = []
    stages = [folder for folder in runs.glob("stages/*") if folder.is_dir()]
    for folder in (*stages, runs / "bundles"):
        removed += remove_left(folder)
    for folder in stages:
        for kept in folder.glob(f".*{UNFINISHED}"):
            if age_s(kept) > _FORGOTTEN_S:
                shutil.rmtree(kept, ignore_errors=True)
                removed.append(kept)
    places = [runs / place for place in ("registry", "reports", "store", "stages", "bundles")]
    for file in (*runs.glob(".*.tmp"), *(file for place in places for file in _temporary(place))):
        if age_s(file) > _WRITTEN_S:
            _remove(file)
            removed.append(file)
    for file in _temporary(log) if log is not None else ():
        if age_s(file) > _CONVERTED_S:
            _remove(file)
            removed.append(file)
    return removed


def _temporary(folder: Path) -> list[Path]:
    """List the temporary files and folders of a folder and of those in it, as all releases name them."""
    return [path for depth in ("", "[!.]*/", "[!.]*/[!.]*/") for path in folder.glob(f"{depth}.*.tmp")]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
