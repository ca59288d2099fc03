"""One share of the users of one period -> its tables: a pure function of files, the unit of scale-out.

Whatever runs it (this process, a pool, a cluster), the same inputs give the same rows; nothing is read but
the period's partitions, the share's tables of the period before, and the tiles that leave a window today.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import polars as pl

from features.clean import Cleaned, duplicate_key
from features.clean_period import USER_TABLES, clean_day, clean_together
from features.definitions import ITEM_ID, reversals
from features.history import day_events, join_tail, next_tail, split_tail
from features.live_state import LiveState
from features.sessions import leave_merged
from features.taken import day_taken
from features.tiles import LAST, in_windows, measure_columns, roll_windows, tile, window_columns
from recsys.config import RunConfig
from recsys.log import InteractionLog, latest_by_key, period_end
from recsys.schema import ATTRIBUTE_PREFIX
from recsys.snapshot import ROW, DaySnapshot, part_folder, user_part

MAX_SEEN = 1_000
"""How many items per user and kind are remembered as done: the newest."""


@dataclass(frozen=True, slots=True)
class PeriodDays:
    """One business period and the log days in it; `day`, its last possible day up to the night, names it."""

    start: date
    day: date
    days: tuple[date, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTask:
    """All that building one share of one period needs; it can be sent to another machine."""

    log: InteractionLog
    period: PeriodDays
    config: RunConfig
    previous: DaySnapshot | None
    leaving: dict[int, tuple[DaySnapshot, ...]]
    """Window in days -> snapshots whose tiles leave it now."""
    folder: Path
    """Where the snapshot is being built; holds `item_groups.parquet` already."""
    part: int
    num_parts: int
    written: dict[str, pl.DataFrame] | None = None
    """Takes the tables for the next period, where that is built in this process and of one share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartResult:
    """What one share came to."""

    rows: dict[str, int]
    quarantine: dict[str, dict[str, int]]


def build_part(task: PartTask) -> PartResult:
    """Build one share's tables and its part of the item tile, and write them.

    Raises: DataError, naming file, column and rule, when a partition cannot be used.
    """
    tables, quarantined = clean_user_tables(task)
    features, config = task.config.features, task.config
    impressions, feedback = tables["impressions"], tables["feedback"]
    taken_back = reversals(config.tasks)
    mine, others = split_tail(_before(task, "tail"), impressions, feedback)
    events = day_events(mine, feedback, features.history_kinds, taken_back)
    written = {
        "events": events,
        "tail": join_tail(others, next_tail(leave_merged(events, feedback), features.history_length)),
        "examples": impressions.hstack(LiveState.of(config).find(impressions, events, feedback)),
        "feedback": feedback,
        "taken": day_taken(_before(task, "taken"), impressions, feedback, config, taken_back),
        "seen": _seen(_before(task, "seen"), feedback, config.policy.excluded_kinds),
        **_user_values(task, tables),
        **_cross_values(task, impressions, feedback),
        "item_part": tile_of(impressions, feedback, ["item_id"], config),
    }
    folder = part_folder(task.folder, task.part)
    folder.mkdir(exist_ok=True)  # a killed worker may have left a part
    for name, frame in written.items():
        write_table(frame, folder / f"{name}.parquet")
    if task.written is not None:
        task.written.update(written)
    return PartResult(
        rows={name: tables[name].height for name in USER_TABLES},
        quarantine=write_quarantine(quarantined, folder),
    )


def clean_user_tables(task: PartTask) -> tuple[dict[str, pl.DataFrame], dict[str, list[Cleaned]]]:
    """Clean the share's rows of the period's impressions, feedback and users."""
    tables: dict[str, pl.DataFrame] = {}
    quarantined: dict[str, list[Cleaned]] = {}
    for table in USER_TABLES:
        cleaned = _clean_table(task, table)
        frames = [c.good for c in cleaned] or [_numbered(task.log.read(table, task.period.start).clear(), 0)]
        stacked = pl.concat(frames, how="diagonal_relaxed")
        tables[table] = latest_by_key([stacked], "user_id").drop(ROW) if table == "users" else stacked
        quarantined[table] = cleaned
    return tables, quarantined


