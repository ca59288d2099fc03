"""Heads whose probabilities mean what they say."""

from collections.abc import Mapping, Sequence

from recsys.calibration import Calibrator, is_fitted
from recsys.head_kinds import UNCALIBRATED
from recsys.records import Check, Verdict
from recsys.tasks import TaskSpec
from training.gate.decision import finding


def check_calibration(
    tasks: Sequence[TaskSpec], calibration: Mapping[str, Calibrator], chosen: Mapping[str, str]
) -> list[Check]:
    """Hold a bundle with a head that the config wants calibrated and that is not.

    Args: calibration: task -> the bundle's calibrator; chosen: head kind -> calibrator (`[calibration]`).
    """
    detail = (
        "uncalibrated: no label was known on its calibration day; run a night when labels are known, or set "
        '[calibration] {head} = "none"'
    )
    return [
        finding(f"{task.name} calibration", Verdict.HOLD, detail.format(head=task.head))
        for task in tasks
        if chosen[task.head] != UNCALIBRATED and not is_fitted(calibration[task.name])
    ]
