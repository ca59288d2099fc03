"""Two predictions of one head's rows, compared by its primary metric with an interval over users."""

import numpy as np

from recsys.config import GateConfig
from recsys.metrics.columns import Vector
from recsys.metrics.effect import Effect
from recsys.metrics.inference import paired_bootstrap
from recsys.tasks import TaskSpec
from training.evaluation.head_rows import HeadRows


def compare_paired(
    task: TaskSpec,
    rows: HeadRows,
    a: Vector,
    b: Vector,
    config: GateConfig,
    seed: int,
    *,
    level: float | None = None,
) -> Effect:
    """Compare predictions a and b [N] of the same rows, users drawn together.

    Args: level: of the two-sided interval; None: 1 - 2 alpha, so that each side is at the gate's alpha.
    """
    return paired_bootstrap(
        task.kind.metric,
        rows.label,
        a,
        b,
        rows.user,
        generator=np.random.default_rng(seed),
        weight=rows.weight,
        lists=rows.lists,
        replicates=config.replicates,
        level=1 - 2 * config.alpha if level is None else level,
    )
