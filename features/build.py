"""The log, period by period -> day snapshots, each made of its own partitions and the one before.

A night therefore reads its own period only, snapshots are content-addressed (a changed partition rebuilds its
period and what follows, nothing else), and nothing after the night's date is ever opened.

    items of the period ─▶ item groups ─▶ a task per share of the users (parts) ─▶ items' aggregates
"""

import shutil
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl

from features.clean_period import clean_day, clean_together
from features.days import Days
from features.executor import RunParts, open_executor
from features.parts import (
    PartResult,
    PartTask,
    PeriodDays,
    gather_quarantine,
    latest_attributes,
    measures_of,
    window_names,
    with_aggregates,
    write_quarantine,
    write_table,
)
from features.tiles import add_tiles, group_windows, leaving_days, roll_windows
from recsys.config import ExecutionConfig, RunConfig, period_start
from recsys.config_view import values, view
from recsys.errors import DataError
from recsys.log import InteractionLog, latest_by_key, period_end
from recsys.schema import ATTRIBUTE_PREFIX
from recsys.snapshot import DaySnapshot, part_folder
from recsys.stages import MANIFEST, Stages, digest, read_manifest

_OUTDATED = ".outdated"
CODE_VERSION = 11
"""Raise when a change here alters what a day's snapshot holds."""
_READ = ("impressions", "feedback", "users", "items")
KEYS = (
    "timezone",
    "period",
    "features.window_days",
    "features.group_items_by",
    "features.cross_user_by",
    "features.organic_base",
    "features.live_counters",
    "features.history_kinds",
    "features.history_length",
    "features.ingestion_lag",
    "features.daily_cap",
    "policy.repeat",
    "policy.repeat_kinds",
    "retrieval.task",
    "item_item.history",
    *(f"tasks.{key}" for key in ("name", "feedback", "reversal", "head", "parent", "low", "high", "step")),
)
"""The keys of the config that decide what a day's snapshot holds."""


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
    while start <= until:
        following = _next_period(start, config)
        # Users and items known before the first event belong to the first period.
        extra = _between(carried, start if found else date.min, following)
        inside = tuple(sorted({*_between(days, start, following), *extra}))
        found.append(PeriodDays(start, min(following - timedelta(days=1), until), inside))
        start = following
    return found


def _between(days: Sequence[date], first: date, following: date) -> Sequence[date]:
    """Give the days, of sorted ones, from one on and before another."""
    return days[bisect_left(days, first) : bisect_left(days, following)]


def build_snapshots(
    log: InteractionLog,
    until: date,
    config: RunConfig,
    stages: Stages,
    on_period: Callable[[int, int], None] = lambda _done, _all: None,
    execution: ExecutionConfig | None = None,
) -> Days:
    """Build, or find already built, the snapshot of every period up to a date.

    Args: execution: how the work is spread, default the config's; the snapshots are the same in any case.
    Raises: DataError, naming file, column and rule, when a partition cannot be used.
    """
    earlier: list[DaySnapshot] = []
    execution = execution or config.execution
    seen = view(config, "features", KEYS)
    todo = periods(log, until, seen)
    settings = {"code": CODE_VERSION, "config": values(seen)}
    # Shares bound memory, and other processes read files.
    in_memory = execution.executor == "local" and execution.shards == 1
    with (
        stages.digests() as digests,
        open_executor(execution) as run_parts,
    ):
        for number, period in enumerate(todo, start=1):
            inputs = {
                **settings,
                "day": str(period.day),
                "files": {t: digests.of([f for d in period.days for f in log.files(t, d)]) for t in _READ},
                "previous": earlier[-1].path.name if earlier else None,
            }
            held: dict[str, pl.DataFrame] | None = {} if in_memory else None
            build = partial(_build, stages, log, period, earlier, seen, execution.shards, run_parts, held)
            path = stages.run("features", inputs, build)
            if earlier:
                earlier[-1] = DaySnapshot(earlier[-1].day, earlier[-1].path)
            earlier.append(DaySnapshot(period.day, path, held=held or {}))
            on_period(number, len(todo))
    return Days.of([DaySnapshot(snapshot.day, snapshot.path) for snapshot in earlier], config)


