"""How far the predictions of one bundle lie from another's on the same rows."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from recsys.config import GateConfig
from recsys.metrics.columns import Vector
from recsys.records import Check, Verdict
from recsys.schema import IMPRESSION_KEY
from recsys.tasks import TaskSpec
from training.gate.decision import finding

_BINS = 10
_LEAST_SHARE = 1e-4
LEAST_VALUE_SHIFT = 0.5
"""A value is never held for moving less than this, root mean square, in standard deviations of its labels."""


def check_shift(
    tasks: Sequence[TaskSpec],
    challenger: pl.DataFrame,
    other: pl.DataFrame | None,
    config: GateConfig,
    name: str = "prediction shift",
) -> list[Check]:
    """Hold predictions that are not finite, or distributed otherwise than the other bundle's by too much.

    Values that a young head predicts all alike fill one decile: a small move gives any stability index.

    Args: challenger, other: `score_rows`, of which the same impressions are compared; name: of the checks,
    after the head's.
    """
    found = []
    for task in tasks:
        column = f"prediction_{task.name}"
        if not np.isfinite(challenger[column].to_numpy()).all():
            found.append(
                finding(f"{task.name} {name}", Verdict.HOLD, "predictions that are no finite numbers")
            )
            continue
        if other is None or column not in other.columns:
            continue
        theirs = other.select(*IMPRESSION_KEY, pl.col(column).alias("other"))
        both = challenger.select(*IMPRESSION_KEY, column).join(theirs, on=IMPRESSION_KEY)
        if both.height < config.min_rows:
            continue
        psi = stability_index(both[column].to_numpy(), both["other"].to_numpy())
        moved = psi > config.max_prediction_shift and not _small(task, challenger, both, column)
        outcome = Verdict.HOLD if moved else Verdict.PROMOTE
        new, old = both[column].to_numpy().mean(), both["other"].to_numpy().mean()
        means = f"mean {new:.4f}, before {old:.4f}"
        detail = f"stability index {psi:.3f}, at most {config.max_prediction_shift:g}; {means}"
        found.append(finding(f"{task.name} {name}", outcome, detail, psi=psi))
    return found


def _small(task: TaskSpec, rows: pl.DataFrame, both: pl.DataFrame, column: str) -> bool:
    if task.kind.probability:
        return False
    move = float(np.sqrt(np.mean((both[column].to_numpy() - both["other"].to_numpy()) ** 2)))
    labels = rows[task.label].drop_nulls().to_numpy()
    return labels.size > 1 and move <= LEAST_VALUE_SHIFT * float(labels.std())


def stability_index(new: Vector, old: Vector) -> float:
    """Give the population stability index over the old values' deciles; .25 is called a large shift.

    Args: new, old [N], finite. Source: Siddiqi, Credit Risk Scorecards, 2006.
    """
    edges = np.unique(np.quantile(old, np.linspace(0, 1, _BINS + 1)[1:-1]))
    new_share, old_share = (_shares(values, edges) for values in (new, old))
    return float(((new_share - old_share) * np.log(new_share / old_share)).sum())


def _shares(values: Vector, edges: Vector) -> Vector:
    counts = np.bincount(np.searchsorted(edges, values), minlength=edges.size + 1)
    found: Vector = np.maximum(counts / values.size, _LEAST_SHARE)
    return found
