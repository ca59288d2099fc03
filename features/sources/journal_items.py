"""Upserts in the journal -> LOG/items: each day's patches, of all servers, in the order of their instants.

A server journals what was sent of an item, not the whole row: two servers that change different fields of an
item lose neither. Rows of whole items, which servers once wrote, are patches of every field.

    LOG/journal/<stem>  ->  LOG/item_patches/date=D/journal-<stem>.parquet   one file a journal file and day
                        ->  LOG/items/date=D/upserts.parquet                 the items patched that day, whole
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl
import structlog

from recsys import journal
from recsys.errors import DataError
from recsys.item_patches import ATTRIBUTES, TABLES, sent_fields
from recsys.log import InteractionLog, business_day
from recsys.schema import ATTRIBUTE_PREFIX, empty

FOLDER = "item_patches"
STEM = "upserts"
"""Sorts after the names of imported files: of an item's rows of one day the last counts."""
_log = structlog.get_logger(__name__)
_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "item_id": pl.String,
    "at": pl.Int64,
    "fields": pl.List(pl.String),
    "values": pl.String,
}
Row = dict[str, journal.Value]


@dataclass(frozen=True, slots=True)
class PatchFiles:
    """What one journal file has of upserts."""

    files: tuple[str, ...]
    """Relative to the log."""
    num_items: int
    """Items patched, each once a day."""
    num_patches: int


def write_patches(log: InteractionLog, contents: journal.Contents, stem: str, timezone: str) -> PatchFiles:
    """Write the upserts of one journal file, by business day; a row that is none is left out and logged."""
    found = [
        patch
        for record in contents.records
        for rows in record.rows
        if rows.table in TABLES
        for values in _by_row(rows)
        if (patch := _patch(rows.table, values, record.at_ms, stem)) is not None
    ]
    instant = pl.col("at").cast(pl.Datetime("ms", "UTC")).alias("instant")
    frame = pl.DataFrame(found, schema=_SCHEMA).with_columns(instant)
    frame = frame.with_columns(business_day("instant", timezone).alias("day")).drop("instant")
    written = []
    for (day,), part in frame.partition_by("day", as_dict=True, include_key=False).items():
        path = log.root / FOLDER / f"date={day}" / f"{stem}.parquet"
        _replace(path, part)
        written.append(str(path.relative_to(log.root)))
    return PatchFiles(tuple(written), frame.select("item_id", "day").unique().height, frame.height)


def merge_patches(log: InteractionLog, changed: Iterable[str]) -> None:
    """Write the items of each day with patches, from the first day on whose patches have changed.

    Args: changed: patch files, relative to the log, that were written or removed.
    """
    known = {_day_of(path) for path in (log.root / FOLDER).glob("date=*/*.parquet")}
    stale = {_day_of(Path(name)) for name in changed if name.startswith(f"{FOLDER}/")}
    stale |= {day for day in known if not _merged_file(log, day).is_file()}
    for day in sorted(known | stale):
        if day >= min(stale, default=date.max):
            _merge_day(log, day)


def _merge_day(log: InteractionLog, day: date) -> None:
    paths = sorted((log.root / FOLDER / f"date={day}").glob("*.parquet"))
    if not paths:
        _merged_file(log, day).unlink(missing_ok=True)
        return
    patches = pl.concat([pl.read_parquet(path, hive_partitioning=False) for path in paths])
    patches = patches.sort("at", maintain_order=True)
    merged = _latest_rows(log, day, patches["item_id"].unique())
    for item_id, _, fields, values in patches.iter_rows():
        merged[item_id] = _patched(merged.get(item_id, {"item_id": item_id}), fields, json.loads(values))
    order = patches["item_id"].unique(maintain_order=True)
    log.write("items", day, _frame([merged[item_id] for item_id in order]), STEM)


def _latest_rows(log: InteractionLog, until: date, item_ids: pl.Series) -> dict[str, Row]:
    """Read what the log has of items without the upserts of the last day: id -> row, instants as ms."""
    found: dict[str, Row] = {}
    for day in sorted((d for d in log.days("items") if d <= until), reverse=True):
        missing = item_ids.filter(~item_ids.is_in(list(found)))
        if missing.is_empty():
            break
        for path in reversed(log.files("items", day)):
            if day == until and path.stem == STEM:
                continue
            frame = pl.scan_parquet(path, hive_partitioning=False)
            asked = frame.filter(pl.col("item_id").is_in(missing.implode())).collect()
            rows = asked.unique("item_id", keep="last")
            instants = [name for name, dtype in rows.schema.items() if isinstance(dtype, pl.Datetime)]
            for row in rows.with_columns(pl.col(instants).dt.epoch("ms")).iter_rows(named=True):
                found.setdefault(row["item_id"], row)
    return found


def _patch(
    table: str, values: Mapping[str, journal.Value], at_ms: int, stem: str
) -> dict[str, object] | None:
    try:
        fields = sent_fields(table, values)
    except DataError as error:
        _log.error("item_row_skipped", file=stem, error=str(error))
        return None
    sent = {name: values[name] for name in fields if values.get(name) is not None}
    return {
        "item_id": values["item_id"],
        "at": at_ms,
        "fields": fields,
        "values": json.dumps(sent, ensure_ascii=False),
    }


def _patched(row: Row, fields: Sequence[str], values: Row) -> Row:
    if ATTRIBUTES in fields:
        row = {name: value for name, value in row.items() if not name.startswith(ATTRIBUTE_PREFIX)}
    return row | {name: values.get(name) for name in fields if name != ATTRIBUTES}


def _frame(rows: Sequence[Row]) -> pl.DataFrame:
    fixed = empty("items").schema
    free = sorted({name for row in rows for name in row if name.startswith(ATTRIBUTE_PREFIX)})
    columns = [typed(name, [row.get(name) for row in rows], fixed[name]) for name in fixed]
    for name in free:
        values = [row.get(name) for row in rows]
        columns.append(typed(name, values, free_type(values)))
    return pl.DataFrame(columns)


def typed(name: str, values: list[journal.Value], dtype: pl.DataType | type[pl.DataType]) -> pl.Series:
    """Make a column of journal values; instants are milliseconds."""
    if isinstance(dtype, pl.Datetime):
        return pl.Series(name, values, dtype=pl.Int64).cast(dtype)
    if dtype == pl.String:
        values = [value if value is None or isinstance(value, str) else f"{value}" for value in values]
    if isinstance(dtype, pl.List):
        values = [[value] if isinstance(value, str) else value for value in values]
    return pl.Series(name, values, dtype=dtype)


def free_type(values: Iterable[journal.Value]) -> pl.DataType:
    """Numbers stay numbers unless text was ever sent under the same name."""
    kinds = {type(value) for value in values} - {type(None)}
    if list in kinds:
        return pl.List(pl.String())
    return pl.String() if str in kinds else pl.Float64()


def _by_row(rows: journal.Rows) -> list[dict[str, journal.Value]]:
    return [{**rows.same, **{name: v[i] for name, v in rows.each.items()}} for i in range(rows.num_rows)]


def _merged_file(log: InteractionLog, day: date) -> Path:
    return log.root / "items" / f"date={day}" / f"{STEM}.parquet"


def _day_of(path: Path) -> date:
    return date.fromisoformat(path.parent.name.removeprefix("date="))


def _replace(path: Path, frame: pl.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    frame.write_parquet(temporary)
    os.replace(temporary, path)