def as_built_for(
    days: Days, config: RunConfig, log: InteractionLog, stages: Stages, execution: ExecutionConfig
) -> Days:
    """Give the same days as another config builds them: what a model reads that was trained with it.

    Labels are those known when `days`' are. Days of another length or zone are not the same: then `days`.
    Raises: as `build_snapshots`.
    """
    wanted = digest({"code": CODE_VERSION, "config": values(view(config, "features", KEYS))})
    inputs = days[-1].manifest["inputs"]
    if wanted == digest({key: inputs[key] for key in ("code", "config")}):
        return days
    own = build_snapshots(log, days[-1].day, config, stages, execution=execution)
    if own.dates != days.dates or own.timezone != days.timezone:
        return days
    return replace(own, tasks=days.tasks, known_at=days.as_of)


def remove_outdated(days: Days, stages: Stages) -> None:
    """Remove other snapshots of these days by the same code and config: the log has changed since.

    A day of hourly updates would leave one an hour. What somebody wants of an older log is built again; two
    logs that take turns in one RUNS folder are built again each time.
    """
    kept = {snapshot.path for snapshot in days}
    known = {_subject(path) for path in kept}
    folder = stages.root / "features"
    outdated = [
        manifest.parent
        for manifest in folder.glob(f"[!.]*/{MANIFEST}")
        if manifest.parent not in kept and _subject(manifest.parent) in known
    ]
    for snapshot in outdated:  # under its own name a snapshot is always whole
        snapshot.rename(folder / f".{snapshot.name}-{uuid4().hex[:8]}{_OUTDATED}")
    for snapshot in folder.glob(f".*{_OUTDATED}"):  # and what a process left that was killed here
        shutil.rmtree(snapshot, ignore_errors=True)


def _subject(snapshot: Path) -> str:
    inputs = read_manifest(snapshot)["inputs"]
    return digest([inputs[key] for key in ("code", "config", "day")])


def item_rows(previous: DaySnapshot | None, snapshot: DaySnapshot) -> pl.DataFrame:
    """Give the items that a request of this day could score: values of the day before, and new items."""
    fresh = snapshot.table("new_items")
    if previous is None:
        return fresh
    return pl.concat([previous.table("items"), fresh], how="diagonal_relaxed")


def user_rows(previous: DaySnapshot | None, snapshot: DaySnapshot, part: int | None = None) -> pl.DataFrame:
    """Give the users a request of this day could be scored with: yesterday's values; a new user has none."""
    return _as_of_yesterday("users", previous, snapshot, part)


def cross_rows(
    group: str, previous: DaySnapshot | None, snapshot: DaySnapshot, part: int | None = None
) -> pl.DataFrame:
    """Give yesterday's aggregates per user and item column."""
    return _as_of_yesterday(f"cross_{group}", previous, snapshot, part)


def _as_of_yesterday(
    table: str, previous: DaySnapshot | None, snapshot: DaySnapshot, part: int | None
) -> pl.DataFrame:
    if previous is None:
        return snapshot.table(table, part).clear()
    if part is None:
        return previous.table(table)
    return previous.table_of_part(table, part, snapshot.num_parts)


