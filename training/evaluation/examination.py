"""How likely each position of scored rows or of learned days is looked at, where exploration can tell."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from features.days import Days
from recsys.config import RunConfig
from recsys.metrics.columns import IntVector, Vector, effective_rows
from recsys.metrics.examination import at_positions, examination_curve, examination_power
from recsys.policy import UNIFORM_SLOTS
from recsys.schema import IMPRESSION_KEY
from recsys.snapshot import DaySnapshot
from recsys.tasks import TaskSpec
from training.data.scoring import PIECE_ROWS

EXAMINATION = "examination"
"""Column of a frame of scored rows: relative chance in (0, 1] that the row's position was looked at."""
POLICY_COLUMNS = ("explored", "propensity", "propensity_kind")
"""What the log says of how an item got its position."""
CURVE_POSITIVES, MIN_POSITIVES = 200.0, 50.0
"""Effective positives on explored rows from which each position is told by itself; from which all are told
by one number. Fewer say too little: all positions count alike then."""
_BY_CHANCE = (pl.col("explored") & (pl.col("propensity_kind") == "exact")) | (
    pl.col("propensity_kind") == "uniform"
)
"""Rows whose item got its position by chance."""
_UNIFORM = pl.col("propensity_kind") == "uniform"
MAX_PERIODS = 7
"""So many of the last days that heads learn are read for it."""
EARLIER_PERIODS = 28
"""So many days before those that are measured are read where these say too little: how a page is looked at
stays, whoever orders it, and a day of own lists explores little."""


def examination_of(
    rows: pl.DataFrame,
    tasks: Sequence[TaskSpec],
    days: Days | None = None,
    first: int = 0,
    told: "Told | None" = None,
) -> pl.Series:
    """Give each row's examination [N], ones where exploration is too little to tell.

    Args: rows: position, weight, the policy columns and the tasks' labels; days, first: where the rows begin:
    explored rows of the days before are read, the latest first, until each position is told by itself; told:
    of the first bundle that the same impressions are scored by.
    """
    told = told or Told()
    if told.curve is None:
        told.curve = _curve(_with_earlier(rows, tasks, days, first, told.require), tasks)
    return pl.Series(EXAMINATION, at_positions(told.curve, rows["position"].cast(pl.Int64).to_numpy()))


@dataclass(slots=True)
class Told:
    """What exploration tells of positions: it is read once, whoever scores the impressions."""

    curve: Vector | None = None
    """[P + 1]; None: nobody asked yet."""
    require: Callable[[DaySnapshot], None] = lambda _: None
    """Proves an earlier day before its rows are read; it raises for one that is damaged."""

    @classmethod
    def of(cls, scored: pl.DataFrame) -> "Told":
        """Read it off rows of `score_rows`; beyond the last of their positions it is that one's."""
        known = scored.select(pl.col("position").cast(pl.Int64), EXAMINATION).unique("position")
        if known.is_empty():
            return cls()
        known = known.sort("position")
        places = np.arange(int(known["position"][-1]) + 1)
        nearest = np.searchsorted(known["position"].to_numpy(), places)
        return cls(known[EXAMINATION].to_numpy()[nearest])


def _with_earlier(
    rows: pl.DataFrame,
    tasks: Sequence[TaskSpec],
    days: Days | None,
    first: int,
    require: Callable[[DaySnapshot], None],
) -> pl.DataFrame:
    """Add explored rows of earlier days as far as they are needed; memory holds a day's labels at a time."""
    wanted = ["position", "weight", *POLICY_COLUMNS, *(task.label for task in tasks)]
    found = rows.filter(_BY_CHANCE).select(wanted)
    if days is None:
        return found
    for i in range(first - 1, max(-1, first - 1 - EARLIER_PERIODS), -1):
        if max(map(_positives, _samples(found, tasks)), default=CURVE_POSITIVES) >= CURVE_POSITIVES:
            break
        earlier = _explored(days.apart(), i, tasks, require)
        found = pl.concat([found, earlier.select(wanted)], how="vertical_relaxed")
    return found


