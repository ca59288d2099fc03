"""A log -> its profile: what was measured, and the findings."""

from pathlib import Path

from features.profile.findings import find
from features.profile.measure import measure_log
from features.profile.model import LogProfile
from features.progress import share_bar
from recsys.config import RunConfig
from recsys.errors import DataError
from recsys.log import InteractionLog


def profile_log(folder: Path, config: RunConfig, config_name: str) -> LogProfile:
    """Profile a log against the config that it is meant for, with a progress bar.

    Raises: DataError when the folder is no log, or a file in it cannot be read.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder; name a log that `recsys convert` or `recsys simulate` made"
        )
    with share_bar("profile") as step:
        measured = measure_log(InteractionLog(folder), step)
    return measured.model_copy(update={"findings": find(measured, config, config_name)})
