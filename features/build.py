"""The log, period by period -> a chain of day snapshots, each made of its own partitions and the one before.

A night therefore reads its own period only, the chain is content-addressed (a changed partition rebuilds that
period and what follows, nothing else), and nothing after the night's date is ever opened.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from features.clean import clean
from features.history import day_events, history_bounds, next_tail
from features.sessions import leave_merged
from features.tiles import add_to_lifetime, group_windows, measure_columns, tile, windowed
from recsys.config import RunConfig, period_start
from recsys.errors import DataError
from recsys.log import InteractionLog, latest_by_key
from recsys.schema import ATTRIBUTE_PREFIX
from recsys.snapshot import DaySnapshot
from recsys.stages import Stages, file_digest

CODE_VERSION = 3
"""Raise when a change here alters what a day's snapshot holds."""
_READ = ("impressions", "feedback", "users", "items")


@dataclass(frozen=True, slots=True)
class PeriodDays:
    """One business period and the log days in it; `day`, its last possible day up to the night, names it."""

    start: date
    day: date
    days: tuple[date, ...]


def periods(log: InteractionLog, until: date, config: RunConfig) -> list[PeriodDays]:
    """List all periods from the log's first day to the night's date, also those without any row."""
    days = sorted({d for table in ("impressions", "feedback") for d in log.days(table) if d <= until})
    carried = sorted({d for table in ("users", "items") for d in log.days(table) if d <= until})
    if not days:
        begins = log.require_days("impressions")[0]
        raise DataError(
            f"the log {log.root} begins on {begins}, after the night of {until}; choose a later --date"
        )
    found: list[PeriodDays] = []
    start = period_start(days[0], config.period)
    first = True
    while start <= until:
        following = _next_period(start, config)
        inside = [d for d in days if start <= d < following]
        # Users and items known before the first event belong to the first period.
        extra = [d for d in carried if (d < following if first else start <= d < following)]
        found.append(
            PeriodDays(start, min(following - timedelta(days=1), until), tuple(sorted({*inside, *extra})))
        )
        start, first = following, False
    return found


