"""Measure a log day by day: every day is aggregated alone, so the largest day sets the memory.

Nothing here refuses data: a broken log is what a profile is for. Columns of the schema that a file lacks are
read as nulls and reported.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl

from features.profile.model import Column, Day, Kind, LogProfile, Requests, Table
from features.profile.tally import EntityTally
from features.relations import id_shapes
from features.spellings import spelt_twice
from recsys.errors import DataError
from recsys.log import InteractionLog
from recsys.schema import IMPRESSION_KEY, INSTANT, KEYS, MAY_BE_ABSENT, TABLES, empty

_LATE: Final = timedelta(hours=1)
_MAX_VALUES: Final = 20
_LAST_POSITION: Final = 10


@dataclass(slots=True)
class _Sums:
    """What is added up over the days."""

    log: InteractionLog
    users: EntityTally = field(default_factory=lambda: EntityTally("user_id"))
    items: EntityTally = field(default_factory=lambda: EntityTally("item_id"))
    days: list[Day] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    positions: Counter[str] = field(default_factory=Counter)
    hours: Counter[int] = field(default_factory=Counter)
    kinds: dict[str, Counter[str]] = field(default_factory=dict)
    values: dict[str, Counter[float]] = field(default_factory=dict)
    ranges: dict[str, list[float]] = field(default_factory=dict)
    bounds: list[datetime] = field(default_factory=list)
    shared: list[tuple[str, str, str]] = field(default_factory=list)
    """A request of several users, and two of them, of each day that has one."""
    offsets: list[float] = field(default_factory=list)
    """Hours of the events after midnight UTC of their partition's date: earliest and latest of each day."""


def measure_log(log: InteractionLog, step: Callable[[str, float], None]) -> LogProfile:
    """Measure a log.

    Raises: DataError when it has no impressions, or a file is not readable Parquet.
    """
    log.require_days("impressions")
    days = sorted({*log.days("impressions"), *log.days("feedback")})
    sums = _Sums(log)
    for n, day in enumerate(days):
        step(f"{day}", 0.8 * n / len(days))
        try:
            _add_day(sums, day)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(f"{log.root}: {day} cannot be read ({error}); restore it or remove it") from error
    step("tables", 0.8)
    tables = tuple(_table(log, name) for name in TABLES if log.days(name))
    step("pairs", 0.9)
    return _profile(sums, tables)


def scan(log: InteractionLog, table: str, day: date) -> pl.LazyFrame:
    """Scan a partition, free columns included; fixed columns that a file lacks are null."""
    frames = [_complete(table, pl.scan_parquet(p, hive_partitioning=False)) for p in log.files(table, day)]
    return pl.concat(frames, how="diagonal_relaxed") if frames else empty(table).lazy()


def _complete(table: str, frame: pl.LazyFrame) -> pl.LazyFrame:
    known, found = empty(table).schema, frame.collect_schema()
    return frame.with_columns(pl.lit(None, t).alias(n) for n, t in known.items() if n not in found)


def _add_day(sums: _Sums, day: date) -> None:
    shown, done = scan(sums.log, "impressions", day), scan(sums.log, "feedback", day)
    counts = _add_impressions(sums, shown, day)
    kinds = _add_feedback(sums, done, day)
    both = [
        f.select("user_id", "item_id")
        for f in (shown.filter(~pl.col("sampled").fill_null(value=False)), done)
    ]
    pairs = pl.concat(both)
    users, new_users = sums.users.add(_count(pairs, "user_id"))
    items, new_items = sums.items.add(_count(pairs, "item_id"))
    sums.days.append(
        Day(
            day=day,
            impressions=counts["impressions"] - counts["sampled"],
            sampled=counts["sampled"],
            feedback=sum(kinds.values()),
            users=users,
            items=items,
            new_users=new_users / max(users, 1),
            new_items=new_items / max(items, 1),
            kinds=kinds,
        )
    )


def _count(rows: pl.LazyFrame, key: str) -> pl.DataFrame:
    counted = rows.drop_nulls(key).group_by(key).agg(events=pl.len())
    return counted.collect(engine="streaming")


def _add_impressions(sums: _Sums, shown: pl.LazyFrame, day: date) -> dict[str, int]:
    drawn = pl.col("sampled").fill_null(value=False)
    real = shown.filter(~drawn)
    one = shown.select(
        impressions=pl.len(),
        sampled=drawn.sum(),
        propensity=(pl.col("propensity").is_not_null() & ~drawn).sum(),
        requests=pl.col("request_id").filter(~drawn).n_unique(),
    )
    counts: dict[str, int] = one.collect(engine="streaming").row(0, named=True)
    sums.counts.update(counts)
    placed = pl.col("position").clip(1, _LAST_POSITION + 1)
    for position, rows in real.group_by(placed).len().collect(engine="streaming").iter_rows():
        name = (
            "none"
            if position is None
            else f"{_LAST_POSITION + 1}+"
            if position > _LAST_POSITION
            else str(position)
        )
        sums.positions[name] += rows
    _add_times(sums, real.select(at="shown_at"), day)
    _add_requests(sums, real)
    return counts


