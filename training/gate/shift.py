"""How far the predictions of one bundle lie from another's on the same rows.

A shift says that something changed, not that it got worse: it stands in for labels that are missing or few.
Where they are enough to show that the new predictions fit them better, the shift is what they ask for.
Otherwise a live model that has drifted away from the truth would hold every night that mends it.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from recsys.config import GateConfig
from recsys.metrics.columns import Rows, Vector, group_sums
from recsys.metrics.losses import EPSILON, row_log_loss, row_squared_error
from recsys.records import Check, Verdict
from recsys.schema import IMPRESSION_KEY
from recsys.tasks import TaskSpec
from training.evaluation.head_rows import HeadRows
from training.gate.decision import finding
from training.gate.non_inferiority import normal_quantile

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
    *,
    learned: bool = False,
) -> list[Check]:
    """Hold predictions that are not finite, or distributed otherwise than the other bundle's by too much.

    Values that a young head predicts all alike fill one decile: a small move gives any stability index.

    Args: challenger, other: `score_rows`, of which the same impressions are compared; name: of the checks,
    after the head's; learned: the challenger has learned the labels of these rows, so they excuse nothing.
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
        both = challenger.select(*IMPRESSION_KEY, "weight", task.label, column).join(
            theirs, on=IMPRESSION_KEY
        )
        if both.height < config.min_rows:
            continue
        psi = stability_index(both[column].to_numpy(), both["other"].to_numpy())
        moved = psi > config.max_prediction_shift and not _small(task, challenger, both, column)
        asked_for = moved and not learned and _fits_better(task, both, column, config)
        outcome = Verdict.HOLD if moved and not asked_for else Verdict.PROMOTE
        new, old = both[column].to_numpy().mean(), both["other"].to_numpy().mean()
        means = f"mean {new:.4f}, before {old:.4f}"
        detail = f"stability index {psi:.3f}, at most {config.max_prediction_shift:g}; {means}"
        detail += "; the labels ask for it" if asked_for else ""
        found.append(finding(f"{task.name} {name}", outcome, detail, psi=psi))
    return found


def _small(task: TaskSpec, rows: pl.DataFrame, both: pl.DataFrame, column: str) -> bool:
    if task.kind.probability:
        return False
    move = float(np.sqrt(np.mean((both[column].to_numpy() - both["other"].to_numpy()) ** 2)))
    labels = rows[task.label].drop_nulls().to_numpy()
    return labels.size > 1 and move <= LEAST_VALUE_SHIFT * float(labels.std())


def _fits_better(task: TaskSpec, both: pl.DataFrame, column: str, config: GateConfig) -> bool:
    """Tell whether the labels show the new predictions to have the smaller loss, users drawn together.

    Args: both: rows with the new predictions in `column` and the old ones in "other".
    """
    known = HeadRows.of(task, both, column, "other")
    if known.label.size < config.min_rows or np.unique(known.user).size < 2:
        return False
    row_loss = row_log_loss if task.kind.probability else row_squared_error
    new, old = (
        Rows(label=known.label, prediction=known.frame[name].cast(pl.Float64).to_numpy(), weight=known.weight)
        for name in (column, "other")
    )
    gain_U = group_sums(known.weight * (row_loss(old) - row_loss(new)), known.user)
    weight_U = group_sums(known.weight, known.user)
    mean = float(gain_U.sum() / weight_U.sum())
    parts = gain_U - mean * weight_U
    error = float(np.sqrt(parts @ parts * gain_U.size / (gain_U.size - 1)) / weight_U.sum())
    if task.kind.probability:
        error = max(error, _expected_error(new, old))
    return mean > normal_quantile(1 - config.alpha) * error


def _expected_error(new: Rows, old: Rows) -> float:
    """Give the standard error of the mean gain in log loss, were the old predictions the rows' chances.

    Where next to nothing was bought, gains of a head that fell to 0 hardly vary: it would be shown to fit.
    """
    new_N, old_N = (np.clip(rows.prediction, EPSILON, 1 - EPSILON) for rows in (new, old))
    log_odds_N = np.log(new_N / (1 - new_N)) - np.log(old_N / (1 - old_N))
    spread_N = old.weight * log_odds_N * np.sqrt(old_N * (1 - old_N))
    return float(np.sqrt(spread_N @ spread_N) / old.weight.sum())


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
