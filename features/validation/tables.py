"""A day's cleaned tables as the checks see them: what profiles are made of, and examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from features.build import periods
from features.days import Days
from recsys.config import RunConfig
from recsys.log import InteractionLog
from recsys.schema import FREE_PREFIX, KEYS, PARTITION_INSTANT, empty
from recsys.snapshot import DaySnapshot

TABLES = ("impressions", "feedback", "users", "items")
REPEATED = {
    "impressions": ("user_id", "item_id", "shown_at", "position"),
    "feedback": ("user_id", "item_id", "kind", "value", "occurred_at"),
}
"""Rows equal in all of these repeat each other, whatever their ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DayTables:
    """One period's rows. `good` has the helper columns `new_user_id`, `new_item_id`, `is_repeat`, `hour`."""

    day: date
    days: tuple[date, ...]
    as_of: datetime
    good: dict[str, pl.DataFrame]
    quarantine: dict[str, pl.DataFrame]


def read_day(
    log: InteractionLog, all_days: Days, i: int, config: RunConfig, days: Sequence[date] | None = None
) -> DayTables:
    """Read day i. Args: days: the log's days in it, where the caller knows them.

    Users and items are the rows written in this period, with the values that cleaning left them.
    """
    snapshot, previous = all_days[i], all_days.before(i)
    if days is None:
        days = next(p.days for p in periods(log, snapshot.day, config) if p.day == snapshot.day)
    bad = {t: _quarantine(snapshot, t) for t in TABLES}
    users, items = snapshot.table("users"), snapshot.table("items")
    impressions = snapshot.table("examples").drop("history_start", "history_stop", strict=False)
    impressions = with_features(impressions, users, items, config)
    for key, table in (("user_id", "users"), ("item_id", "items")):
        known = previous.table(table)[key] if previous else impressions[key].clear()
        impressions = impressions.with_columns((~pl.col(key).is_in(known.implode())).alias(f"new_{key}"))
    good = {
        "impressions": _with_helpers("impressions", impressions, config.timezone),
        # Without the copies that a login made: the session's own rows say the same.
        "feedback": _with_helpers(
            "feedback", snapshot.table("feedback").filter(pl.col("merged_from").is_null()), config.timezone
        ),
        "users": _written(log, "users", users, days),
        "items": _written(log, "items", items, days),
    }
    return DayTables(day=snapshot.day, days=tuple(days), as_of=all_days.end_of(i), good=good, quarantine=bad)


def with_features(
    impressions: pl.DataFrame, users: pl.DataFrame, items: pl.DataFrame, config: RunConfig
) -> pl.DataFrame:
    """Join what the model will see of each impression's user and item: `user.<column>`, `item.<column>`."""
    for entity, table in (("user", users), ("item", items)):
        declared = [f.column for f in config.attributes if f.entity == entity]
        wanted = [c for c in ("category", "price", *declared) if c in table.columns]
        named = table.select(f"{entity}_id", *(pl.col(c).alias(f"{entity}.{c}") for c in wanted))
        impressions = impressions.join(named, on=f"{entity}_id", how="left", maintain_order="left")
    return impressions


def _with_helpers(table: str, frame: pl.DataFrame, timezone: str) -> pl.DataFrame:
    repeated = pl.struct(REPEATED[table]).is_first_distinct()
    return frame.with_columns(
        is_repeat=~repeated,
        hour=pl.col(PARTITION_INSTANT[table]).dt.convert_time_zone(timezone).dt.hour(),
    )


def _written(log: InteractionLog, table: str, state: pl.DataFrame, days: Sequence[date]) -> pl.DataFrame:
    key = KEYS[table][0]
    files = [f for day in days for f in log.files(table, day)]
    columns = [c for c in log_columns(table, state) if c != key]
    if not files:
        return state.select(key, *columns).clear()
    ids = pl.concat([pl.read_parquet(f, columns=[key], hive_partitioning=False) for f in files])
    ids = ids.select(pl.col(key).cast(pl.String)).unique()
    return state.select(key, *columns).join(ids, on=key, how="semi", maintain_order="left")


def log_columns(table: str, state: pl.DataFrame) -> list[str]:
    """Name the columns of a snapshot's users or items that came from the log, not from counting."""
    fixed = set(empty(table).columns)
    return [c for c in state.columns if c in fixed or c.startswith(FREE_PREFIX[table])]


def _quarantine(snapshot: DaySnapshot, table: str) -> pl.DataFrame:
    files = sorted((snapshot.path / "quarantine").glob(f"{table}*.parquet"))
    frames = [pl.read_parquet(f) for f in files]
    return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()
