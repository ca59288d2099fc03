"""What was measured of a log -> settings of a first config, each with the reason that stands beside it."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

import polars as pl

from features.sources.mapped.measured import IN_TIME, KindFacts, LogFacts
from recsys.config.run import Period, period_start

MIN_POSITIVES: Final = 60
"""Positives in a period from which a head is calibrated (50 are needed) and evaluated."""
MIN_ROWS: Final = 500
"""Labelled rows in a period from which the gate evaluates a head: the default of `[gate] min_rows`."""
FEWEST_ROWS: Final = 50
MIN_PERIODS: Final = 5
"""Two are for calibration and evaluation, the others to learn from."""
PERIODS: Final[dict[Period, str]] = {"P1D": "day", "P1W": "week", "P1M": "month"}
WINDOWS: Final = (
    *(60, 300, 900, 1_800, 3_600, 7_200, 43_200, 86_400, 172_800, 259_200, 604_800, 1_209_600, 2_592_000),
)
"""Windows of labels that are tried, in seconds."""
TAKEN_ONCE: Final = 0.05
"""With fewer repeats than this, an item that a user took is not shown again."""
STEPS: Final = 150
BATCHES: Final = (128, 2048)
EPOCHS_UNTIL_ROWS: Final = 1_000_000
HISTORY: Final = (30, 100)
"""The shortest history that is suggested, and the longest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodChoice:
    """How long a night's period is, and what one period holds."""

    period: Period
    periods: int
    positives: float
    """Positives of the first head: nine of ten periods have at least so many."""
    rows: float
    """Rows with a label of it, alike: all impressions, but for a value only those that have one."""

    @property
    def name(self) -> str:
        """Name one period."""
        return PERIODS[self.period]


def choose_period(facts: LogFacts) -> PeriodChoice:
    """Choose the shortest period that has the labels to calibrate and evaluate the log's main kind on.

    Where none has, the one with the most labels that leaves periods to learn from.
    """
    found = [_holds(facts, period) for period in PERIODS]
    enough = [
        choice
        for choice in found
        if choice.periods >= MIN_PERIODS and choice.positives >= MIN_POSITIVES and choice.rows >= MIN_ROWS
    ]
    if enough:
        return enough[0]
    usable = [choice for choice in found if choice.periods >= MIN_PERIODS]
    return max(usable, key=lambda choice: choice.rows) if usable else found[0]


def _holds(facts: LogFacts, period: Period) -> PeriodChoice:
    main = facts.kinds[0]
    few, count = _few(facts, period)
    positives = few[main.kind]
    rows = positives if main.is_value else few["impressions"]
    return PeriodChoice(period=period, periods=count, rows=rows, positives=positives)


def _few(facts: LogFacts, period: Period) -> tuple[dict[str, float], int]:
    """Give of each count what nine of ten periods have at least, and the number of whole periods."""
    counts = by_period(facts, period)
    if counts.height > MIN_PERIODS:
        counts = counts[1:-1]  # the log may begin and end inside a period
    few = counts.select(pl.all().exclude("date").quantile(0.1, "lower"))
    return few.row(0, named=True), counts.height


def by_period(facts: LogFacts, period: Period) -> pl.DataFrame:
    """Sum the daily counts by period; periods without impressions are left out."""
    start = pl.col("date").map_elements(lambda day: period_start(day, period), return_dtype=pl.Date)
    sums = facts.daily.group_by(start).agg(pl.all().exclude("date").sum()).sort("date")
    return sums.filter(pl.col("impressions") > 0)


def first_night(facts: LogFacts, choice: PeriodChoice) -> date:
    """Give the day of a first night: the log's last one, or the end of its last whole period."""
    last: date = facts.daily["date"].max()  # type: ignore[assignment]
    day = last
    while period_start(day + timedelta(days=1), choice.period) == period_start(day, choice.period):
        day -= timedelta(days=1)
    left = by_period(facts, choice.period).filter(pl.col("date") <= day).height
    return day if left >= MIN_PERIODS else last


def choose_heads(facts: LogFacts, choice: PeriodChoice, most: int) -> list[KindFacts]:
    """Choose the kinds with the labels for a head of their own; at least the main one."""
    few, _ = _few(facts, choice.period)
    chosen = [kind for kind in facts.kinds if few[kind.kind] >= MIN_POSITIVES]
    return chosen[:most] or list(facts.kinds[:1])


def choose_window(kind: KindFacts, longest_s: int) -> int:
    """Choose the shortest window that holds nearly all of the feedback that found its impression."""
    return next((s for s in WINDOWS if kind.delay_s <= s <= longest_s), longest_s)


def choose_batch(facts: LogFacts, choice: PeriodChoice) -> tuple[int, int, int]:
    """Give rows to learn from, epochs and batch size: few rows in large batches are too few steps."""
    counts = by_period(facts, choice.period)["impressions"]
    rows = int(counts[: max(1, counts.len() - 2)].sum())
    epochs = 2 if rows < EPOCHS_UNTIL_ROWS else 1
    batch = BATCHES[0]
    while 2 * batch <= BATCHES[1] and epochs * rows / (2 * batch) >= STEPS:
        batch *= 2
    return rows, epochs, batch


def choose_history(facts: LogFacts) -> int:
    """Choose the length of histories: all events of most users, up to a bound that costs time."""
    shortest, longest = HISTORY
    return shortest if facts.history <= shortest else min(longest, -(-int(facts.history) // 10) * 10)


def is_taken_once(kind: KindFacts) -> bool:
    """Tell whether users take the same item again too rarely to be shown it again."""
    return kind.repeats < TAKEN_ONCE


def duration(seconds: int) -> str:
    """Write seconds as a config does."""
    units = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
    return next(f"{seconds // size}{unit}" for unit, size in units if not seconds % size)


def share_in_time() -> str:
    """Say which share of the feedback a window holds."""
    return f"{IN_TIME:.0%}"
