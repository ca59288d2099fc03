"""A finding -> some of the rows it is about, with the file each came from."""

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from features.validation.findings import Finding, Where
from features.validation.tables import DayTables
from recsys.log import InteractionLog
from recsys.schema import KEYS, PARTITION_INSTANT

NUM_EXAMPLES = 5
_SHOWN = (
    "impression_id", "feedback_id", "user_id", "item_id", "kind", "value", "shown_at", "received_at", "price",
    "quarantine_reason",
)  # fmt: skip


def with_examples(findings: Sequence[Finding], tables: DayTables, log: InteractionLog) -> list[Finding]:
    """Add up to five rows to each finding: the keys, what was evaluated, and the file."""
    return [replace(f, examples=_examples(f, tables, log)) for f in findings]


def _examples(finding: Finding, tables: DayTables, log: InteractionLog) -> tuple[dict[str, object], ...]:
    table = finding.where.table
    rows = _rows(finding.where, tables)
    if rows.is_empty() and table != "impressions":
        table = "impressions"  # the table is empty: name the impressions of the day
        rows = _rows(Where(table=table), tables)
    evaluated = [finding.column] if finding.column in rows.columns else []
    wanted = dict.fromkeys([*KEYS[table], *evaluated, *(c for c in _SHOWN if c in rows.columns)])
    files = _files(table, rows, tables, log)
    return tuple({"file": files.get(row[KEYS[table][0]]), **row} for row in rows.select(*wanted).to_dicts())


def _rows(where: Where, tables: DayTables) -> pl.DataFrame:
    frame = (tables.quarantine if where.quarantined else tables.good)[where.table]
    if where.rows is not None:
        return frame.filter(where.rows).head(NUM_EXAMPLES) if frame.width else frame
    instant = PARTITION_INSTANT.get(where.table)
    ordered = frame.sort(instant) if instant in frame.columns else frame
    return ordered if ordered.height <= NUM_EXAMPLES else pl.concat([ordered.head(2), ordered.tail(2)])


def _files(table: str, rows: pl.DataFrame, tables: DayTables, log: InteractionLog) -> dict[str, str]:
    """Find the file, relative to the log, that holds each row."""
    if rows.is_empty():
        return {}
    key = KEYS[table][0]
    keys = rows[key].cast(pl.String)
    found: dict[str, str] = {}
    for day in tables.days:
        for path in log.files(table, day):
            ids = pl.read_parquet(path, columns=[key], hive_partitioning=False)[key].cast(pl.String)
            here = keys.filter(keys.is_in(ids.implode())).to_list()
            found |= dict.fromkeys(here, str(path.relative_to(log.root)))
    return found