def _clean_table(task: PartTask, table: str) -> list[Cleaned]:
    """Clean the share's rows of a table, the period's partitions together where that changes nothing."""
    partitions = []
    num_rows = 0
    for day in task.period.days:
        numbered = _numbered(task.log.read(table, day), num_rows)
        num_rows += numbered.height
        partitions.append((day, _of_share(numbered, task)))
    known = _known_keys(task, table, partitions[0][1]) if partitions else pl.DataFrame()
    together = clean_together(table, partitions, task.log, task.config, known)
    if together is not None:
        return [together]
    cleaned: list[Cleaned] = []
    for day, rows in partitions:
        # A retry may repeat the rows of the day before.
        keys = _keys(table, [cleaned[-1].good]) if cleaned else known
        cleaned.append(clean_day(table, rows, day, task.log, task.config, keys))
    return cleaned


def _numbered(rows: pl.DataFrame, first: int) -> pl.DataFrame:
    """Number the rows before they are split, in a column that a log cannot set."""
    return rows.with_columns(pl.int_range(first, first + pl.len(), dtype=pl.Int64).alias(ROW))


def _of_share(rows: pl.DataFrame, task: PartTask) -> pl.DataFrame:
    """Keep the rows of the share's users; a table without users is refused when it is cleaned."""
    if task.num_parts == 1 or "user_id" not in rows.columns:
        return rows
    return rows.filter(user_part(rows["user_id"].cast(pl.String), task.num_parts) == task.part)


