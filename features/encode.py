"""Feature values + what was fitted -> model inputs. One code fills training rows and reads the online store.

Rows travel as columns of numpy arrays: a snapshot frame of a million users and one user read from the store
go through the same few vectorised lines, so training and serving cannot differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from features.definitions import (
    Categorical,
    Cross,
    FeatureSet,
    HistoryKind,
    MultiHot,
    Number,
    define_features,
)
from features.history import VOID
from features.sequences import NEVER, EncodedEvents
from features.text import embed_text, join_text
from recsys.config import Entity, RunConfig
from recsys.encoding import EncoderState, NumberStatistics
from recsys.inputs import Bag

SHRINKAGE = 20.0
"""Rates and means of few observations move towards the overall one as if this many had been seen of it."""
CLIP = 5.0
"""Standardised numbers are cut here: one absurd counter must not own the first layer."""

Columns = Mapping[str, np.ndarray]


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
    """Vectors of texts already seen: the same catalogue is encoded once per day of a chain."""

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
        ids = [self._ids(f, frame) for f in self.features.categorical_of(entity)]
        text = self._text(frame) if entity == "item" else np.zeros((frame.height, 0), np.float32)
        return Encoded(
            ids=np.stack(ids, axis=1) if ids else np.zeros((frame.height, 0), np.int64),
            numbers=self._numbers(self.features.numbers_of(entity), number_arrays(frame), frame.height),
            text=text,
            bags=tuple(self._bag(f, frame) for f in self.features.multi_hot_of(entity)),
        )

    def encode_one(self, entity: Entity, row: Mapping[str, object]) -> Encoded:
        """Encode one row read from the store or a request; absent and null values are missing values."""
        ids = [self._id_of(f, row.get(f.column)) for f in self.features.categorical_of(entity)]
        bags = [
            np.array(
                [self.state.vocabularies[f.vocabulary].encode_one(v) for v in _values_of(row.get(f.column))],
                np.int64,
            )
            for f in self.features.multi_hot_of(entity)
        ]
        columns = one_row(row, self.number_columns(entity))
        return Encoded(
            ids=np.array([ids], np.int64).reshape(1, len(ids)),
            numbers=self._numbers(self.features.numbers_of(entity), columns, 1),
            text=np.zeros((1, 0), np.float32),
            bags=tuple(Bag(values, np.array([0, values.size])) for values in bags),
        )

    def encode_cross(self, cross: Cross, columns: Columns, rows: int) -> np.ndarray:
        """Encode aggregates per user and item column: float32 [N + 1, F]; the last row knows of no event."""
        names = raw_columns(cross.numbers)
        known = {name: columns.get(name, np.full(rows, np.nan)) for name in names}
        padded = {name: np.append(known[name], value) for name, value in nothing_done(names).items()}
        return self._numbers(cross.numbers, padded, rows + 1)

    def number_columns(self, entity: Entity) -> tuple[str, ...]:
        """Name the raw columns that an entity's numbers are computed from."""
        return raw_columns(self.features.numbers_of(entity))

    def raw_columns(self, entity: Entity) -> tuple[str, ...]:
        """Name all raw columns that an entity's features are computed from."""
        looked_up = [f.column for f in self.features.looked_up if f.entity == entity]
        return tuple(dict.fromkeys([*looked_up, *self.number_columns(entity)]))

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
        number = self.state.vocabularies["item_id"].encode_one
        codes = self._kinds(np.array(kinds, np.object_), np.array(values, np.float64))
        return np.array([number(item) for item in items], np.int64), codes

    @property
    def num_history_kinds(self) -> int:
        """Count the kind codes of events, without 0 for none."""
        return sum(self._num_codes(kind) for kind in self.features.history)

    def _kinds(self, kinds: pl.Series | np.ndarray, values: np.ndarray) -> np.ndarray:
        """Give events [N] their kind codes: the kind's own, or that of its value's bin; 0 = not used.

        Args: values: NaN where there is none; such an event takes the middle bin.
        """
        codes = np.zeros(values.size, np.int64)
        first = 1
        for kind in self.features.history:
            mine = np.asarray(kinds == kind.name)
            edges = self._edges(kind)
            bins = np.searchsorted(edges, values[mine], side="right")
            codes[mine] = first + np.where(np.isnan(values[mine]), len(edges) // 2, bins)
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
            self._text_of.update(zip(fresh, embed_text(self.state.text, fresh), strict=True))
        if not texts:
            return np.zeros((0, self.text_dim), np.float32)
        return np.stack([self._text_of[text] for text in texts])

    def _ids(self, feature: Categorical, frame: pl.DataFrame) -> np.ndarray:
        if feature.bins:
            values = number_arrays(frame.select(feature.column)) if feature.column in frame.columns else {}
            return self._bin(feature, values.get(feature.column, np.full(frame.height, np.nan)))
        return self.state.vocabularies[feature.vocabulary].encode(id_column(frame, feature.column))

    def _id_of(self, feature: Categorical, value: object) -> int:
        if feature.bins:
            columns = one_row({feature.column: value}, (feature.column,))
            return int(self._bin(feature, columns.get(feature.column, np.array([np.nan])))[0])
        return self.state.vocabularies[feature.vocabulary].encode_one(_text_or_none(value))

    def _bin(self, feature: Categorical, values: np.ndarray) -> np.ndarray:
        """Map numbers [N] to bins 1 ... B; a missing value is bin 0."""
        edges = np.array(self.state.numbers[feature.name].edges)
        cut = np.searchsorted(edges, signed_log(values) if feature.log else values, side="right") + 1
        bins: np.ndarray = np.where(np.isnan(values), 0, cut).astype(np.int64)
        return bins

    def _bag(self, feature: MultiHot, frame: pl.DataFrame) -> Bag:
        lists = list_column(frame, feature.column)
        lengths = lists.list.len().fill_null(0).to_numpy()
        values = lists.filter(lists.list.len().fill_null(0) > 0).explode()
        return Bag(
            self.state.vocabularies[feature.vocabulary].encode(values),
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        )

    def _numbers(self, features: Sequence[Number], columns: Columns, rows: int) -> np.ndarray:
        result = np.zeros((rows, len(features)), np.float32)
        missing = np.full(rows, np.nan)
        for i, feature in enumerate(features):
            statistics = self.state.numbers[feature.name]
            raw = transform(
                feature, columns.get(feature.column, missing), columns.get(feature.of, missing), statistics
            )
            scaled = np.clip((raw - statistics.mean) / statistics.std, -CLIP, CLIP)
            result[:, i] = np.nan_to_num(scaled, nan=0.0)
        return result


def nothing_done(names: Sequence[str]) -> dict[str, float]:
    """Give aggregates of no event: counts of zero; how long ago it was stays missing."""
    return {name: np.nan if name == "hours_since_feedback" else 0.0 for name in names}


def raw_columns(numbers: Sequence[Number]) -> tuple[str, ...]:
    """Name the columns that numbers are computed from, each once."""
    return tuple(dict.fromkeys(c for f in numbers for c in (f.column, f.of) if c))


def transform(feature: Number, x: np.ndarray, of: np.ndarray, statistics: NumberStatistics) -> np.ndarray:
    """Apply one number's transform to float64 columns [N]; missing stays NaN."""
    if feature.transform == "log":
        return signed_log(x)
    if feature.transform == "rate":
        p = (x + SHRINKAGE * statistics.prior) / (of + SHRINKAGE)
        # Feedback can outnumber impressions (repeated, late): the logit needs its argument inside (0, 1).
        p = np.clip(p, 1e-6, 1 - 1e-6)
        logit: np.ndarray = np.log(p) - np.log1p(-p)
        return logit
    if feature.transform == "mean":
        mean: np.ndarray = (feature.unit * x + SHRINKAGE * statistics.prior) / (of + SHRINKAGE)
        return mean
    return x


def id_column(frame: pl.DataFrame, name: str) -> pl.Series:
    """Give ids as text; 1, 1.0 and "1" are one id, whichever form a log or a request has them in."""
    if name not in frame.columns:
        return pl.Series(name, [None] * frame.height, dtype=pl.String)
    column = frame[name]
    if not is_number(column.dtype):
        return column
    return column.cast(pl.Float64).cast(pl.String).str.strip_suffix(".0")


def is_number(dtype: pl.DataType) -> bool:
    """Tell whether a column holds numbers."""
    return dtype.is_numeric() or dtype == pl.Boolean


def float64(column: pl.Series) -> np.ndarray:
    """Give a number column as float64; missing is NaN."""
    values: np.ndarray = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return values


def _text_or_none(value: object) -> str | None:
    if isinstance(value, int | float):
        value = id_column(pl.DataFrame({"id": [float(value)]}), "id")[0]
    return None if value is None else str(value)


def list_column(frame: pl.DataFrame, name: str) -> pl.Series:
    """Give lists of text; an absent column is all nulls, a single value is a list of one."""
    if name not in frame.columns:
        return pl.Series(name, [None] * frame.height, dtype=pl.List(pl.String))
    column = frame[name]
    if column.dtype == pl.List:
        return column.cast(pl.List(pl.String))
    single = id_column(frame, name).cast(pl.String)
    return pl.select(pl.when(single.is_not_null()).then(pl.concat_list(single))).to_series()


def _values_of(value: object) -> list[str]:
    if isinstance(value, list | tuple):
        return [str(v) for v in value]
    single = _text_or_none(value)
    return [] if single is None else [single]


def number_arrays(frame: pl.DataFrame) -> dict[str, np.ndarray]:
    """Give a frame's number columns as float64 arrays; missing is NaN."""
    return {name: float64(frame[name]) for name in frame.columns if is_number(frame.schema[name])}


def one_row(row: Mapping[str, object], columns: Sequence[str]) -> dict[str, np.ndarray]:
    """Give the named numbers of one row as arrays [1], as `number_arrays` does for a frame."""
    return {
        name: np.array([np.nan if row.get(name) is None else row[name]], np.float64)
        for name in columns
        if not isinstance(row.get(name), str)
    }


def signed_log(x: np.ndarray) -> np.ndarray:
    """Give sign(x)·log(1 + |x|)."""
    value: np.ndarray = np.sign(x) * np.log1p(np.abs(x))
    return value
