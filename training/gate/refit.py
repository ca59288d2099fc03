"""The refitted bundle, which goes live: it has learned the evaluated day, so nothing says what it is worth.

What can be said is whether the pass over two more days broke it: its predictions on the evaluated day beside
those of the evaluated bundle, and beside the labels that it has seen.
"""

from collections.abc import Sequence

import polars as pl

from recsys.config import GateConfig
from recsys.records import Check
from recsys.tasks import TaskSpec
from training.gate.calibration import check_ratios
from training.gate.shift import check_shift

_SEEN = "of the refit, on days it has learned"


def check_refit(
    tasks: Sequence[TaskSpec], refitted: pl.DataFrame, evaluated: pl.DataFrame, config: GateConfig
) -> list[Check]:
    """Hold a refit whose predictions moved too far, or no longer mean what they say.

    Args: refitted, evaluated: `score_rows` of the evaluated day by the two bundles.
    """
    return [
        *check_shift(tasks, refitted, evaluated, config, f"shift {_SEEN}"),
        *check_ratios(tasks, refitted, evaluated, config, f"predicted over observed {_SEEN}"),
    ]