def _known_keys(task: PartTask, table: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Give the keys of the period before, and of the events that histories still hold, of the day's users."""
    names = {"impressions": ("examples",), "feedback": ("feedback", "tail")}.get(table, ())
    found = [_before(task, name, duplicate_key(table)) for name in names]
    keys = _keys(table, [frame for frame in found if frame is not None])
    if keys.is_empty() or "user_id" not in rows.columns:
        return keys
    return keys.join(rows.select(pl.col("user_id").cast(pl.String)).unique(), on="user_id", how="semi")


def _keys(table: str, frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat([f.select(duplicate_key(table)) for f in frames]) if frames else pl.DataFrame()


def write_quarantine(cleaned: dict[str, list[Cleaned]], folder: Path) -> dict[str, dict[str, int]]:
    """Write rows that broke a rule; count them by table and reason."""
    counts: dict[str, dict[str, int]] = {}
    for table, days in cleaned.items():
        for day in days:
            for reason, count in day.reasons.items():
                own = counts.setdefault(table, {})
                own[reason] = own.get(reason, 0) + count
        if table in counts:
            (folder / "quarantine").mkdir(exist_ok=True)
            bad = pl.concat([day.quarantine for day in days], how="diagonal_relaxed")
            bad.write_parquet(folder / "quarantine" / f"{table}.parquet")
    return counts


def gather_quarantine(folder: Path, num_parts: int) -> None:
    """Move the parts' quarantined rows to where a reader looks for them: one file per table."""
    found: dict[str, list[Path]] = {}
    for part in range(num_parts):
        for path in sorted((part_folder(folder, part) / "quarantine").glob("*.parquet")):
            found.setdefault(path.name, []).append(path)
    for name, paths in found.items():
        (folder / "quarantine").mkdir(exist_ok=True)
        rows = pl.concat([pl.read_parquet(path) for path in paths], how="diagonal_relaxed")
        write_table(rows.sort(ROW), folder / "quarantine" / name)
        for path in paths:
            path.unlink()
            if not any(path.parent.iterdir()):
                path.parent.rmdir()


def write_table(frame: pl.DataFrame, path: Path) -> None:
    """Write one table of a snapshot; it is read whole, so column statistics would have no use."""
    frame.write_parquet(path, compression="zstd", compression_level=1, statistics=False)


def ages(values: pl.DataFrame, as_of: datetime) -> list[pl.Expr]:
    """Give whole hours since the last feedback and since the item came, as of the snapshot."""
    found = [(pl.lit(as_of) - pl.col(LAST)).dt.total_hours().alias("hours_since_feedback")]
    if "available_from" in values.columns:
        found.append((pl.lit(as_of) - pl.col("available_from")).dt.total_hours().alias("age_hours"))
    return found


def latest_attributes(known: pl.DataFrame | None, today: pl.DataFrame, key: str) -> pl.DataFrame:
    """Give each entity's latest attributes: today's row replaces yesterday's."""
    if known is None:
        return today
    fixed = [c for c in known.columns if c in today.columns or c.startswith(ATTRIBUTE_PREFIX)]
    if today.is_empty():
        return pl.concat([known.select(fixed), today], how="diagonal_relaxed")
    return latest_by_key([known.select(fixed), today], key)


def with_aggregates(
    attributes: pl.DataFrame, aggregates: pl.DataFrame, key: str, as_of: datetime
) -> pl.DataFrame:
    """Join attributes and aggregates of one entity; an entity without events has zeros."""
    counts = [c for c in aggregates.columns if c not in (key, LAST)]
    values = attributes.join(aggregates, on=key, how="full", coalesce=True)
    return values.with_columns(pl.col(counts).fill_null(0), *ages(values, as_of)).sort(key)


def _user_values(task: PartTask, tables: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Give the share's tile and nightly values as of the end of the period."""
    before = _before(task, "users")
    today = tile_of(tables["impressions"], tables["feedback"], ["user_id"], task.config)
    aggregates = roll_windows(
        before, today, _leaving(task, "user_tile"), ["user_id"], measures_of(task.config)
    )
    values = with_aggregates(
        latest_attributes(before, tables["users"], "user_id"),
        aggregates,
        "user_id",
        period_end(task.period.day, task.config.timezone),
    )
    return {"users": values, "user_tile": today}


def _cross_values(
    task: PartTask, impressions: pl.DataFrame, feedback: pl.DataFrame
) -> dict[str, pl.DataFrame]:
    """Give the share's tiles and values per user and item column, as the column was when the event came."""
    found: dict[str, pl.DataFrame] = {}
    if not task.config.features.cross_user_by:
        return found
    groups = pl.read_parquet(task.folder / "item_groups.parquet")
    as_of = period_end(task.period.day, task.config.timezone)
    measures = measures_of(task.config)
    shown = impressions.select("user_id", "item_id", "sampled").join(groups, on="item_id", how="left")
    read = ("user_id", "item_id", "impression_id", "kind", "value", "received_at", "merged_from")
    done = feedback.select(read).join(groups, on="item_id", how="left")
    for group in task.config.features.cross_user_by:
        key = ["user_id", group]
        today = tile_of(shown, done, key, task.config)
        before = _before(task, f"cross_{group}")
        rolled = roll_windows(before, today, _leaving(task, f"cross_{group}_tile"), key, measures)
        if group == ITEM_ID and (lengths := task.config.features.window_days):
            rolled = in_windows(rolled, lengths, measures)
        found[f"cross_{group}_tile"] = today
        found[f"cross_{group}"] = rolled.with_columns(ages(rolled, as_of))
    return found


def _seen(before: pl.DataFrame | None, feedback: pl.DataFrame, kinds: Sequence[str]) -> pl.DataFrame:
    """Remember what each user has done of the kinds that the policy does not show again, newest kept."""
    today = feedback.filter(pl.col("kind").is_in(list(kinds))).select(
        "user_id", "kind", "item_id", last_at="received_at"
    )
    if before is None:
        return _newest_done(today)
    changed = before["user_id"].is_in(today["user_id"].unique().implode())
    mine = _newest_done(pl.concat([before.filter(changed), today]))
    # The others' rows stay as they are, in order.
    return before.filter(~changed).merge_sorted(mine, key="user_id")


def _newest_done(done: pl.DataFrame) -> pl.DataFrame:
    """Keep each user's last `MAX_SEEN` items of each kind, newest first, each once."""
    newest = done.group_by("user_id", "kind", "item_id").agg(pl.col("last_at").max())
    ranked = newest.sort(["user_id", "kind", "last_at", "item_id"], descending=[False, False, True, False])
    return ranked.filter(pl.int_range(pl.len()).over("user_id", "kind") < MAX_SEEN)


def _before(task: PartTask, name: str, columns: Sequence[str] | None = None) -> pl.DataFrame | None:
    """Read this share's rows of a table of the period before, all columns or some with `user_id`."""
    if task.previous is None:
        return None
    return task.previous.table_of_part(name, task.part, task.num_parts, columns)


def _leaving(task: PartTask, name: str) -> dict[int, list[pl.DataFrame]]:
    return {
        w: [s.table_of_part(name, task.part, task.num_parts) for s in snapshots]
        for w, snapshots in task.leaving.items()
    }


def measures_of(config: RunConfig) -> tuple[str, ...]:
    """Name the integer columns of a config's tiles."""
    return measure_columns(config.tasks, config.features.organic_base)


def tile_of(
    impressions: pl.DataFrame, feedback: pl.DataFrame, key: Sequence[str], config: RunConfig
) -> pl.DataFrame:
    """Count a period by a key, as a config says."""
    return tile(impressions, feedback, key, config.tasks, config.features.organic_base)


def window_names(config: RunConfig) -> tuple[str, ...]:
    """Name the integer aggregates that every entity has."""
    return window_columns(config.features.window_days, measures_of(config))
