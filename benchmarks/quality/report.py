"""What every set reports: a line per row, the row that validation chooses, differences, one JSON form.

A row is chosen by its validation figures alone; test figures play no part. The value of a figure is its mean
over seeds; the interval says how much of it is luck.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.quality.quality_set import Key, QualitySet, lower_is_better
from recsys.errors import DataError
from recsys.metrics.effect import Effect, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One metric of one head: mean over runs, what each gave, and an interval of 95 %."""

    value: float
    low: float | None
    """None, with `high`: one run says nothing of luck, or the metric has no interval."""
    high: float | None
    runs: tuple[float, ...]
    validation: float | None = None
    """The mean on validation rows; what a choice may look at. None: the figure takes part in no choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """One model: head -> metric -> figure, and how it came about."""

    name: str
    heads: Mapping[str, Mapping[str, Figure]]
    """Without figures that are NaN: an AUC of rows of one class, or anything of no rows."""
    seeds: int
    note: str = ""
    ours: bool = True
    """False: a baseline or a reference; it stands in the table and is never `best`."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """Seconds and megabytes of a run, means over runs."""

    def __post_init__(self) -> None:
        """Leave out what is no figure."""
        known = {h: {m: f for m, f in of.items() if not math.isnan(f.value)} for h, of in self.heads.items()}
        object.__setattr__(self, "heads", {head: of for head, of in known.items() if of})

    @property
    def figures(self) -> dict[Key, Figure]:
        """Give the figures by head and metric."""
        return {(head, metric): figure for head, of in self.heads.items() for metric, figure in of.items()}

    @property
    def validation(self) -> dict[Key, float]:
        """Give what a choice may look at."""
        return {key: f.validation for key, f in self.figures.items() if f.validation is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A row's figure less that of another, on the same rows and runs, with an interval of 95 %."""

    row: str
    against: str
    head: str
    metric: str
    value: float
    low: float | None
    """None, with `high`: the metric is not defined on too many draws."""
    high: float | None
    verdict: Verdict | None
    """Of the row: "better", "worse" or "no evidence"."""


def difference(row: str, against: str, measured: Key, effect: Effect) -> Difference:
    """Say what a row's difference b - a from the one it is held against means."""
    return Difference(
        row=row,
        against=against,
        head=measured[0],
        metric=measured[1],
        value=math.nan if effect.difference is None else effect.difference,
        low=effect.ci_low,
        high=effect.ci_high,
        verdict=effect.verdict,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityReport:
    """A measured set."""

    of: QualitySet
    rows: tuple[ModelRow, ...]
    differences: tuple[Difference, ...] = ()
    """Answers to the set's questions; the chosen row less each baseline."""

    @property
    def facts(self) -> dict[str, float]:
        """Give the set's facts, and what it concludes from the table."""
        facts = dict(self.of.facts)
        if self.of.conclude is not None and any(row.ours for row in self.rows):
            values = {row.name: {key: f.value for key, f in row.figures.items()} for row in self.rows}
            facts |= self.of.conclude(choose(self.rows).name, values)
        return facts

    def as_json(self) -> dict[str, Any]:
        """Give the JSON tree: `rows`; `by_row` and `best` are head -> metric -> value, `best` with its row.

        `best` is empty when only baselines were asked for.
        """
        by_row = {
            row.name: {h: {m: f.value for m, f in of.items()} for h, of in row.heads.items()}
            for row in self.rows
        }
        best: dict[str, Any] = {}
        if any(row.ours for row in self.rows):
            chosen = choose(self.rows)
            best = by_row[chosen.name] | {"row": chosen.name}
            if (of_lists := choose_lists(self.rows, chosen)) is not None:
                for head, values in by_row[of_lists.name].items():
                    best[head] = best.get(head, {}) | values
                best["lists"] = of_lists.name
        return {
            "set": self.of.name,
            "protocol": self.of.protocol,
            "interval": self.of.interval,
            "budget": self.of.budget,
            "facts": self.facts,
            "rows": [asdict(row) for row in self.rows],
            "best": best,
            "by_row": by_row,
            "published": self.of.published,
            "differences": [asdict(d) for d in self.differences if not math.isnan(d.value)],
        }


def choose(rows: Iterable[ModelRow]) -> ModelRow:
    """Choose the best of our rows by validation: the least sum over figures of how far it is behind the best.

    Each figure counts from 0, its best row's, to 1, its worst row's, so that no metric's unit outweighs
    another's. One row is chosen for all heads; of equal ones the first. Test figures play no part.
    Raises: DataError when no row has validation figures.
    """
    candidates = [row for row in rows if row.ours and row.validation]
    if not candidates:
        raise DataError("no row has validation figures: nothing can be chosen without looking at the test")
    # A row of lists alone is chosen beside another one, see `choose_lists`.
    whole = {key for row in candidates for key in row.validation}
    candidates = [row for row in candidates if row.validation.keys() == whole] or candidates
    keys = sorted(set.intersection(*(set(row.validation) for row in candidates)))

    def behind(row: ModelRow) -> float:
        return sum(_behind(key, row.validation[key], [c.validation[key] for c in candidates]) for key in keys)

    return min(candidates, key=behind)


def choose_lists(rows: Iterable[ModelRow], chosen: ModelRow) -> ModelRow | None:
    """Choose a source whose lists are better on validation than those of the chosen row; None: none is.

    One bundle has both: heads of one row, and a source that leads its lists. It is chosen by the sum of its
    figures; all of them are the chosen row's as well.
    """

    def gain(row: ModelRow) -> float:
        signs = {key: -1 if lower_is_better(key[1]) else 1 for key in row.validation}
        return sum(s * (row.validation[key] - chosen.validation[key]) for key, s in signs.items())

    found = [row for row in rows if row.ours and row.validation and _is_part(row, chosen)]
    best = max(found, key=gain, default=None)
    return best if best is not None and gain(best) > 0 else None


def _is_part(row: ModelRow, chosen: ModelRow) -> bool:
    return row.validation.keys() < chosen.validation.keys()


def _behind(key: Key, own: float, of_all: list[float]) -> float:
    """Give how far a row is behind the best on one figure, as a share of all rows' range; 0 without any."""
    low, high = min(of_all), max(of_all)
    if low == high:
        return 0.0
    return (own - low if lower_is_better(key[1]) else high - own) / (high - low)
