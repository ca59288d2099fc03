"""The refitted bundle, which goes live: it has learned the evaluated day, so nothing says what it is worth.

What can be said is whether the pass over two more days broke it: its predictions on the evaluated day beside
those of the evaluated bundle, and beside the labels that it has seen. Its level was fitted to these, where
they are enough (`recsys.levelled`), so the order is asked as well: who has seen the labels should not be
behind.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from recsys.config import GateConfig
from recsys.levelled import with_mean
from recsys.records import Check, Verdict
from recsys.tasks import TaskSpec
from training.gate.calibration import check_ratios
from training.gate.decision import finding
from training.gate.heads import compare_with
from training.gate.non_inferiority import HeadComparison
from training.gate.shift import check_shift

_LEAST = 1e-9
_SEEN = "of the refit, on days it has learned"
SEEN_SHIFT = 2.0
"""Times `[gate] max_prediction_shift`. A model is surer of rows that it has just learned, and the more so the
fewer days it had before: a refit of a small first night has 1.3 where nothing is wrong."""


def check_refit(
    tasks: Sequence[TaskSpec], refitted: pl.DataFrame, evaluated: pl.DataFrame, config: GateConfig, seed: int
) -> list[Check]:
    """Hold a refit whose predictions have another form, no longer mean what they say, or lost the order.

    Args: refitted, evaluated: `score_rows` of the evaluated day by the two bundles; seed: of intervals.
    """
    heads = [head for head in compare_with(tasks, refitted, evaluated, config, seed) if head.known]
    wide = config.model_copy(update={"max_prediction_shift": SEEN_SHIFT * config.max_prediction_shift})
    before = _at_level(tasks, evaluated, refitted)
    return [
        *(_order(head, len(heads)) for head in heads),
        *check_shift(tasks, refitted, before, wide, f"shift {_SEEN}", learned=True),
        *check_ratios(
            tasks, refitted, evaluated, config, f"predicted over observed {_SEEN}", "before the refit"
        ),
    ]


def _at_level(tasks: Sequence[TaskSpec], evaluated: pl.DataFrame, refitted: pl.DataFrame) -> pl.DataFrame:
    """Give the evaluated bundle's predictions the mean of the refit's: what is compared is their form.

    The level is asked by the labels; a night whose calibrator was off would be held for being mended.
    """
    moved = []
    for task in tasks:
        column = f"prediction_{task.name}"
        new = refitted[column].cast(pl.Float64).to_numpy()
        if column not in evaluated.columns or not new.size or not np.isfinite(new).all():
            continue
        old = evaluated[column].cast(pl.Float64).to_numpy()
        if task.kind.probability:
            old = with_mean(np.clip(old, _LEAST, 1 - _LEAST), float(new.mean()))
        else:
            old = old + (new.mean() - old.mean())
        moved.append(pl.Series(column, old))
    return evaluated.with_columns(moved)


def _order(head: HeadComparison, num_heads: int) -> Check:
    """Hold what is shown to be worse than before the pass."""
    low, high = head.interval
    detail = f"{head.effect.b:.4f}, before the refit {head.effect.a:.4f}, gain [{low:+.4f}, {high:+.4f}]"
    outcome = Verdict.HOLD if head.vetoes(num_heads) else Verdict.PROMOTE
    return finding(f"{head.name} {_SEEN}", outcome, detail, gain=head.gain, low=low, high=high)
