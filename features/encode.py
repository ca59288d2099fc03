"""Feature values + what was fitted -> model inputs: one code for training rows and the online store."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeGuard
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from features.definitions import Cross, FeatureSet, HistoryKind, define_features
from features.history import VOID
from features.kinds.feature import NumberFeature
from features.kinds.number import Number
from features.kinds.number_block import NumberBlock
from features.kinds.rows import FrameRows, NumberColumns, OneRow, Rows, float64
from features.sequences import NEVER, EncodedEvents
from features.text import embed_text, join_text
from recsys.config import Entity, RunConfig
from recsys.encoding import EncoderState
from recsys.inputs import Bag

Columns = Mapping[str, np.ndarray]
MAX_TEXTS = 10_000
"""Texts whose vectors an encoder keeps; of a larger catalogue, the last encoded one's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One entity's inputs: ids int64 [N, C], numbers float32 [N, F], text float32 [N, T], lists [N] each."""

    ids: np.ndarray
    numbers: np.ndarray
    text: np.ndarray
    bags: tuple[Bag, ...] = ()

    def take(self, rows: np.ndarray) -> "Encoded":
        """Select rows by index."""
        return Encoded(
            ids=self.ids[rows],
            numbers=self.numbers[rows],
            text=self.text[rows],
            bags=tuple(bag.take(rows) for bag in self.bags),
        )


@dataclass(frozen=True, slots=True)
class Encoder:
    """Feature definitions plus what was fitted."""

    features: FeatureSet
    state: EncoderState
    text_columns: tuple[str, ...]
    text_dim: int
    timezone: str
    _text_of: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    """Vectors of the latest texts: of a chain's days, each encodes nearly the same catalogue."""
    _blocks: dict[str, NumberBlock] = field(default_factory=dict, init=False, repr=False)
    """Numbers that one row of an entity, or one user's rows of a cross, has."""

    @classmethod
    def from_config(cls, config: RunConfig, state: EncoderState) -> "Encoder":
        """Compile a config's features against fitted state."""
        return cls(
            define_features(config),
            state,
            config.features.text_columns,
            config.features.text_dim,
            config.timezone,
        )

    def encode(self, entity: Entity, frame: pl.DataFrame) -> Encoded:
        """Encode a snapshot's rows [N] of users, items or contexts."""
        text = self._text(frame) if entity == "item" else np.zeros((frame.height, 0), np.float32)
        return self._encode(entity, FrameRows(frame), text)

    def encode_one(self, entity: Entity, row: Mapping[str, object]) -> Encoded:
        """Encode one row read from the store or a request; absent and null values are missing values."""
        rows, text = OneRow(row), np.zeros((1, 0), np.float32)
        features = self.features.numbers_of(entity)
        numbers = self._block(entity, features).encode_row(row) if _all_numbers(features) else None
        return self._encode(entity, rows, text, numbers)

    def encode_cross(self, cross: Cross, columns: Columns, rows: int) -> np.ndarray:
        """Encode aggregates per user and item column: float32 [N + 1, F]; the last row knows of no event."""
        names = raw_columns(cross.numbers)
        known = {name: columns.get(name, np.full(rows, np.nan)) for name in names}
        padded = {name: np.append(known[name], value) for name, value in nothing_done(names).items()}
        found = NumberColumns(padded, rows + 1)
        return _side_by_side(cross.numbers, (f.encode(found, self.state) for f in cross.numbers), rows + 1)

    def encode_cross_rows(self, cross: Cross, rows: Sequence[Sequence[object]]) -> np.ndarray:
        """Encode one user's aggregates as `encode_cross` does.

        Args: rows: [N], each the item column's value and its aggregates in the order of `raw_columns`.
        """
        block = self._block(f"cross {cross.group}", cross.numbers)
        columns = slice(1, 1 + len(block.columns))
        raw = np.array(
            [*(row[columns] for row in rows), list(nothing_done(block.columns).values())], np.float64
        )
        return block.encode(raw)

    def _block(self, name: str, numbers: Sequence[Number]) -> NumberBlock:
        block = self._blocks.get(name)
        if block is None:
            block = self._blocks[name] = NumberBlock.of(numbers, self.state)
        return block

    def _encode(
        self, entity: Entity, rows: Rows, text: np.ndarray, numbers: np.ndarray | None = None
    ) -> Encoded:
        """Encode rows. Args: numbers: where they are encoded already."""
        ids = [f.encode(rows, self.state) for f in self.features.ids_of(entity)]
        if numbers is None:
            features = self.features.numbers_of(entity)
            numbers = _side_by_side(features, (f.encode(rows, self.state) for f in features), rows.size)
        return Encoded(
            ids=np.stack(ids, axis=1) if ids else np.zeros((rows.size, 0), np.int64),
            numbers=numbers,
            text=text,
            bags=tuple(f.encode(rows, self.state) for f in self.features.bags_of(entity)),
        )

    def raw_columns(self, entity: Entity) -> tuple[str, ...]:
        """Name all raw columns that an entity's features are computed from."""
        return tuple(dict.fromkeys(c for f in self.features.all if f.entity == entity for c in f.columns))

    def with_clock(self, frame: pl.DataFrame, instant: str) -> pl.DataFrame:
        """Add the context columns hour and weekday in the business time zone."""
        local = pl.col(instant).dt.convert_time_zone(self.timezone)
        return frame.with_columns(
            hour=local.dt.hour().cast(pl.String), weekday=local.dt.weekday().cast(pl.String)
        )

    def clock_of(self, at: datetime) -> dict[str, str]:
        """Give hour and weekday of one instant, as `with_clock` does for a frame."""
        local = at.astimezone(ZoneInfo(self.timezone))
        return {"hour": str(local.hour), "weekday": str(local.isoweekday())}

    def events(self, frame: pl.DataFrame) -> EncodedEvents:
        """Encode events (item_id, kind, value, received_at) in the order of the frame."""
        return EncodedEvents(
            items=self.state.vocabularies["item_id"].encode(frame["item_id"]),
            kinds=self._kinds(frame["kind"], float64(frame["value"])),
            at=frame["received_at"].dt.epoch("ms").to_numpy(),
            void=frame[VOID].dt.epoch("ms").fill_null(NEVER).to_numpy(),
        )

    def events_of(
        self, items: list[str], kinds: list[str], values: list[float | None]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encode a handful of events without building a frame (the online read): item numbers, kind codes."""
        codes = self._kinds(np.array(kinds, np.object_), np.array(values, np.float64))
        return self.state.vocabularies["item_id"].encode_few(items), codes

    @property
    def history_kinds(self) -> tuple[tuple[str, int], ...]:
        """List each kind of event in histories with the number of its codes."""
        return tuple((kind.name, self._num_codes(kind)) for kind in self.features.history)

    @property
    def num_history_kinds(self) -> int:
        """Count the kind codes of events, without 0 for none."""
        return sum(codes for _, codes in self.history_kinds)

    def _kinds(self, kinds: pl.Series | np.ndarray, values: np.ndarray) -> np.ndarray:
        """Give events [N] their kind codes: the kind's own, or that of its value's bin; 0 = not used.

        Args: values: NaN where there is none; such an event takes the middle bin.
        """
        codes = np.zeros(values.size, np.int64)
        first = 1
        for kind in self.features.history:
            mine = np.asarray(kinds == kind.name)
            edges = self._edges(kind)
            codes[mine] = first
            if edges:
                bins = np.searchsorted(edges, values[mine], side="right")
                codes[mine] += np.where(np.isnan(values[mine]), len(edges) // 2, bins)
            first += self._num_codes(kind)
        return codes

    def _num_codes(self, kind: HistoryKind) -> int:
        return len(self._edges(kind)) + 1

    def _edges(self, kind: HistoryKind) -> tuple[float, ...]:
        """Give where a kind's value is cut; nowhere if histories show the event alone."""
        return self.state.history.get(kind.name, ()) if kind.values is not None else ()

    def _text(self, items: pl.DataFrame) -> np.ndarray:
        if self.state.text is None:
            return np.zeros((items.height, self.text_dim), np.float32)
        texts = join_text(items, self.text_columns)
        fresh = [text for text in dict.fromkeys(texts) if text not in self._text_of]
        if fresh:
            vectors = embed_text(self.state.text, fresh)
            # Copies: a row that is a view would keep all rows in memory.
            self._text_of.update(zip(fresh, map(np.copy, vectors), strict=True))
        if not texts:
            return np.zeros((0, self.text_dim), np.float32)
        found = np.stack([self._text_of[text] for text in texts])
        self.forget_texts(max(MAX_TEXTS, len(texts)))
        return found

    def forget_texts(self, keep: int = 0) -> None:
        """Drop the vectors of the oldest texts, all but some; a text that comes again is embedded again."""
        surplus = len(self._text_of) - keep
        for text in list(itertools.islice(self._text_of, max(0, surplus))):
            del self._text_of[text]


def _all_numbers(features: Sequence[NumberFeature]) -> TypeGuard[Sequence[Number]]:
    """Tell whether all are of the kind `number`, which a block encodes together."""
    return all(type(feature) is Number for feature in features)


def _side_by_side(features: Sequence[NumberFeature], values: Iterable[np.ndarray], size: int) -> np.ndarray:
    """Put each feature's numbers [N, width] beside the one's before: float32 [N, F]."""
    joined = np.zeros((size, sum(f.width for f in features)), np.float32)
    start = 0
    for feature, numbers in zip(features, values, strict=True):
        joined[:, start : start + feature.width] = numbers
        start += feature.width
    return joined


def nothing_done(names: Sequence[str]) -> dict[str, float]:
    """Give aggregates of no event: counts of zero; how long ago it was stays missing."""
    return {name: np.nan if name == "hours_since_feedback" else 0.0 for name in names}


def raw_columns(numbers: Sequence[Number]) -> tuple[str, ...]:
    """Name the columns that numbers are computed from, each once."""
    return tuple(dict.fromkeys(c for f in numbers for c in f.columns))