def _build(
    stages: Stages,
    log: InteractionLog,
    period: PeriodDays,
    earlier: Sequence[DaySnapshot],
    config: RunConfig,
    shards: int,
    run_parts: RunParts,
    held: dict[str, pl.DataFrame] | None,
    folder: Path,
) -> dict[str, Any]:
    previous = earlier[-1] if earlier else None
    stages.require([previous.path] if previous else [])
    items, quarantine = _clean_items(log, period, config, folder)
    known = previous.table("items") if previous else None
    attributes = latest_attributes(known, items, "item_id")
    for group in (*config.features.group_items_by, *config.features.cross_user_by):
        _require_group(attributes, group)
    groups = attributes.select(*dict.fromkeys(("item_id", *config.features.cross_user_by)))
    write_table(groups, folder / "item_groups.parquet")
    by_day = {s.day: s for s in earlier}
    leaving = {
        w: tuple(by_day[d] for d in days)
        for w, days in leaving_days([*by_day], period.day, config.features.window_days).items()
    }
    stages.require(snapshot.path for snapshots in leaving.values() for snapshot in snapshots)
    tasks = [
        PartTask(
            log=log, period=period, config=config, previous=previous, leaving=leaving, folder=folder,
            part=part, num_parts=shards, written=held,
        )
        for part in range(shards)
    ]  # fmt: skip
    results = run_parts(tasks)
    (folder / "item_groups.parquet").unlink()
    gather_quarantine(folder, len(tasks))
    written = {
        "new_items": _new_items(items, known),
        **_item_values(tasks, attributes, period.day, config),
    }
    for name, frame in written.items():
        write_table(frame, folder / f"{name}.parquet")
    if held is not None:
        held.update(written)
    return {
        "day": str(period.day),
        "parts": len(tasks),
        "rows": {**_added([r.rows for r in results]), "items": items.height},
        "quarantine": _quarantine(results) | quarantine,
    }


def _new_items(items: pl.DataFrame, known: pl.DataFrame | None) -> pl.DataFrame:
    return items if known is None else items.join(known, on="item_id", how="anti", maintain_order="left")


def _clean_items(
    log: InteractionLog, period: PeriodDays, config: RunConfig, folder: Path
) -> tuple[pl.DataFrame, dict[str, dict[str, int]]]:
    partitions = [(day, log.read("items", day)) for day in period.days]
    together = clean_together("items", partitions, log, config, pl.DataFrame())
    cleaned = [together] if together is not None else [
        clean_day("items", rows, day, log, config, pl.DataFrame()) for day, rows in partitions
    ]  # fmt: skip
    frames = [c.good for c in cleaned] or [log.read("items", period.start).clear()]
    items = latest_by_key([pl.concat(frames, how="diagonal_relaxed")], "item_id")
    return items, write_quarantine({"items": cleaned}, folder)


def _item_values(
    tasks: Sequence[PartTask], attributes: pl.DataFrame, day: date, config: RunConfig
) -> dict[str, pl.DataFrame]:
    """Add the shares' item tiles up; give the period's tile and the items' nightly values."""
    parts = [part_folder(t.folder, t.part) / "item_part.parquet" for t in tasks]
    today = add_tiles([pl.read_parquet(path) for path in parts], ["item_id"])
    for path in parts:
        path.unlink()
    task = tasks[0]
    leaving = {w: [s.table("item_tile") for s in snapshots] for w, snapshots in task.leaving.items()}
    before = task.previous.table("items") if task.previous else None
    aggregates = roll_windows(before, today, leaving, ["item_id"], measures_of(config))
    values = with_aggregates(attributes, aggregates, "item_id", period_end(day, config.timezone))
    for group in config.features.group_items_by:
        values = group_windows(values, group, window_names(config))
    return {"items": values, "item_tile": today}


def _require_group(items: pl.DataFrame, group: str) -> None:
    if group not in items.columns:
        known = [c for c in items.columns if c == "category" or c.startswith(ATTRIBUTE_PREFIX)]
        raise DataError(
            f"[features] group_items_by or cross_user_by names {group!r}, which no item of the log has; "
            f"there are: {', '.join(known)}"
        )


def _added(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    return {name: sum(c.get(name, 0) for c in counts) for name in dict.fromkeys(n for c in counts for n in c)}


def _quarantine(results: Sequence[PartResult]) -> dict[str, dict[str, int]]:
    tables = dict.fromkeys(table for r in results for table in r.quarantine)
    return {table: _added([r.quarantine.get(table, {}) for r in results]) for table in tables}


def _next_period(start: date, config: RunConfig) -> date:
    if config.period == "P1M":
        return (start.replace(day=28) + timedelta(days=4)).replace(day=1)
    return start + timedelta(days=7 if config.period == "P1W" else 1)
