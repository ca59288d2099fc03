"""What a public set declares: its rows, what a run of a row gives, and what is measured on it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from recsys.metrics.columns import Lists, group_codes
from recsys.metrics.metric import Statistic
from recsys.metrics.pooled import ratio_of_sums
from recsys.metrics.table import METRICS, pooled_metric, row_metric

Key = tuple[str, str]
"""Head and metric."""
Published = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Published row -> head -> metric -> value."""
Outputs = Mapping[str, np.ndarray]
"""What a run gives of held-out rows, by name: predictions [N], or users' own values [U]."""
News = Callable[[str], None]
CHOSEN = "chosen"
"""In a question: the row of ours that validation chooses."""


def lower_is_better(metric: str) -> bool:
    """Look up a metric's direction; a table may estimate it by SNIPS, or give it for warm users alone."""
    known = METRICS.get(metric.removeprefix("snips_").removesuffix("_warm"))
    return known is not None and known.higher_is_better is False


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One metric of one head on held-out rows; a run that lacks the output has no such figure."""

    head: str
    metric: str
    """As the table has it."""
    output: str
    """Name of the run's output that is measured."""
    pooled: str | None = None
    """The metric over rows, of `recsys.metrics.table`; None: the mean of users' own values. One that has no
    interval, such as ECE, is shown without, and rows are not compared by it."""
    label: np.ndarray | None = None
    """[N], with `user`, where the metric is over rows."""
    user: np.ndarray | None = None
    weight: np.ndarray | None = None
    lists: Lists | None = None
    """Of a metric inside lists."""
    rows: np.ndarray | None = None
    """The output's rows that count [N], by mask; None: all."""
    repeats: Literal["users", "runs", "places"] = "users"
    """What the interval is of: users drawn anew; runs, each with a split of its own; or places of the output,
    such as folds, each the mean of its runs."""

    @property
    def key(self) -> Key:
        """Give head and metric."""
        return self.head, self.metric

    @property
    def higher_is_better(self) -> bool:
        """Tell an error from a gain."""
        return not lower_is_better(self.metric)

    @property
    def has_interval(self) -> bool:
        """Say whether drawing users again tells how much of the figure is luck."""
        return self.pooled is None or row_metric(self.pooled).pooled is not None

    def among(self, rows: np.ndarray, suffix: str) -> "Measure":
        """Give the same measure of some rows, by mask, under a longer name."""
        assert self.label is not None, "a metric over rows has labels"
        assert self.user is not None, "a metric over rows has users"
        metric, label, user = self.metric + suffix, self.label[rows], self.user[rows]
        lists = None if self.lists is None else self.lists.take(rows)
        return replace(self, metric=metric, label=label, user=user, lists=lists, rows=rows)

    def of(self, outputs: Outputs) -> np.ndarray:
        """Give the part of a run's output that counts."""
        found = outputs[self.output]
        return found if self.rows is None else found[self.rows]

    def statistic(self, outputs: Outputs) -> tuple[Statistic, int]:
        """Give the figure as a function of how often each user is drawn, and how many users there are."""
        values = self.of(outputs)
        if self.pooled is None:
            return ratio_of_sums(values.astype(np.float64), np.ones(values.size)), values.size
        assert self.label is not None, "a metric over rows needs labels"
        assert self.user is not None, "a metric over rows needs users"
        if not values.size:
            return lambda _: float("nan"), 0
        pooled = pooled_metric(self.pooled)
        codes, num_users = group_codes("user", self.user, values.size)
        return pooled.statistic(pooled.check(self.label, values, self.weight, self.lists), codes), num_users

    def value(self, outputs: Outputs) -> float:
        """Measure one run; NaN where the metric is not defined."""
        if self.pooled is not None and not self.has_interval:
            assert self.label is not None, "a metric over rows needs labels"
            metric = row_metric(self.pooled)
            return metric.value(metric.check(self.label, self.of(outputs), self.weight, self.lists))
        statistic, num_users = self.statistic(outputs)
        return statistic(np.ones(num_users))


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training of a row: what it says of the validation rows and of the test rows."""

    validation: Outputs
    test: Outputs
    note: str = ""
    costs: Mapping[str, float] = field(default_factory=dict)
    """Seconds and megabytes, by name."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: how it is trained from a seed. A baseline is a row that is not ours."""

    train: Callable[[int], Run | Sequence[Run]]
    """Several runs: a seed is tested several times, each time on its own."""
    ours: bool = True
    """False: a baseline or a reference; it stands in the table and is never chosen."""
    seeded: bool = True
    """False: it draws nothing, so one run says all."""
    shown: bool = True
    """False: it answers a question and is no line of the table."""
    on_request: bool = False
    """True: it is trained only where it is asked for by name."""
    least_seeds: int = 1
    """With fewer seeds the row is left out, or refused where it is asked for."""


def baseline(fit: Callable[[], Run | Sequence[Run]]) -> Row:
    """Make a row of a simple system that draws nothing."""
    return Row(lambda _seed: fit(), ours=False, seeded=False)


@dataclass(frozen=True, kw_only=True)
class QualitySet:
    """Everything the driver needs to measure a set; reading a folder makes one."""

    name: str
    protocol: str
    interval: str
    """What the intervals are of."""
    budget: str
    """How much tuning each row had."""
    rows: Mapping[str, Row]
    """In the table's order."""
    validation: Sequence[Measure]
    """What a choice may look at; keys are those of `test`."""
    test: Sequence[Measure]
    seeds: int = 3
    """Runs of each row, where the caller does not say."""
    questions: Sequence[tuple[str, str]] = ()
    """Pairs of rows: the first is compared with the second, beside the chosen row with every baseline."""
    published: Published = field(default_factory=dict)
    peers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Peer -> its rows, which are trained where it is asked for."""
    facts: Mapping[str, float] = field(default_factory=dict)
    """Rows, warm users and the like."""
    conclude: Callable[[str, Mapping[str, Mapping[Key, float]]], Mapping[str, float]] | None = None
    """(the chosen row, row -> figure -> value) -> facts that only the table can give."""


OpenSet = Callable[[Path, Path], QualitySet]
"""(folder of the published files, scratch folder that is emptied at the end) -> the set."""
