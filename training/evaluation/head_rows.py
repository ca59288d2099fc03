"""The rows of one head whose label is known, as the columns that a metric reads."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl

from recsys.metrics.columns import IntVector, Lists, Rows, Vector
from recsys.metrics.list_auc import count_lists
from recsys.metrics.metric import RowMetric
from recsys.tasks import TaskSpec
from training.evaluation.examination import EXAMINATION
from training.evaluation.list_groups import LIST_GROUP

MEASURED = ("user_id", "weight", LIST_GROUP, EXAMINATION)
"""Columns that measuring reads beside labels and predictions."""
SCORE = "score"
"""Column of the fused score, by which a server sorts."""
SOURCE = "source_"
"""Prefix of a column of a source's own score, where it has a weight in the fused one."""
HELD = "list_"
"""Prefix of a column of predictions whose user and clock are held as at the list's first impression."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRows:
    """Labelled rows [N] of one head, and what systems predict of them."""

    frame: pl.DataFrame
    """The rows, with the systems' columns."""
    label: Vector
    weight: Vector
    user: IntVector
    """[N], numbered without gaps."""
    lists: Lists | None
    """None: the frame does not say which rows are shown together."""

    @classmethod
    def of(cls, task: TaskSpec, rows: pl.DataFrame, *predictions: str) -> Self:
        """Take the rows that have a label of the task and a value in the named columns.

        Args: rows: of `training.evaluation.evaluate.score_rows`, or like it.
        """
        label = pl.col(task.label)
        known = [pl.col(name).is_not_null() for name in predictions]
        frame = rows.filter(label.is_not_null() & label.is_not_nan(), *known)
        user: IntVector = frame["user_id"].rank("dense").to_numpy().astype(np.int64) - 1
        return cls(
            frame=frame,
            label=frame[task.label].cast(pl.Float64).to_numpy(),
            weight=frame["weight"].cast(pl.Float64).to_numpy(),
            user=user,
            lists=_lists(frame),
        )

    def prediction(self, metric: RowMetric, column: str) -> Vector:
        """Give what a metric reads of a system's predictions [N]: inside lists those with the state held.

        A system without live state has one column for both.
        """
        held = f"{HELD}{column}"
        read = held if metric.in_lists and held in self.frame.columns else column
        values: Vector = self.frame[read].cast(pl.Float64).to_numpy()
        return values

    def checked(self, metric: RowMetric, prediction: Vector) -> Rows:
        """Check the columns that a metric reads, beside predictions [N] of these rows.

        Raises: DataError, naming the first row that does not fit.
        """
        return metric.check(self.label, prediction, self.weight, self.lists)

    def count_lists(self) -> tuple[int, int]:
        """Count the lists that have unequal labels, and those of two rows or more that have not."""
        return (0, 0) if self.lists is None else count_lists(self.label, self.lists)

    def value(self, metric: RowMetric, column: str) -> float:
        """Measure a system; NaN where the metric is not defined."""
        return metric.value(self.checked(metric, self.prediction(metric, column)))


def _lists(frame: pl.DataFrame) -> Lists | None:
    if LIST_GROUP not in frame.columns:
        return None
    group = frame[LIST_GROUP].fill_null(-1).to_numpy()
    if EXAMINATION not in frame.columns:
        return Lists.unplaced(group)
    return Lists(group=group, examination=frame[EXAMINATION].cast(pl.Float64).to_numpy())
