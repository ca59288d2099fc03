"""Which days' rows the gate compares by: the evaluated day, and for orders the day before it as well.

The day before is the calibration day: the weights have not learned it, and a calibrator that always rises
leaves the order inside a list as it is. Two days have a standard error of 1 / sqrt(2).
"""

from collections.abc import Sequence

from recsys.calibration import Affine, Identity, Platt, SamplingShift
from recsys.manifest import Manifest
from recsys.metrics.table import pooled_metric
from recsys.tasks import TaskSpec
from training.night.plan import NightPlan

KEEP_ORDER = Platt | SamplingShift | Affine | Identity
"""Calibrators that always rise. An isotonic one is flat in places, which it found on the day itself."""


def places_of(tasks: Sequence[TaskSpec], plan: NightPlan, manifest: Manifest) -> dict[str, list[int]]:
    """Give the days that each task is evaluated on.

    Args: manifest: the challenger's. A term of the item, or weights of sources, were fitted on the
    calibration day and change the order: then it is left out.
    """
    found: dict[str, list[int]] = {}
    for task in tasks:
        in_lists = pooled_metric(task.kind.metric).in_lists
        strict = isinstance(manifest.calibration[task.name], KEEP_ORDER)
        both = in_lists and strict and not manifest.fusion.sources.are_fitted
        found[task.name] = [*([plan.calibrate[task.name]] if both else []), plan.evaluate[task.name]]
    return found
