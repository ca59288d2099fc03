"""A log -> its profile: what was measured, and the findings."""

import json
from pathlib import Path

from features.profile.findings import find
from features.profile.measure import measure_log
from features.profile.model import Finding, LogProfile
from features.progress import share_bar
from features.sources.conversion import SUMMARY
from recsys.config import RunConfig
from recsys.errors import DataError
from recsys.log import InteractionLog


def profile_log(folder: Path, config: RunConfig | None, config_name: str) -> LogProfile:
    """Profile a log against the config that it is meant for, with a progress bar.

    Args: config: None where there is none yet: a log without feedback has no head.
    Raises: DataError when the folder is no log, or a file in it cannot be read.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder; name a log that `recsys convert` or `recsys simulate` made"
        )
    with share_bar("profile") as step:
        measured = measure_log(InteractionLog(folder), step)
    recorded = _recorded(folder)
    known = {finding.code for finding in recorded}
    found = [finding for finding in find(measured, config, config_name) if finding.code not in known]
    return measured.model_copy(update={"findings": (*recorded, *found)})


def _recorded(folder: Path) -> list[Finding]:
    """Read what conversions found in the files: a log no longer shows how ids were written there."""
    found = []
    for path in sorted(folder.glob(f"{SUMMARY}.*.json")):
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            found += [Finding.model_validate(finding) for finding in stored.get("findings", ())]
        except (OSError, ValueError, AttributeError):
            continue  # a profile describes what it can read
    return found
