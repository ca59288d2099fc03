"""The server's journal -> canonical tables: LOG/journal/<stem> becomes journal-<stem>.parquet in each
partition; upserts of items are merged across files (`journal_items`).

A file that is still being written is ingested as far as it goes, and again when it has grown: its Parquet
files are replaced. A file that has not changed is skipped. Which files were read, how far, and what was
wrong with them stands in LOG/journal/compacted.json. The same journal gives the same files, whenever and
however often it is ingested.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Literal

import polars as pl

from features.sources.journal_items import free_type, merge_patches, typed, write_patches
from recsys import item_patches, journal
from recsys.errors import DataError
from recsys.log import InteractionLog, business_day
from recsys.schema import FREE_PREFIX, KEYS, PARTITION_INSTANT, TABLES, empty
from recsys.stages import write_json

STATE = "compacted.json"
RECORDED_AT = "__recorded_at"
# Of a user's rows of one day the last holds; everything else is something that happened once.
_KEEP: Final[dict[str, Literal["first", "last"]]] = {"users": "last"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSummary:
    """What one journal file gave."""

    num_bytes: int
    timezone: str
    rows: Mapping[str, int] = field(default_factory=dict)
    """Rows written, by table."""
    duplicates: Mapping[str, int] = field(default_factory=dict)
    """Rows left out because their key came twice in this file, by table."""
    torn_bytes: int = 0
    damaged_bytes: int = 0
    files: tuple[str, ...] = ()
    """Parquet files written, relative to the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSummary:
    """What an ingest did; the counts cover the files read by it, not those skipped."""

    num_ingested: int
    num_skipped: int
    rows: Mapping[str, int]
    duplicates: Mapping[str, int]
    torn_bytes: int
    damaged_bytes: int


def ingest_journal(log: InteractionLog, timezone: str) -> IngestSummary:
    """Bring the canonical tables up to date with the journal; days are business days in the time zone.

    Raises: DataError when a file is of another format, or names a table or column that does not exist.
    """
    folder = log.root / journal.FOLDER
    state = _read_state(folder / STATE)
    done: list[FileSummary] = []
    num_skipped = 0
    changed: set[str] = set()
    try:
        for path in journal.files(folder):
            previous = state.get(path.stem)
            if previous is not None and _unchanged(log, path, previous, timezone):
                num_skipped += 1
                continue
            summary = _ingest_file(log, path, timezone)
            changed |= {*summary.files} | _remove_stale(log, previous, summary)
            state[path.stem] = summary
            done.append(summary)
    finally:
        # Items before the state: who was killed in between reads the files again.
        merge_patches(log, changed)
        if done:
            _write_state(folder / STATE, state)
    return IngestSummary(
        num_ingested=len(done),
        num_skipped=num_skipped,
        rows=_total(summary.rows for summary in done),
        duplicates=_total(summary.duplicates for summary in done),
        torn_bytes=sum(summary.torn_bytes for summary in done),
        damaged_bytes=sum(summary.damaged_bytes for summary in done),
    )


def num_pending(log: InteractionLog, timezone: str) -> int:
    """Count the journal's files that `ingest_journal` would read; nothing is written."""
    folder = log.root / journal.FOLDER
    state = _read_state(folder / STATE)
    return sum(
        path.stem not in state or not _unchanged(log, path, state[path.stem], timezone)
        for path in journal.files(folder)
    )


def _ingest_file(log: InteractionLog, path: Path, timezone: str) -> FileSummary:
    contents = journal.read(path)
    rows: dict[str, int] = {}
    duplicates: dict[str, int] = {}
    written: list[str] = []
    stem = f"journal-{path.stem}"
    patches = write_patches(log, contents, stem, timezone)
    if patches.num_patches:
        rows["items"] = patches.num_items
        duplicates["items"] = patches.num_patches - patches.num_items
        written.extend(patches.files)
    for table, everything in _frames(contents, path).items():
        # One row a key and day: an item may change again tomorrow, everything else happens once.
        frame = everything.with_columns(_day(table, timezone)).unique(
            subset=[*KEYS[table], "__day"], keep=_KEEP.get(table, "first"), maintain_order=True
        )
        rows[table], duplicates[table] = frame.height, everything.height - frame.height
        for (day,), part in (
            frame.drop(RECORDED_AT).partition_by("__day", as_dict=True, include_key=False).items()
        ):
            log.write(table, day, part, stem)
            written.append(f"{table}/date={day}/{stem}.parquet")
    return FileSummary(
        num_bytes=contents.num_bytes,
        timezone=timezone,
        rows=rows,
        duplicates={table: count for table, count in duplicates.items() if count},
        torn_bytes=contents.torn_bytes,
        damaged_bytes=sum(length for _, length in contents.damaged),
        files=tuple(sorted(written)),
    )


