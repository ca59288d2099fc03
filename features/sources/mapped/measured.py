"""What a converted log holds, as far as the settings of a first config depend on it.

Counts are of the whole log; what needs two rows side by side is measured on a share of its users, so that a
large log costs no more memory than a small one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from features.sources.mapped.dated import scan_dated
from recsys.log import InteractionLog
from recsys.schema import empty

SAMPLE_EVENTS = 300_000
"""Delays, repeats and histories are measured on the users that have about so many events."""
IN_TIME = 0.95
"""A window should hold this share of the feedback that came."""
MAX_STARS = 20
_CREDITED = pl.col("impression_id").is_not_null()
_EVENT = ("user_id", "item_id", "kind", "impression_id", "occurred_at", "date")


@dataclass(frozen=True, slots=True, kw_only=True)
class KindFacts:
    """One kind of feedback."""

    kind: str
    events: int
    credited: int
    """Events that belong to an impression: those can be labels."""
    valued: int
    """… and that carry a value."""
    low: float | None
    high: float | None
    distinct: int
    """Different values."""
    delay_s: float
    """So long after its impression 95 % of it had come."""
    repeats: float
    """Share of the events whose user had given it to the same item on an earlier day."""
    implies: Mapping[str, float]
    """Other kind -> share of the impressions with this one that have the other one, too."""

    @property
    def is_value(self) -> bool:
        """Tell whether most of its events carry one of a few values, like stars."""
        return self.valued > self.credited / 2 and 1 < self.distinct <= MAX_STARS


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFacts:
    """What is known of a log."""

    kinds: tuple[KindFacts, ...]
    """Most credited first."""
    daily: pl.DataFrame
    """date, impressions, stream (impressions before negatives were drawn), and credited events per kind."""
    alone: bool
    """Whether every impression is a list of one."""
    history: float
    """Events of a user: three quarters of the users have no more."""

    def rate(self, kind: str) -> float:
        """Give how many credited events of a kind come from an impression of the real stream."""
        sums: tuple[float, float] = self.daily.select(pl.col(kind, "stream").sum()).row(0)
        return sums[0] / sums[1]


def measure_log(log: InteractionLog) -> LogFacts:
    """Measure a log that a mapping made."""
    feedback, impressions = _scan(log, "feedback"), _scan(log, "impressions")
    values = _collect(_values(feedback))
    per_day = _collect(feedback.group_by("date", "kind").agg(_CREDITED.sum().alias("events")))
    daily = _collect(_daily(impressions)).join(
        per_day.pivot("kind", index="date", values="events"), on="date", how="left"
    )
    daily = daily.sort("date").with_columns(pl.all().exclude("date").fill_null(0))
    one_of = max(1, int(values["events"].sum()) // SAMPLE_EVENTS)
    chosen = pl.col("user_id").hash(7) % one_of == 0
    events = _collect(feedback.filter(chosen).select(*_EVENT))
    delays, repeats = _delays(events, impressions.filter(chosen)), _repeats(events)
    implied = _implied(events)
    found = [
        KindFacts(
            **row,
            delay_s=delays.get(row["kind"], 0.0),
            repeats=repeats.get(row["kind"], 0.0),
            implies=implied.get(row["kind"], {}),
        )
        for row in values.iter_rows(named=True)
    ]
    per_user = events.group_by("user_id").agg(pl.len())["len"]
    return LogFacts(
        kinds=tuple(found),
        daily=daily.drop("last_position"),
        alone=daily["last_position"].max() == 1,
        history=float(per_user.quantile(0.75) or 0.0),
    )


def _scan(log: InteractionLog, table: str) -> pl.LazyFrame:
    """Read a table lazily, with the business day of its partitions as `date`."""
    paths = [path for day in log.days(table) for path in log.files(table, day)]
    if not paths:
        return empty(table).lazy().with_columns(date=pl.lit(None, pl.Date))
    return scan_dated(paths)


def _collect(frame: pl.LazyFrame) -> pl.DataFrame:
    return frame.collect(engine="streaming")


def _values(feedback: pl.LazyFrame) -> pl.LazyFrame:
    value = pl.col("value").filter(_CREDITED)
    return (
        feedback.group_by("kind")
        .agg(
            events=pl.len(),
            credited=_CREDITED.sum(),
            low=value.min(),
            high=value.max(),
            valued=value.count(),
            distinct=value.drop_nulls().n_unique(),
        )
        .sort("credited", "events", "kind", descending=[True, True, False])
    )


def _daily(impressions: pl.LazyFrame) -> pl.LazyFrame:
    return impressions.group_by("date").agg(
        impressions=pl.len(),
        stream=(1 / pl.col("sampling_rate")).sum(),
        last_position=pl.col("position").max(),
    )


def _delays(events: pl.DataFrame, impressions: pl.LazyFrame) -> dict[str, float]:
    """Give, per kind, the seconds after which IN_TIME of the credited events had come."""
    key = ["user_id", "impression_id"]
    shown = _collect(impressions.filter(~pl.col("sampled")).select(*key, "shown_at"))
    waited = (pl.col("occurred_at") - pl.col("shown_at")).dt.total_milliseconds() / 1_000
    paired = events.join(shown, on=key, how="inner")
    return dict(paired.group_by("kind").agg(waited.quantile(IN_TIME, "higher")).iter_rows())


def _repeats(events: pl.DataFrame) -> dict[str, float]:
    pairs = events.group_by("kind", "user_id", "item_id").agg(pl.col("date").n_unique().alias("days"))
    again = (pl.col("days") - 1).sum() / pl.col("days").sum()
    return dict(pairs.group_by("kind").agg(again).iter_rows())


def _implied(events: pl.DataFrame) -> dict[str, dict[str, float]]:
    """Give, per kind, the share of its impressions that have each other kind."""
    key = ["user_id", "impression_id"]
    mine = events.filter(_CREDITED).select(*key, "kind").unique()
    sizes = dict(mine.group_by("kind").agg(pl.len()).iter_rows())
    both = mine.join(mine, on=key, suffix="_other").filter(pl.col("kind") != pl.col("kind_other"))
    counts = both.group_by("kind", "kind_other").agg(pl.len())
    found: dict[str, dict[str, float]] = {}
    for kind, other, count in counts.iter_rows():
        found.setdefault(kind, {})[other] = count / sizes[kind]
    return found
