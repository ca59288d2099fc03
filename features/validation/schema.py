"""Check, before anything is built, that the day's files have the columns and types of their tables.

Cleaning would refuse such a file as well, at its first column. Here every file is looked at, every fault is
listed, and the rows that do not fit are named.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl

from features.validation.findings import Finding, Where
from features.validation.tables import TABLES
from recsys.log import InteractionLog
from recsys.schema import KEYS, MAY_BE_ABSENT, empty
from recsys.schema import TABLES as SCHEMAS

NUM_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class _File:
    log: InteractionLog
    day: date
    table: str
    path: Path

    def finding(
        self, column: str | None, measured: str, value: float, expected: str, rows: pl.DataFrame
    ) -> Finding:
        named = str(self.path.relative_to(self.log.root))
        examples = tuple({"file": named, **row} for row in rows.head(NUM_EXAMPLES).iter_rows(named=True))
        return Finding(
            code="schema", severity="error", day=self.day, table=self.table, column=column, measured=measured,
            value=value, expected=expected, rows=rows.height, examples=examples or ({"file": named},),
            remedy=f"rewrite {named} as recsys/schema.py says, and run again", where=Where(table=self.table),
        )  # fmt: skip


def check_files(log: InteractionLog, days: Sequence[date]) -> list[Finding]:
    """Check every file of some days; give one finding per column that does not fit."""
    return [
        finding
        for day in days
        for table in TABLES
        for path in log.files(table, day)
        for finding in _check_file(_File(log, day, table, path))
    ]


def _check_file(file: _File) -> Iterator[Finding]:
    wanted = empty(file.table).schema
    try:
        found = pl.read_parquet_schema(file.path)
    except (pl.exceptions.PolarsError, OSError):
        yield file.finding(None, "readable Parquet files", 0, "1", pl.DataFrame())
        return
    fields = SCHEMAS[file.table].columns()
    for name, dtype in wanted.items():
        if name not in found and name not in MAY_BE_ABSENT.get(file.table, ()):
            siblings = [f for f in file.log.files(file.table, file.day) if f != file.path]
            elsewhere = any(name in pl.read_parquet_schema(f) for f in siblings)
            if not (elsewhere and fields[name].nullable):
                yield _missing(file, name, list(found))
        elif name in found and found[name] != dtype:
            yield from _wrong_type(file, name, found[name], dtype)


def _missing(file: _File, name: str, found: Sequence[str]) -> Finding:
    keys = [k for k in KEYS[file.table] if k in found]
    rows = pl.read_parquet(file.path, columns=keys, hive_partitioning=False)
    has = ", ".join(found)
    return file.finding(name, f"columns named {name}", 0, f"1; the file has {has}", rows)


def _wrong_type(file: _File, name: str, has: pl.DataType, wanted: pl.DataType) -> Iterator[Finding]:
    """Name the rows whose value cannot be read as the column's type; a readable other type is no fault."""
    columns = list(dict.fromkeys([*KEYS[file.table], name]))
    frame = pl.read_parquet(file.path, columns=columns, hive_partitioning=False)
    try:
        cast = frame[name].cast(wanted, strict=False)
        bad = cast.is_null() & frame[name].is_not_null()
        if wanted.is_integer() and has.is_float():
            bad = bad | (frame[name] % 1 != 0).fill_null(value=False)
    except pl.exceptions.PolarsError:
        bad = frame[name].is_not_null()
    if bad.any():
        share = int(bad.sum()) / max(1, frame.height)
        yield file.finding(
            name, f"share of values that are {has} and no {wanted}", share, "0", frame.filter(bad)
        )