def _frames(contents: journal.Contents, path: Path) -> dict[str, pl.DataFrame]:
    """Build one frame a table, in the order of the records, with the record's instant as a further column."""
    columns: dict[str, dict[str, list[journal.Value]]] = {}
    heights: dict[str, int] = {}
    for record in contents.records:
        for rows in record.rows:
            if rows.table in item_patches.TABLES:
                continue
            if rows.table not in TABLES:
                raise DataError(f"{path} holds rows of {rows.table!r}; known tables: {', '.join(TABLES)}")
            height = heights.get(rows.table, 0)
            _extend(columns.setdefault(rows.table, {}), height, rows, record.at_ms)
            heights[rows.table] = height + rows.num_rows
    return {
        table: _frame(table, columns[table], heights[table], path) for table in TABLES if table in columns
    }


def _extend(columns: dict[str, list[journal.Value]], height: int, rows: journal.Rows, at_ms: int) -> None:
    for name, value in {**rows.same, RECORDED_AT: at_ms}.items():
        _column(columns, name, height).extend([value] * rows.num_rows)
    for name, values in rows.each.items():
        _column(columns, name, height).extend(values)


def _column(columns: dict[str, list[journal.Value]], name: str, height: int) -> list[journal.Value]:
    """Give a column, filled up with nulls for the rows before that do not have it."""
    values = columns.setdefault(name, [])
    values.extend([None] * (height - len(values)))
    return values


def _frame(table: str, columns: dict[str, list[journal.Value]], height: int, path: Path) -> pl.DataFrame:
    fixed = empty(table).schema
    prefix = FREE_PREFIX.get(table)
    series: list[pl.Series] = []
    for name in [*fixed, *sorted(columns.keys() - fixed.keys() - {RECORDED_AT})]:
        values = _column(columns, name, height)
        if name in fixed:
            series.append(typed(name, values, fixed[name]))
        elif prefix is not None and name.startswith(prefix):
            series.append(typed(name, values, free_type(values)))
        else:
            raise DataError(f"{path} holds a column {name!r} of {table}; known columns: {', '.join(fixed)}")
    return pl.DataFrame([*series, typed(RECORDED_AT, columns[RECORDED_AT], pl.Datetime("ms", "UTC"))])


def _day(table: str, timezone: str) -> pl.Expr:
    return business_day(PARTITION_INSTANT.get(table, RECORDED_AT), timezone).alias("__day")


def _unchanged(log: InteractionLog, path: Path, previous: FileSummary, timezone: str) -> bool:
    """Files only ever grow, so the same length means the same content."""
    same = journal.size(path) == previous.num_bytes and timezone == previous.timezone
    return same and all((log.root / name).is_file() for name in previous.files)


def _remove_stale(log: InteractionLog, previous: FileSummary | None, now: FileSummary) -> set[str]:
    """A changed time zone moves rows to other days: take away the files that they came from."""
    stale = set(previous.files if previous else ()) - set(now.files)
    for name in stale:
        (log.root / name).unlink(missing_ok=True)
    return stale


def _read_state(path: Path) -> dict[str, FileSummary]:
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {
            stem: FileSummary(**{**entry, "files": tuple(entry["files"])}) for stem, entry in files.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is damaged ({error}); remove it: everything is then ingested again"
        ) from error


def _write_state(path: Path, state: Mapping[str, FileSummary]) -> None:
    write_json(path, {"files": {stem: asdict(summary) for stem, summary in state.items()}})


def _total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))
