"""A feature: one input of the model, and how its value is fitted and encoded.

The model knows three inputs and no kinds. A kind chooses one by the class that its feature derives from:

    IdFeature       one number of a vocabulary per row     a row of an embedding table
    BagFeature      a list of numbers per row              the mean of their rows of a table
    NumberFeature   `width` floats per row                 columns beside the looked-up rows
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from features.kinds.rows import Rows
from recsys.config import Entity, FeatureConfig, FeaturesConfig
from recsys.encoding import EncoderState, NumberStatistics
from recsys.inputs import Bag
from recsys.vocabulary import Vocabulary

Freshness = Literal["nightly", "live"]


class Options(BaseModel):
    """What a `[[feature]]` of one kind may say beside name, entity and kind."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FitRows:
    """Raw rows [N] of the training days that a feature is fitted on, in memory.

    Args: count: gives the examples of each row [N]; called when first asked for, it joins two tables.
    """

    def __init__(self, frame: pl.DataFrame, count: Callable[[], np.ndarray]) -> None:
        self._frame = frame
        self._count = count

    @property
    def frame(self) -> pl.DataFrame:
        """Give all rows."""
        return self._frame

    @property
    def in_memory(self) -> bool:
        """Tell whether asking for the rows again costs nothing."""
        return True

    @property
    def schema(self) -> pl.Schema:
        """Give the rows' columns and their types."""
        return self.frame.schema

    @property
    def num_rows(self) -> int:
        """Count the rows."""
        return self.frame.height

    @cached_property
    def examples(self) -> np.ndarray:
        """Count the examples of each row [N]."""
        return self._count()

    def frames(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Give those of some columns that are there, so many rows at a time."""
        yield self.frame[[name for name in columns if name in self.schema]]

    def pieces(self, columns: Sequence[str]) -> Iterator[tuple[pl.DataFrame, np.ndarray]]:
        """Give some columns and the examples of each row, so many rows at a time."""
        first = 0
        for frame in self.frames(columns):
            yield frame, self.examples[first : first + frame.height]
            first += frame.height


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What fitting a feature gives; it is kept in the `EncoderState` and written into the bundle."""

    vocabulary: Vocabulary | None = None
    statistics: NumberStatistics | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature(ABC):
    """One input of the model, as a config defines it."""

    name: str
    entity: Entity
    freshness: Freshness
    """nightly: of the snapshot published before the request. live: read at the request."""
    column: str
    """Column of the entity's frame, or of the request's context."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Name the raw columns that the value is computed from."""
        return (self.column,)

    @property
    @abstractmethod
    def label(self) -> str:
        """Name the kind in the list of features."""

    @property
    def source(self) -> str:
        """Say in the list of features what the value is computed from."""
        return self.column

    def fit(self, rows: FitRows, known: Fitted) -> Fitted:
        """Fit on training rows; what is `known` of earlier nights stays as it is, or grows."""
        del rows
        return known


@dataclass(frozen=True, slots=True, kw_only=True)
class IdFeature(Feature):
    """An id that is looked up in an embedding table."""

    vocabulary: str
    """Features that name the same vocabulary share numbers and one table."""
    dim: int

    @abstractmethod
    def encode(self, rows: Rows, state: EncoderState) -> np.ndarray:
        """Give each row's number, int64 [N]; 0 = unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BagFeature(Feature):
    """A list of ids; the mean of their rows of an embedding table, zeros for an empty list."""

    vocabulary: str
    dim: int

    @abstractmethod
    def encode(self, rows: Rows, state: EncoderState) -> Bag:
        """Give each row's numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberFeature(Feature):
    """Numbers that the model reads as they are."""

    @property
    def width(self) -> int:
        """Count the numbers of a row."""
        return 1

    @abstractmethod
    def encode(self, rows: Rows, state: EncoderState) -> np.ndarray:
        """Give each row's numbers [N, width], around 0 and finite; 0 for what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureKind:
    """One kind of `[[feature]]`: how it is checked, and what makes a feature of it."""

    options: type[Options]
    """The keys that it reads beside name, entity and kind."""
    define: Callable[[FeatureConfig, Any, FeaturesConfig], Feature]
    """The declared feature, its options and `[features]` -> the model's input."""
    holds: Callable[[pl.DataType], bool]
    """Whether a column of this type can be read."""
    entities: tuple[Entity, ...] = ("user", "item", "context")


def identity(declared: FeatureConfig) -> dict[str, Any]:
    """Give name, entity, freshness and column of a declared feature."""
    return {
        "name": f"{declared.entity}_{declared.name}",
        "entity": declared.entity,
        # Attributes stand as of the snapshot; what a request brings along is of the moment.
        "freshness": "live" if declared.entity == "context" else "nightly",
        "column": declared.column,
    }