def examination_for_lists(days: Days, places: Sequence[int], config: RunConfig) -> tuple[float, ...]:
    """Estimate the chance of each position from the last of the days whose lists heads learn; else (1,).

    With a position bias it is 1 too: what is compared then are logits at their positions. Memory holds the
    explored rows and the uniformly drawn ones of these days, and a day's labels.
    """
    if config.model.position_bias or not places or not any(task.list_weight for task in config.tasks):
        return (1.0,)
    days, tasks = days.labelled_for(config.tasks), config.tasks
    explored = [_explored(days, i, tasks) for i in places[-MAX_PERIODS:]]
    return tuple(_curve(pl.concat(explored), tasks).tolist())


def _explored(
    days: Days, i: int, tasks: Sequence[TaskSpec], require: Callable[[DaySnapshot], None] = lambda _: None
) -> pl.DataFrame:
    day = days[i]
    require(day)
    wanted = [*IMPRESSION_KEY, "position", "sampling_rate", *POLICY_COLUMNS]
    shown = day.table("examples", columns=wanted).filter(_BY_CHANCE)
    shown = shown.with_columns(weight=1.0 / pl.col("sampling_rate"))
    if shown.is_empty():  # a pass over the day's labels would find nothing
        return shown.with_columns(pl.lit(None, pl.Float32).alias(task.label) for task in tasks)
    labels = [
        piece.select(*IMPRESSION_KEY, *(t.label for t in tasks)).join(shown, on=IMPRESSION_KEY)
        for piece in days.labels_in_pieces(i, PIECE_ROWS)
    ]
    columns = [*shown.columns, *(task.label for task in tasks)]
    return pl.concat(labels).select(columns)


def _curve(rows: pl.DataFrame, tasks: Sequence[TaskSpec]) -> Vector:
    """Estimate the chance of each position [P + 1]; of one alone, 1, where exploration is too little to tell.

    Explored rows count 1 / propensity, so that every position holds the same items on average; uniformly
    drawn ones do so by themselves. The task is that with the most positives by chance among the binary ones
    that every impression has a label of.
    """
    best = max(_samples(rows, tasks), key=_positives, default=[])
    if _positives(best) < MIN_POSITIVES:
        return np.ones(1)
    told = examination_curve if _positives(best) >= CURVE_POSITIVES else examination_power
    parts = zip(*((s.position, s.label, s.expected, s.weight) for s in best), strict=True)
    return told(*(np.concatenate(part) for part in parts))


def _samples(rows: pl.DataFrame, tasks: Sequence[TaskSpec]) -> "list[list[_Sample]]":
    """Give, for each binary task that every impression has a label of, what the rows know of positions."""
    chosen, found = rows.filter(_BY_CHANCE), []
    for task in tasks:
        if not task.kind.probability or task.parent is not None or task.space != "impressions":
            continue
        known = chosen.filter(pl.col(task.label).is_not_null(), pl.col("propensity").is_not_null())
        found.append([_Sample.of(known.filter(uniform), task) for uniform in (_UNIFORM, ~_UNIFORM)])
    return found


def _positives(samples: "Sequence[_Sample]") -> float:
    return sum(sample.positives for sample in samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """Rows [N] whose items got their positions in one way, weighed so that a positive counts as one."""

    position: IntVector
    label: Vector
    expected: Vector
    """What the sample has at the positions that both samples know."""
    weight: Vector
    positives: float

    @classmethod
    def of(cls, rows: pl.DataFrame, task: TaskSpec) -> "_Sample":
        label = rows[task.label].cast(pl.Float64).to_numpy()
        chance = pl.when(_UNIFORM).then(1.0).otherwise("propensity")
        weight = rows.select(pl.col("weight") / chance).to_series().cast(pl.Float64).to_numpy()
        position = rows["position"].cast(pl.Int64).to_numpy()
        top = position <= UNIFORM_SLOTS
        total, seen = float(weight[top] @ label[top]), float(weight[top].sum())
        positives = effective_rows(weight * label)
        if total <= 0:
            label, weight, seen, total = label[:0], weight[:0], 1.0, 0.0
            position, positives = position[:0], 0.0
        return cls(
            position=position,
            label=label,
            expected=np.full(label.size, total / seen),
            weight=weight * (positives / max(float(weight @ label), 1e-300)),
            positives=positives,
        )
