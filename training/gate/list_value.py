"""The value of the fused list: what the served order of logged lists is worth, in the unit of `[fusion]`.

A head's own order can stay as it is while the score that a server sorts by loses. The value of a row is the
sum of its labels, each with its weight in the score; its order is by the fused score.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from recsys.config import GateConfig
from recsys.fusion import Fusion
from recsys.metrics.columns import Vector
from recsys.metrics.inference import paired_bootstrap_ratios
from recsys.metrics.list_value import order_values
from recsys.schema import IMPRESSION_KEY
from recsys.tasks import TaskSpec
from training.evaluation.head_rows import HELD, SCORE, HeadRows
from training.gate.non_inferiority import HeadComparison

NAME = "value of the served order"
_VALUE = "list_value"


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuedRows:
    """Rows [N] whose value is known."""

    rows: HeadRows
    value: Vector
    tasks: tuple[str, ...]
    """Whose labels the value is made of."""

    @classmethod
    def of(cls, tasks: Sequence[TaskSpec], rows: pl.DataFrame, fusion: Fusion) -> "ValuedRows | None":
        """Add the labels up, of heads that predict a probability of every impression.

        In a product of predictions a label counts its weight over the mean label: the first term of the
        logarithm's series. A head whose labels are known on another day than the first one's is left out.
        None: no such head has a weight, or rows are in no list.
        """
        valued = [t for t in tasks if t.kind.probability and t.space == "impressions" and _weight(t, fusion)]
        if not valued:
            return None
        known = HeadRows.of(valued[0], rows)
        valued = [t for t in valued if known.frame[t.label].is_not_null().all()]
        if known.lists is None or not known.label.size or not known.count_lists()[0]:
            return None
        value = np.zeros(known.label.size)
        for task in valued:
            label = known.frame[task.label].cast(pl.Float64).to_numpy()
            unit = float(np.average(label, weights=known.weight)) if fusion.is_product else 1.0
            value += _weight(task, fusion) * label / (unit or 1.0)
        return cls(rows=known, value=value, tasks=tuple(t.name for t in valued))

    def gains(self, column: str) -> tuple[Vector, Vector]:
        """Give each user's (gain, share) of the order by a column, as `order_values`."""
        assert self.rows.lists is not None
        score = self.rows.frame[column].cast(pl.Float64).to_numpy()
        users = int(self.rows.user.max()) + 1
        value = self.value * self.rows.weight
        return order_values(value, score, self.rows.lists, self.rows.user, users)

    def total(self, column: str) -> float:
        """Give the gain over a random order as a share of the labels' value."""
        gain, share = self.gains(column)
        return float(gain.sum() / share.sum()) if share.any() else 0.0


def value_of(tasks: Sequence[TaskSpec], rows: pl.DataFrame, fusion: Fusion) -> float | None:
    """Measure one bundle's fused order. Args: rows: its `score_rows`."""
    valued = ValuedRows.of(tasks, rows, fusion)
    return None if valued is None else valued.total(f"{HELD}{SCORE}")


def compare_value(
    tasks: Sequence[TaskSpec],
    challenger: pl.DataFrame,
    champion: pl.DataFrame,
    fusion: Fusion,
    config: GateConfig,
    seed: int,
) -> HeadComparison | None:
    """Compare two bundles' fused orders of the same lists; None where there is no value to measure.

    Args: challenger, champion: `score_rows`, the same impressions; fusion: what a label is worth, equal for
    both.
    """
    theirs = champion.select(*IMPRESSION_KEY, pl.col(f"{HELD}{SCORE}").alias("champion"))
    valued = ValuedRows.of(tasks, challenger.join(theirs, on=IMPRESSION_KEY), fusion)
    if valued is None or valued.rows.label.size < config.min_rows:
        return None
    effect = paired_bootstrap_ratios(
        _VALUE,
        valued.gains("champion"),
        valued.gains(f"{HELD}{SCORE}"),
        generator=np.random.default_rng(seed),
        replicates=config.replicates,
        level=1 - 2 * config.alpha,
    )
    effect = effect.model_copy(update={"rows": valued.rows.label.size})
    name = f"{NAME} ({' + '.join(valued.tasks)})"
    return HeadComparison(name=name, effect=effect, adds=max(0.0, effect.a or 0.0), config=config)


def _weight(task: TaskSpec, fusion: Fusion) -> float:
    return fusion.terms[task.name].weight if task.name in fusion.terms else 0.0
