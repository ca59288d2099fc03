"""A frame in files of which rows are taken, and no column is read: a host has it in memory once.

    schema.json               columns in order; the kind of storage of each
    <n>.values.npy            numbers of column n, or the bytes of its texts
    <n>.offsets.npy           int64 [I + 1], where each text begins
    <n>.null.npy              bool [I], only if there are nulls
    <n>.arrow                 a column of another type, which is read

Polars itself copies what it reads. Legend: I rows.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl

from recsys.mapped_tensors import map_array
from recsys.stages import write_json

_SCHEMA = "schema.json"


class Frame(Protocol):
    """A table of which rows are taken."""

    @property
    def columns(self) -> list[str]:
        """List the columns in order."""

    @property
    def height(self) -> int:
        """Count the rows."""

    def rows(self, rows: Sequence[int | None], columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Take rows [N], nulls where one is None, of these columns; default: of all."""

    def text(self, column: str, row: int) -> str | None:
        """Return one text."""

    def texts(self, column: str, rows: np.ndarray) -> list[str | None]:
        """List the texts of rows int64 [N]."""


@dataclass(frozen=True, slots=True)
class FrameInMemory:
    """A frame of Polars."""

    frame: pl.DataFrame

    @property
    def columns(self) -> list[str]:
        """List the columns in order."""
        return self.frame.columns

    @property
    def height(self) -> int:
        """Count the rows."""
        return self.frame.height

    def rows(self, rows: Sequence[int | None], columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Take rows [N], nulls where one is None, of these columns; default: of all."""
        wanted = pl.Series(rows, dtype=pl.Int64)
        return self.frame.select(pl.col(columns or self.columns).gather(wanted))

    def text(self, column: str, row: int) -> str | None:
        """Return one text."""
        text: str | None = self.frame[column][row]
        return text

    def texts(self, column: str, rows: np.ndarray) -> list[str | None]:
        """List the texts of rows int64 [N]."""
        texts: list[str | None] = self.frame[column].gather(rows).to_list()
        return texts


@dataclass(frozen=True, slots=True)
class MappedFrame:
    """A frame in files that `write_frame` wrote."""

    height: int
    stored: dict[str, "_Column"]

    @property
    def columns(self) -> list[str]:
        """List the columns in order."""
        return list(self.stored)

    @classmethod
    def open(cls, folder: Path) -> "MappedFrame":
        """Map what `write_frame` wrote; the caller has made sure that nobody else could change it.

        Raises: OSError when a file is not there, ValueError for one that is something else.
        """
        said = json.loads((folder / _SCHEMA).read_text())
        stored = {name: _open(folder, n, kind) for n, (name, kind) in enumerate(said["columns"])}
        return cls(said["height"], stored)

    def rows(self, rows: Sequence[int | None], columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Take rows [N], nulls where one is None, of these columns; default: of all."""
        wanted = np.array([-1 if row is None else row for row in rows], np.int64)
        return pl.DataFrame([self.stored[name].take(wanted).alias(name) for name in columns or self.columns])

    def text(self, column: str, row: int) -> str | None:
        """Return one text."""
        stored = self.stored[column]
        if isinstance(stored, _Texts):
            return stored.one(row)
        text: str | None = stored.take(np.array([row]))[0]
        return text

    def texts(self, column: str, rows: np.ndarray) -> list[str | None]:
        """List the texts of rows int64 [N]."""
        stored = self.stored[column]
        return stored.many(rows) if isinstance(stored, _Texts) else stored.take(rows).to_list()


def write_frame(frame: pl.DataFrame, folder: Path) -> None:
    """Write a frame into a folder; `MappedFrame.open` maps it.

    Raises: OSError, or an error of Polars.
    """
    folder.mkdir(parents=True, exist_ok=True)
    columns = []
    for n, column in enumerate(frame.iter_columns()):
        columns.append((column.name, _write(column.rechunk(), folder, n)))
    write_json(folder / _SCHEMA, {"height": frame.height, "columns": columns})


class _Column(Protocol):
    def take(self, rows: np.ndarray) -> pl.Series:
        """Take rows [N]; null where one is negative."""


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Numbers, booleans and instants."""

    values: np.ndarray
    null: np.ndarray | None
    dtype: pl.DataType

    def take(self, rows: np.ndarray) -> pl.Series:
        missing = rows < 0
        if not self.values.size:
            return pl.Series([None] * rows.size, dtype=self.dtype)
        found = np.where(missing, 0, rows)
        if self.null is not None:
            missing = missing | self.null[found]
        values = pl.Series(self.values[found])
        if self.dtype != values.dtype:
            values = values.cast(self.dtype)
        return _with_nulls(values, missing)


@dataclass(frozen=True, slots=True)
class _Texts:
    blob: np.ndarray
    offsets: np.ndarray
    null: np.ndarray | None

    def take(self, rows: np.ndarray) -> pl.Series:
        return pl.Series(self.many(rows), dtype=pl.String)

    def many(self, rows: np.ndarray) -> list[str | None]:
        """List the texts of rows [N]; None where one is negative."""
        found, last = np.maximum(rows, 0), self.offsets.size - 1
        missing = rows < 0
        if self.null is not None and self.null.size:
            missing |= self.null[found]
        text = self.blob.data
        starts, ends = self.offsets[found].tolist(), self.offsets[np.minimum(found + 1, last)].tolist()
        spans = zip(starts, ends, missing.tolist(), strict=True)
        return [None if m else str(text[s:e], "utf-8") for s, e, m in spans]

    def one(self, row: int) -> str | None:
        if row < 0 or (self.null is not None and self.null[row]):
            return None
        return self.blob[self.offsets[row] : self.offsets[row + 1]].tobytes().decode()


@dataclass(frozen=True, slots=True)
class _Other:
    """In memory: lists, and types that are rare in a catalogue."""

    values: pl.Series

    def take(self, rows: np.ndarray) -> pl.Series:
        return self.values.gather(pl.Series(rows).replace(-1, None))


def _write(column: pl.Series, folder: Path, n: int) -> str:
    """Write a column and say how."""
    null = column.is_null().to_numpy() if column.null_count() else None
    if column.dtype == pl.String:
        lengths = column.str.len_bytes().fill_null(0).to_numpy()
        offsets = np.zeros(column.len() + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        text = column.fill_null("").str.join("").item() if column.len() else ""
        np.save(folder / f"{n}.values.npy", np.frombuffer(text.encode(), np.uint8))
        np.save(folder / f"{n}.offsets.npy", offsets)
        kind = "text"
    elif column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Date, pl.Datetime, pl.Duration):
        plain = column.to_physical() if column.dtype.is_temporal() else column
        np.save(folder / f"{n}.values.npy", plain.fill_null(strategy="zero").to_numpy())
        pl.DataFrame({"type": column.clear()}).write_ipc(folder / f"{n}.type")
        kind = "number"
    else:
        column.to_frame("values").write_ipc(folder / f"{n}.arrow")
        return "other"
    if null is not None:
        np.save(folder / f"{n}.null.npy", null)
    return kind


def _open(folder: Path, n: int, kind: str) -> _Column:
    if kind == "other":
        return _Other(pl.read_ipc(folder / f"{n}.arrow")["values"])
    file = folder / f"{n}.null.npy"
    null = map_array(file) if file.exists() else None
    values = map_array(folder / f"{n}.values.npy")
    if kind == "text":
        return _Texts(values, map_array(folder / f"{n}.offsets.npy"), null)
    return _Numbers(values, null, pl.read_ipc(folder / f"{n}.type")["type"].dtype)


def _with_nulls(values: pl.Series, missing: np.ndarray) -> pl.Series:
    if not missing.any():
        return values
    frame = pl.DataFrame({"value": values, "missing": missing})
    return frame.select(pl.when(~pl.col("missing")).then(pl.col("value")))["value"]