def _add_requests(sums: _Sums, real: pl.LazyFrame) -> None:
    """Count the requests of several users; those of different days are different requests."""
    users = pl.col("user_id")
    requests = real.drop_nulls("request_id").group_by("request_id").agg(one=users.min(), other=users.max())
    shared = requests.filter(pl.col("one") != pl.col("other")).collect(engine="streaming")
    sums.counts["shared"] += shared.height
    sums.shared += list(shared.sort("request_id").head(1).iter_rows())


def _add_times(sums: _Sums, times: pl.LazyFrame, day: date) -> None:
    at = times.select(pl.col("at").cast(INSTANT))
    first, last = at.select(first=pl.col("at").min(), last=pl.col("at").max()).collect().row(0)
    if first is None:
        return
    sums.bounds += [first, last]
    midnight = datetime(day.year, day.month, day.day, tzinfo=first.tzinfo)
    sums.offsets += [(t - midnight).total_seconds() / 3600 for t in (first, last)]
    sums.hours.update(dict(at.group_by(pl.col("at").dt.hour()).len().collect().iter_rows()))


def _add_feedback(sums: _Sums, done: pl.LazyFrame, day: date) -> dict[str, int]:
    credited = pl.col("impression_id").is_not_null()
    late = pl.col("received_at") - pl.col("occurred_at") > _LATE
    value = pl.col("value")
    kinds = done.group_by("kind").agg(
        rows=pl.len(),
        users=pl.col("user_id").n_unique(),
        credited=credited.sum(),
        late=late.sum(),
        valued=value.count(),
        total=value.sum(),
        low=value.min(),
        high=value.max(),
    )
    found: dict[str, int] = {}
    for row in kinds.sort("kind").collect(engine="streaming").iter_rows(named=True):
        kind = str(row.pop("kind"))
        low, high = row.pop("low"), row.pop("high")
        if low is not None:
            sums.ranges.setdefault(kind, []).extend((low, high))
        sums.kinds.setdefault(kind, Counter()).update(row)
        found[kind] = row["rows"]
    _add_values(sums, done)
    _add_pairs(sums, done, day)
    _add_times(sums, done.select(at="received_at"), day)
    return found


def _add_values(sums: _Sums, done: pl.LazyFrame) -> None:
    """Count values per kind while there are few of them."""
    counted = done.drop_nulls("value").group_by("kind", "value").len()
    few = pl.col("value").n_unique().over("kind") <= _MAX_VALUES
    for kind, value, rows in counted.filter(few).collect().sort("kind", "value").iter_rows():
        sums.values.setdefault(str(kind), Counter())[value] += rows


def _add_pairs(sums: _Sums, done: pl.LazyFrame, day: date) -> None:
    """Look the named impressions up in the day and the one before."""
    days = [day - timedelta(days=1), day]
    shown = pl.concat(
        [scan(sums.log, "impressions", d).select(*IMPRESSION_KEY, "shown_at") for d in days]
    ).unique(IMPRESSION_KEY, keep="any")
    named = done.filter(pl.col("impression_id").is_not_null()).select(*IMPRESSION_KEY, "occurred_at")
    joined = named.join(shown, on=IMPRESSION_KEY, how="left")
    counts = joined.select(
        named=pl.len(),
        not_found=pl.col("shown_at").is_null().sum(),
        before=(pl.col("occurred_at") < pl.col("shown_at")).sum(),
    )
    sums.counts.update(counts.collect(engine="streaming").row(0, named=True))


def _table(log: InteractionLog, name: str) -> Table:
    """Describe a table: rows, columns, what is missing."""
    days = log.days(name)
    rows, repeated, size = 0, 0, 0
    filled: Counter[str] = Counter()
    types: dict[str, str] = {}
    absent: set[str] = set()
    fixed = set(empty(name).columns) - set(MAY_BE_ABSENT.get(name, ()))
    for day in days:
        files = log.files(name, day)
        size += sum(path.stat().st_size for path in files)
        for path in files:
            absent |= fixed - set(pl.read_parquet_schema(path))
        frame = scan(log, name, day)
        schema = frame.collect_schema()
        types |= {column: str(dtype) for column, dtype in schema.items()}
        counts = frame.select(
            pl.len().alias("__rows"),
            (pl.len() - pl.struct(KEYS[name]).n_unique()).alias("__repeated"),
            *[pl.col(column).count() for column in schema],
        ).collect(engine="streaming")
        found: dict[str, int] = counts.row(0, named=True)
        rows += found.pop("__rows")
        repeated += found.pop("__repeated")
        filled.update(found)
    # Of what is filled, not of nulls: the days of which no file has the column have no nulls in it.
    missing = {column: (rows - filled[column]) / max(rows, 1) for column in types}
    columns = tuple(Column(name=c, dtype=t, missing=missing[c]) for c, t in types.items())
    return Table(
        name=name,
        rows=rows,
        days=len(days),
        first_day=days[0],
        last_day=days[-1],
        megabytes=size / 1e6,
        repeated_keys=repeated,
        columns=columns,
        absent=tuple(sorted(absent)),
    )