def build_snapshots(
    log: InteractionLog,
    until: date,
    config: RunConfig,
    stages: Stages,
    on_period: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[DaySnapshot]:
    """Build, or find already built, the snapshot of every period up to a date.

    Raises: DataError, naming file, column and rule, when a partition cannot be used.
    """
    chain: list[DaySnapshot] = []
    todo = periods(log, until, config)
    settings = {
        "code": CODE_VERSION,
        "features": config.features.model_dump(mode="json"),
        "tasks": [t.model_dump(mode="json", exclude={"weight", "fusion_weight"}) for t in config.tasks],
        "timezone": config.timezone,
        "period": config.period,
        "never_again": config.policy.exclude_seen_kinds,
    }
    for number, period in enumerate(todo, start=1):
        inputs = {
            **settings,
            "day": str(period.day),
            "files": {t: file_digest([f for d in period.days for f in log.files(t, d)]) for t in _READ},
            "previous": chain[-1].path.name if chain else None,
        }
        path = stages.run("features", inputs, lambda folder, p=period: _build(log, p, chain, config, folder))  # type: ignore[misc]
        chain.append(DaySnapshot(period.day, path))
        on_period(number, len(todo))
    return chain


def item_rows(previous: DaySnapshot | None, snapshot: DaySnapshot) -> pl.DataFrame:
    """Give the items a request of this day could be scored with: yesterday's values, today's new items."""
    fresh = snapshot.table("new_items")
    if previous is None:
        return fresh
    return pl.concat([previous.table("items"), fresh], how="diagonal_relaxed")


def user_rows(previous: DaySnapshot | None, snapshot: DaySnapshot) -> pl.DataFrame:
    """Give the users a request of this day could be scored with: yesterday's values; a new user has none."""
    return snapshot.table("users").clear() if previous is None else previous.table("users")


def _build(
    log: InteractionLog, period: PeriodDays, chain: Sequence[DaySnapshot], config: RunConfig, folder: Path
) -> dict[str, Any]:
    previous = chain[-1] if chain else None
    tables, reasons = _clean_period(log, period, previous, config, folder)
    features = config.features
    events = day_events(
        previous.table("tail") if previous else None, tables["feedback"], features.history_kinds
    )
    bounds = history_bounds(tables["impressions"], events, features.history_length, features.ingestion_lag)
    written = {
        "events": events,
        "tail": next_tail(leave_merged(events, tables["feedback"]), features.history_length),
        "examples": tables["impressions"].hstack(bounds),
        "feedback": tables["feedback"],
        "seen": _seen(previous, tables["feedback"], config.policy.exclude_seen_kinds),
        "new_items": _new_rows(previous, tables["items"], "items"),
    }
    for name, key in (("user", "user_id"), ("item", "item_id")):
        written |= _entity_tables(name, key, tables, chain, period.day, config)
    for name, frame in written.items():
        frame.write_parquet(folder / f"{name}.parquet", compression="zstd", compression_level=1)
    return {
        "day": str(period.day),
        "rows": {name: tables[name].height for name in _READ},
        "quarantine": reasons,
    }


def _clean_period(
    log: InteractionLog, period: PeriodDays, previous: DaySnapshot | None, config: RunConfig, folder: Path
) -> tuple[dict[str, pl.DataFrame], dict[str, dict[str, int]]]:
    tables: dict[str, pl.DataFrame] = {}
    reasons: dict[str, dict[str, int]] = {}
    for table in _READ:
        frames: list[pl.DataFrame] = []
        bad: list[pl.DataFrame] = []
        counts: dict[str, int] = {}
        for day in period.days:
            result = clean(
                table,
                log.read(table, day),
                day,
                timezone=config.timezone,
                where=str(log.root / table / f"date={day}"),
                daily_cap=config.features.daily_cap,
                known_keys=_known_keys(table, previous, frames),
            )
            frames.append(result.good)
            bad.append(result.quarantine)
            for reason, count in result.reasons.items():
                counts[reason] = counts.get(reason, 0) + count
        frames = frames or [log.read(table, period.start)]
        stacked = pl.concat(frames, how="diagonal_relaxed")
        tables[table] = (
            latest_by_key([stacked], f"{table[:-1]}_id") if table in ("users", "items") else stacked
        )
        if counts:
            reasons[table] = counts
            (folder / "quarantine").mkdir(exist_ok=True)
            pl.concat(bad, how="diagonal_relaxed").write_parquet(folder / "quarantine" / f"{table}.parquet")
    return tables, reasons


def _known_keys(table: str, previous: DaySnapshot | None, frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Give the good rows a retry may repeat: those of the day before, or of the period before."""
    names = {"impressions": "examples", "feedback": "feedback"}
    if table not in names:
        return pl.DataFrame()
    if frames:
        return frames[-1]
    return previous.table(names[table]) if previous else pl.DataFrame()


def _seen(previous: DaySnapshot | None, feedback: pl.DataFrame, kinds: Sequence[str]) -> pl.DataFrame:
    """Remember what each user has ever done of the kinds that the policy does not show again."""
    today = feedback.filter(pl.col("kind").is_in(list(kinds))).select("user_id", "kind", "item_id")
    stacked = today if previous is None else pl.concat([previous.table("seen"), today])
    return stacked.unique(maintain_order=True).sort("user_id", "kind", "item_id")


def _new_rows(previous: DaySnapshot | None, today: pl.DataFrame, table: str) -> pl.DataFrame:
    if previous is None:
        return today
    return today.join(
        previous.table(table).select("item_id"), on="item_id", how="anti", maintain_order="left"
    )


def _entity_tables(
    name: str,
    key: str,
    tables: dict[str, pl.DataFrame],
    chain: Sequence[DaySnapshot],
    day: date,
    config: RunConfig,
) -> dict[str, pl.DataFrame]:
    """Give one entity's tile, lifetime and nightly values as of the end of the period."""
    previous = chain[-1] if chain else None
    measures = measure_columns(config.tasks)
    today = tile(tables["impressions"], tables["feedback"], key, config.tasks)
    lifetime = add_to_lifetime(previous.table(f"{name}_lifetime") if previous else None, today, key)
    longest = max(config.features.window_days, default=0)
    tiles = {s.day: s.table(f"{name}_tile") for s in chain if (day - s.day).days < longest}
    aggregates = windowed(tiles | {day: today}, lifetime, key, day, config.features.window_days, measures)
    values = _attributes(previous, tables[f"{name}s"], f"{name}s", key).join(
        aggregates, on=key, how="full", coalesce=True
    )
    counts = [c for c in aggregates.columns if c not in (key, "last_feedback_at")]
    values = values.with_columns(
        pl.col(counts).fill_null(0), *_ages(values, period_end(day, config.timezone))
    ).sort(key)
    if name == "item":
        for group in config.features.group_items_by:
            _require_group(values, group)
            values = group_windows(values, group, counts)
    return {f"{name}s": values, f"{name}_tile": today, f"{name}_lifetime": lifetime}


def _require_group(items: pl.DataFrame, group: str) -> None:
    if group not in items.columns:
        known = [c for c in items.columns if c == "category" or c.startswith(ATTRIBUTE_PREFIX)]
        raise DataError(
            f"[features] group_items_by names {group!r}, which no item of the log has; "
            f"there are: {', '.join(known)}"
        )


def _ages(values: pl.DataFrame, as_of: datetime) -> list[pl.Expr]:
    """Give whole hours since the last feedback and since the item came, as of the snapshot."""
    found = [(pl.lit(as_of) - pl.col("last_feedback_at")).dt.total_hours().alias("hours_since_feedback")]
    if "available_from" in values.columns:
        found.append((pl.lit(as_of) - pl.col("available_from")).dt.total_hours().alias("age_hours"))
    return found


def _attributes(previous: DaySnapshot | None, today: pl.DataFrame, table: str, key: str) -> pl.DataFrame:
    """Give each entity's latest attributes: today's row replaces yesterday's."""
    if previous is None:
        return today
    known = previous.table(table)
    fixed = [c for c in known.columns if c in today.columns or c.startswith(ATTRIBUTE_PREFIX)]
    return latest_by_key([known.select(fixed), today], key)


def period_end(day: date, timezone: str) -> datetime:
    """Give the UTC instant at which a business day is over."""
    local = datetime.combine(day + timedelta(days=1), time(), ZoneInfo(timezone))
    return local.astimezone(UTC)


def _next_period(start: date, config: RunConfig) -> date:
    if config.period == "P1M":
        return (start.replace(day=28) + timedelta(days=4)).replace(day=1)
    return start + timedelta(days=7 if config.period == "P1W" else 1)
