"""Raw rows as features read them: a frame of a day, or one row of a request.

A feature's code is written once, against `Rows`. A frame of a million users and one user read from the store
go through it alike, so training and serving cannot differ.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import polars as pl

from recsys.inputs import Bag
from recsys.vocabulary import Vocabulary


class NumberRows(Protocol):
    """Rows [N] whose numbers can be read."""

    @property
    def size(self) -> int:
        """Count the rows."""

    def numbers(self, column: str) -> np.ndarray:
        """Give a column of numbers as float64 [N]; NaN for what is missing, absent or text."""


class Rows(NumberRows, Protocol):
    """Rows [N] of one entity."""

    def ids(self, column: str, vocabulary: Vocabulary) -> np.ndarray:
        """Look a column's ids up, int64 [N]; 0 for what is missing or absent."""

    def bags(self, column: str, vocabulary: Vocabulary) -> Bag:
        """Look a column's lists of ids up; a single value is a list of one, a missing one an empty list."""


class NumberColumns:
    """Numbers by column: float64 [N] each."""

    def __init__(self, columns: Mapping[str, np.ndarray], size: int) -> None:
        self.size = size
        self._columns = columns
        self._missing = np.broadcast_to(np.nan, size)

    def numbers(self, column: str) -> np.ndarray:
        """Give a column; NaN where it is absent."""
        return self._columns.get(column, self._missing)


class FrameRows:
    """The rows of a frame; each column of numbers is made once, when it is first read."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.size = frame.height
        self._frame = frame
        self._schema = frame.schema
        self._numbers: dict[str, np.ndarray] = {}
        self._missing = np.broadcast_to(np.nan, frame.height)

    def numbers(self, column: str) -> np.ndarray:
        """Give a column of numbers as float64 [N]; NaN for what is missing, absent or text."""
        if column not in self._numbers:
            there = column in self._schema and is_number(self._schema[column])
            self._numbers[column] = float64(self._frame[column]) if there else self._missing
        return self._numbers[column]

    def ids(self, column: str, vocabulary: Vocabulary) -> np.ndarray:
        """Look a column's ids up, int64 [N]; 0 for what is missing or absent."""
        return vocabulary.encode(id_column(self._frame, column))

    def bags(self, column: str, vocabulary: Vocabulary) -> Bag:
        """Look a column's lists of ids up; a single value is a list of one, a missing one an empty list."""
        lists = list_column(self._frame, column)
        lengths = lists.list.len().fill_null(0)
        values = lists.filter(lengths > 0).explode()
        offsets = np.concatenate([[0], np.cumsum(lengths.to_numpy())]).astype(np.int64)
        return Bag(vocabulary.encode(values), offsets)


class OneRow:
    """One row, read from the store or sent with a request; no frame is built for it."""

    size = 1

    def __init__(self, row: Mapping[str, object]) -> None:
        self._row = row
        self._numbers: dict[str, np.ndarray] = {}

    def numbers(self, column: str) -> np.ndarray:
        """Give a number as float64 [1]; NaN when it is missing, absent or text."""
        found = self._numbers.get(column)
        if found is None:
            value = self._row.get(column)
            known = value is not None and not isinstance(value, str)
            found = self._numbers[column] = np.array([value if known else np.nan], np.float64)
        return found

    def ids(self, column: str, vocabulary: Vocabulary) -> np.ndarray:
        """Look an id up, int64 [1]; 0 when it is missing or absent."""
        return np.array([vocabulary.encode_one(_text_or_none(self._row.get(column)))], np.int64)

    def bags(self, column: str, vocabulary: Vocabulary) -> Bag:
        """Look a list of ids up; a single value is a list of one, a missing one an empty list."""
        numbers = [vocabulary.encode_one(value) for value in _values_of(self._row.get(column))]
        return Bag(np.array(numbers, np.int64), np.array([0, len(numbers)]))


def id_column(frame: pl.DataFrame, name: str) -> pl.Series:
    """Give ids as text; 1, 1.0 and "1" are one id, whichever form a log or a request has them in."""
    if name not in frame.columns:
        return pl.Series(name, [None] * frame.height, dtype=pl.String)
    column = frame[name]
    if not is_number(column.dtype):
        return column
    return column.cast(pl.Float64).cast(pl.String).str.strip_suffix(".0")


def list_column(frame: pl.DataFrame, name: str) -> pl.Series:
    """Give lists of text; an absent column is all nulls, a single value is a list of one."""
    if name not in frame.columns:
        return pl.Series(name, [None] * frame.height, dtype=pl.List(pl.String))
    column = frame[name]
    if column.dtype == pl.List:
        return column.cast(pl.List(pl.String))
    single = id_column(frame, name).cast(pl.String)
    return pl.select(pl.when(single.is_not_null()).then(pl.concat_list(single))).to_series()


def number_arrays(frame: pl.DataFrame) -> dict[str, np.ndarray]:
    """Give a frame's number columns as float64 arrays; missing is NaN."""
    return {name: float64(frame[name]) for name in frame.columns if is_number(frame.schema[name])}


def is_number(dtype: pl.DataType) -> bool:
    """Tell whether a column holds numbers."""
    return dtype.is_numeric() or dtype == pl.Boolean


def float64(column: pl.Series) -> np.ndarray:
    """Give a number column as float64; missing is NaN."""
    values: np.ndarray = column.cast(pl.Float64).to_numpy()
    return values


def _text_or_none(value: object) -> str | None:
    if isinstance(value, int | float):
        # The frame's own cast: both sides must write a number as the same text.
        value = id_column(pl.DataFrame({"id": [float(value)]}), "id")[0]
    return None if value is None else str(value)


def _values_of(value: object) -> list[str]:
    if isinstance(value, list | tuple):
        return [str(v) for v in value]
    single = _text_or_none(value)
    return [] if single is None else [single]