def _profile(sums: _Sums, tables: tuple[Table, ...]) -> LogProfile:
    counts = sums.counts
    real = counts["impressions"] - counts["sampled"]
    feedback = sum(kind["rows"] for kind in sums.kinds.values())
    credited = sum(kind["credited"] for kind in sums.kinds.values())
    per_user, per_item = sums.users.distribution(), sums.items.distribution()
    present = [day.day for day in sums.days]
    every = [present[0] + timedelta(days=n) for n in range((present[-1] - present[0]).days + 1)]
    return LogProfile(
        log=str(sums.log.root),
        tables=tables,
        first_at=min(sums.bounds),
        last_at=max(sums.bounds),
        impressions=real,
        sampled=counts["sampled"],
        feedback=feedback,
        users=per_user.entities,
        items=per_item.entities,
        density=_pairs(sums.log, present) / max(per_user.entities * per_item.entities, 1),
        kinds=tuple(
            _kind(sums, kind, real) for kind in sorted(sums.kinds, key=lambda k: -sums.kinds[k]["rows"])
        ),
        organic=1 - credited / feedback if feedback else 0.0,
        not_found=counts["not_found"] / max(counts["named"], 1),
        before_impression=counts["before"],
        propensity=counts["propensity"] / max(real, 1),
        positions={name: sums.positions[name] for name in _position_names() if sums.positions[name]},
        responses=counts["requests"],
        per_response=real / max(counts["requests"], 1),
        hours=tuple(sums.hours[hour] for hour in range(24)),
        utc_offsets=_offsets(sums.offsets),
        per_user=per_user,
        per_item=per_item,
        unlisted_items=_unlisted(sums.log, "items", sums.items),
        unlisted_users=_unlisted(sums.log, "users", sums.users),
        shared_requests=Requests(
            requests=counts["requests"],
            shared=counts["shared"],
            example=sums.shared[0] if sums.shared else None,
        ),
        id_shapes={"users": id_shapes(sums.users.entities), "items": id_shapes(sums.items.entities)},
        id_spellings={
            "users": spelt_twice(sums.users.rows_of_ids),
            "items": spelt_twice(sums.items.rows_of_ids),
        },
        days=tuple(sums.days),
        missing_days=tuple(day for day in every if day not in set(present)),
    )


def _position_names() -> list[str]:
    return [*map(str, range(1, _LAST_POSITION + 1)), f"{_LAST_POSITION + 1}+", "none"]


def _kind(sums: _Sums, name: str, impressions: int) -> Kind:
    kind, ranges = sums.kinds[name], sums.ranges.get(name, [])
    values = sums.values.get(name, Counter())
    counted = sum(values.values()) == kind["valued"] and len(values) <= _MAX_VALUES
    return Kind(
        kind=name,
        rows=kind["rows"],
        users=kind["users"],
        credited=kind["credited"],
        per_impression=kind["credited"] / max(impressions, 1),
        organic=1 - kind["credited"] / kind["rows"],
        valued=kind["valued"],
        low=min(ranges, default=None),
        high=max(ranges, default=None),
        mean=kind["total"] / kind["valued"] if kind["valued"] else None,
        values={f"{value:g}": rows for value, rows in sorted(values.items())} if counted else {},
        received_late=kind["late"] / kind["rows"],
    )


def _offsets(hours: list[float]) -> tuple[int, int] | None:
    """Give the whole hours h for which all events lie in [midnight - h, midnight - h + 24 h)."""
    fitting = [h for h in range(-12, 15) if all(-h <= at < 24 - h for at in hours)]
    return (fitting[0], fitting[-1]) if fitting else None


def _pairs(log: InteractionLog, days: list[date]) -> int:
    """Estimate the distinct (user, item) pairs of impressions and feedback, in bounded memory."""
    rows = [
        frame.select(pair=pl.struct("user_id", "item_id").hash(0))
        for day in days
        for frame in (
            scan(log, "impressions", day).filter(~pl.col("sampled").fill_null(value=False)),
            scan(log, "feedback", day),
        )
    ]
    counted = pl.concat(rows).select(pl.col("pair").approx_n_unique())
    return int(counted.collect(engine="streaming").item())


def _unlisted(log: InteractionLog, table: str, tally: EntityTally) -> int:
    days = log.days(table)
    if not days:
        return tally.entities.len()
    paths: list[Path] = [path for day in days for path in log.files(table, day)]
    key = tally.key
    listed: Any = pl.concat([pl.scan_parquet(p, hive_partitioning=False).select(key) for p in paths]).unique()
    return tally.entities.to_frame().lazy().join(listed, on=key, how="anti").collect().height
