"""What the table of metrics holds: metrics over rows, and metrics over ranked lists.

Shapes: N rows, U users, K places, I items.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy.typing as npt

from recsys.metrics.columns import (
    IntVector,
    Lists,
    Rows,
    Vector,
    checked,
    checked_binary,
    checked_chances,
    checked_lists,
    checked_probability,
)
from recsys.metrics.ranking import IntMatrix, Matches

Statistic = Callable[[Vector], float]
"""How often each user is drawn [U] -> the metric's value on that draw, NaN when not defined."""
Reads = Literal["order", "probability", "value", "order_of_chances"]
"""What a metric reads of a prediction: only how it orders the rows, a probability, or a value in the label's
unit. The first two are of heads that predict a probability, the third is of all others. The last reads an
order, too, and in place of labels their true chances."""
Place = Literal["terminal", "baselines"]
"""Tables that show some metrics only: that of `recsys evaluate`, and a report's table of simple systems."""
EVERYWHERE: tuple[Place, ...] = ("terminal", "baselines")

_CHECKS = {
    "order": checked_binary,
    "probability": checked_probability,
    "value": checked,
    "order_of_chances": checked_chances,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RowMetric:
    """A metric of one head over rows of label, prediction and weight."""

    title: str
    """As it is printed."""
    higher_is_better: bool | None
    reads: Reads
    value: Callable[[Rows], float]
    """Checked rows [N] -> the figure, NaN where not defined."""
    pooled: Callable[[Rows, IntVector], Statistic] | None = None
    """(checked rows, user numbers) -> the figure as a function of a draw of users. None: no interval."""
    no_interval: str = ""
    """Why there is none."""
    digits: int = 4
    tables: tuple[Place, ...] = EVERYWHERE
    of_constant: float | None = None
    """The figure of predictions that are all equal; None: it depends on the labels."""
    in_lists: bool = False
    """Whether it compares rows of one list only: it reads predictions with the user's state held (see
    `training.evaluation`), and rows must name their lists."""
    gate_limit: str = ""
    """The key of `[gate]` that holds the highest figure allowed (or the champion's); empty: not checked."""

    @property
    def of_probability(self) -> bool:
        """Tell whether the metric is of heads that predict a probability."""
        return self.reads != "value"

    def check(
        self,
        label: npt.ArrayLike,
        prediction: npt.ArrayLike,
        weight: npt.ArrayLike | None = None,
        lists: Lists | None = None,
    ) -> Rows:
        """Check the columns that the metric reads.

        Raises: DataError, naming the first row that does not fit, or when a metric inside lists gets none.
        """
        rows = _CHECKS[self.reads](label, prediction, weight)
        return replace(rows, lists=checked_lists(lists, rows.label.size)) if self.in_lists else rows

    def statistic(self, rows: Rows, user: IntVector) -> Statistic:
        """Give the figure as a function of a draw of users; of metrics with `pooled` alone."""
        assert self.pooled is not None, f"{self.title} has no pooled statistic"
        return self.pooled(rows, user)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedLists:
    """The first places of every user's list on one period, and what is known of the items."""

    items: IntMatrix
    """[U, K] item rows, best first, padded with -1."""
    matches: Matches
    """Which of them the user wanted."""
    matches_again: Matches
    """The same of wanted items that the user had taken before."""
    popularity: Vector
    """[I] feedback on each item before the period."""
    category: IntVector
    """[I]"""
    num_available: int

    @property
    def matches_new(self) -> Matches:
        """Give which of them the user wanted and had never taken before."""
        return Matches(
            hit=self.matches.hit & ~self.matches_again.hit,
            num_relevant=self.matches.num_relevant - self.matches_again.num_relevant,
        )

    @property
    def k(self) -> int:
        """Count the places."""
        return int(self.items.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class ListMetric:
    """A metric of ranked lists: one value per user, or one per period where no user has one."""

    title: str
    higher_is_better: bool | None
    """None: a difference is shown, and neither direction is better."""
    reads: Literal["shown", "candidates", "retrieved"]
    """shown: the page that the user gets. candidates: what is scored, of all sources. retrieved: what the two
    towers find, in their own order."""
    k: int | None
    """How many places are read; None: all."""
    of_users: Callable[[RankedLists], Vector] | None = None
    """Lists -> [U], NaN where not defined; a user's periods are averaged, then the users."""
    of_period: Callable[[RankedLists], float] | None = None
    """Lists -> one figure; the periods are averaged, and there is no interval."""
    no_interval: str = ""
    digits: int = 4
    primary: bool = False
    """Whether the decision of an A/B report rests on it, beside the heads' primary metrics."""
    tables: tuple[Place, ...] = EVERYWHERE
    gate_ratio: str = ""
    """The key of `[gate]` that holds the least share of the champion's figure; empty: not checked."""


Metric = RowMetric | ListMetric
