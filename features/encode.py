"""Feature values + what was fitted -> model inputs. One code fills training rows and reads the online store.

Rows travel as columns of numpy arrays: a snapshot frame of a million users and one user read from the store
go through the same few vectorised lines, so training and serving cannot differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from features.definitions import HISTORY_AGE_BUCKETS, FeatureSet, Number, define_features
from features.text import embed_text, fit_text, join_text
from recsys.config import Entity, RunConfig
from recsys.encoding import EncoderState, NumberStatistics
from recsys.errors import DataError
from recsys.vocabulary import Vocabulary

SHRINKAGE = 20.0
"""Rates and means of few observations move towards the overall one as if this many had been seen of it."""
CLIP = 5.0
"""Standardised numbers are cut here: one absurd counter must not own the first layer."""

Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One entity's inputs: ids int64 [N, C], numbers float32 [N, F], text float32 [N, T]."""

    ids: np.ndarray
    numbers: np.ndarray
    text: np.ndarray

    def take(self, rows: np.ndarray) -> "Encoded":
        """Select rows by index."""
        return Encoded(ids=self.ids[rows], numbers=self.numbers[rows], text=self.text[rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedEvents:
    """Events in order: item numbers int64, kind codes int64 (0 = not used), received_at int64 ms; all [E]."""

    items: np.ndarray
    kinds: np.ndarray
    at: np.ndarray


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
        ids = [
            self.state.vocabularies[f.vocabulary].encode(_column(frame, f.column))
            for f in self.features.categorical_of(entity)
        ]
        columns = {name: _float64(frame[name]) for name in frame.columns if _is_number(frame.schema[name])}
        text = self._text(frame) if entity == "item" else np.zeros((frame.height, 0), np.float32)
        return Encoded(
            ids=np.stack(ids, axis=1) if ids else np.zeros((frame.height, 0), np.int64),
            numbers=self._numbers(entity, columns, frame.height),
            text=text,
        )

    def encode_one(self, entity: Entity, row: Mapping[str, object]) -> Encoded:
        """Encode one row read from the store or a request; absent and null values are missing values."""
        ids = [
            self.state.vocabularies[f.vocabulary].encode_one(_text_or_none(row.get(f.column)))
            for f in self.features.categorical_of(entity)
        ]
        columns = {
            name: np.array([np.nan if row.get(name) is None else row[name]], np.float64)
            for name in self.number_columns(entity)
            if not isinstance(row.get(name), str)
        }
        return Encoded(
            ids=np.array([ids], np.int64).reshape(1, len(ids)),
            numbers=self._numbers(entity, columns, 1),
            text=np.zeros((1, 0), np.float32),
        )

    def number_columns(self, entity: Entity) -> tuple[str, ...]:
        """Name the raw columns that an entity's numbers are computed from."""
        names = [c for f in self.features.numbers_of(entity) for c in (f.column, f.of) if c]
        return tuple(dict.fromkeys(names))

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
            kinds=self._kinds(frame),
            at=frame["received_at"].dt.epoch("ms").to_numpy(),
        )

    def events_of(
        self, items: list[str], kinds: list[str], values: list[float | None]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encode a handful of events without building a frame (the online read): item numbers, kind codes."""
        number = self.state.vocabularies["item_id"].encode_one
        codes = [self.kind_code(kind, value) for kind, value in zip(kinds, values, strict=True)]
        return np.array([number(item) for item in items], np.int64), np.array(codes, np.int64)

    def kind_code(self, kind: str, value: float | None) -> int:
        """Give an event's kind code; a value is rounded to its whole step; 0 = not used."""
        known = self.features.history_kinds
        steps = [int(k.split("=")[1]) for k in known if k.startswith(f"{kind}=")]
        if steps:
            middle = (steps[0] + steps[-1]) / 2
            step = round(min(max(middle if value is None else value, steps[0]), steps[-1]))
            kind = f"{kind}={step}"
        return known.index(kind) + 1 if kind in known else 0

    def _kinds(self, frame: pl.DataFrame) -> np.ndarray:
        pairs = frame.select("kind", "value").unique()
        codes = [self.kind_code(kind, value) for kind, value in pairs.iter_rows()]
        coded = pairs.with_columns(code=pl.Series(codes, dtype=pl.Int64))
        joined = frame.select("kind", "value").join(
            coded, on=["kind", "value"], how="left", nulls_equal=True, maintain_order="left"
        )
        found: np.ndarray = joined["code"].to_numpy()
        return found

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

    def _numbers(self, entity: Entity, columns: Columns, rows: int) -> np.ndarray:
        features = self.features.numbers_of(entity)
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


def transform(feature: Number, x: np.ndarray, of: np.ndarray, statistics: NumberStatistics) -> np.ndarray:
    """Apply one number's transform to float64 columns [N]; missing stays NaN."""
    if feature.transform == "log":
        value: np.ndarray = np.sign(x) * np.log1p(np.abs(x))
        return value
    if feature.transform == "rate":
        p = (x + SHRINKAGE * statistics.prior) / (of + SHRINKAGE)
        # Feedback can outnumber impressions (organic, late): the logit needs its argument inside (0, 1).
        p = np.clip(p, 1e-6, 1 - 1e-6)
        logit: np.ndarray = np.log(p) - np.log1p(-p)
        return logit
    if feature.transform == "mean":
        mean: np.ndarray = (0.5 * x + SHRINKAGE * statistics.prior) / (of + SHRINKAGE)
        return mean
    return x


def history_slices(
    start: np.ndarray, stop: np.ndarray, length: int, shown_at: np.ndarray, events: EncodedEvents
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gather each row's events, newest first, padded with kind 0.

    Args: start, stop, shown_at (ms): [B]. Returns: items, kinds, age buckets, each int64 [B, L].
    """
    positions = stop.astype(np.int64)[:, None] - 1 - np.arange(length)
    valid = positions >= start[:, None]
    if events.items.size == 0:
        empty = np.zeros(positions.shape, np.int64)
        return empty, empty, empty
    positions = np.where(valid, positions, 0)
    kinds = np.where(valid, events.kinds[positions], 0)
    items = np.where(kinds > 0, events.items[positions], 0)
    ages = np.where(kinds > 0, age_buckets(shown_at[:, None] - events.at[positions]), 0)
    return items, kinds, ages


def age_buckets(age_ms: np.ndarray) -> np.ndarray:
    """Map ages in milliseconds to powers of two minutes."""
    minutes = np.maximum(age_ms, 0) // 60_000
    buckets: np.ndarray = np.minimum(np.frexp(minutes.astype(np.float64))[1], HISTORY_AGE_BUCKETS - 1).astype(
        np.int64
    )
    return buckets


def fit_encoder(
    config: RunConfig,
    users: pl.DataFrame,
    items: pl.DataFrame,
    contexts: pl.DataFrame,
    previous: EncoderState | None,
    seed: int,
) -> EncoderState:
    """Learn vocabularies, statistics and the text model from training days; what `previous` knows stays.

    Args: users, items: the last training snapshot's rows; contexts: the training rows' contexts.
    """
    features = define_features(config)
    frames: dict[Entity, pl.DataFrame] = {"user": users, "item": items, "context": contexts}
    _check_columns(config, frames)
    old = previous or EncoderState(vocabularies={}, numbers={})
    vocabularies: dict[str, Vocabulary] = {}
    for feature in features.categorical:
        if feature.vocabulary not in vocabularies:
            known = old.vocabularies.get(feature.vocabulary) or _new_vocabulary(feature.vocabulary, config)
            counts = _counts(frames[feature.entity], feature.column)
            vocabularies[feature.vocabulary] = known.grow(counts, _min_count(feature.vocabulary, config))
    numbers = {f.name: old.numbers.get(f.name) or fit_number(f, frames[f.entity]) for f in features.numbers}
    text = old.text
    if text is None and config.features.text_dim:
        text = fit_text(join_text(items, config.features.text_columns), config.features.text_dim, seed)
    return EncoderState(vocabularies=vocabularies, numbers=numbers, text=text)


def _check_columns(config: RunConfig, frames: Mapping[Entity, pl.DataFrame]) -> None:
    """Refuse a [[feature]] that the log does not have: a misspelt one would be missing everywhere."""
    for declared in config.attributes:
        frame = frames[declared.entity]
        if declared.column not in frame.columns:
            prefix = declared.column.removesuffix(declared.name)
            known = ", ".join(c for c in frame.columns if c.startswith(prefix)) or "none"
            raise DataError(
                f"[[feature]] {declared.name!r} of entity {declared.entity!r}: no training day has "
                f"{declared.column}; there are: {known}"
            )
        dtype = frame.schema[declared.column]
        if isinstance(dtype, pl.List) or (declared.kind == "number" and not _is_number(dtype)):
            raise DataError(
                f"[[feature]] {declared.name!r} of entity {declared.entity!r}: {declared.column} holds "
                f"{dtype}, which is no {declared.kind}; change its kind or the log"
            )


def fit_number(feature: Number, frame: pl.DataFrame) -> NumberStatistics:
    """Fit prior, mean and standard deviation of one number on the rows of a frame."""
    if feature.column not in frame.columns or frame.height == 0:
        return NumberStatistics(prior=0.0, mean=0.0, std=1.0)
    x = _float64(frame[feature.column])
    of = _float64(frame[feature.of]) if feature.of else np.full(x.size, np.nan)
    prior = 0.0
    if feature.transform in ("rate", "mean"):
        scale = 0.5 if feature.transform == "mean" else 1.0
        prior = float(scale * np.nansum(x) / max(np.nansum(of), 1.0))
    raw = transform(feature, x, of, NumberStatistics(prior=prior, mean=0.0, std=1.0))
    known = raw[np.isfinite(raw)]
    if known.size == 0:
        return NumberStatistics(prior=prior, mean=0.0, std=1.0)
    mean, std = float(known.mean()), float(known.std())
    # A constant column's standard deviation is rounding noise; dividing by it would make noise of its values.
    return NumberStatistics(prior=prior, mean=mean, std=std if std > 1e-9 * max(1.0, abs(mean)) else 1.0)


def _new_vocabulary(name: str, config: RunConfig) -> Vocabulary:
    if name == "hour":
        return Vocabulary(ids=tuple(str(h) for h in range(24)), hash_buckets=0)
    if name == "weekday":
        return Vocabulary(ids=tuple(str(d) for d in range(1, 8)), hash_buckets=0)
    # An unlisted item is best described by its content: its number is 0, not a bucket shared with strangers.
    return Vocabulary(
        ids=(), hash_buckets=0 if name in ("item_id", "category") else config.features.hash_buckets
    )


def _min_count(vocabulary: str, config: RunConfig) -> int:
    return 1 if vocabulary in ("item_id", "category", "hour", "weekday") else config.features.min_count


def _counts(frame: pl.DataFrame, column: str) -> pl.DataFrame:
    ids = _column(frame, column).cast(pl.String).alias("id").to_frame()
    if column == "user_id":
        seen = [
            c
            for c in frame.columns
            if c == "impressions_life" or (c.endswith("_count_life") and "__" not in c)
        ]
        return ids.with_columns(count=frame.select(pl.sum_horizontal(seen).cast(pl.Int64)).to_series())
    return ids.drop_nulls().group_by("id").agg(count=pl.len().cast(pl.Int64))


def _column(frame: pl.DataFrame, name: str) -> pl.Series:
    """Give ids as text; 1, 1.0 and "1" are one id, whichever form a log or a request has them in."""
    if name not in frame.columns:
        return pl.Series(name, [None] * frame.height, dtype=pl.String)
    column = frame[name]
    if not _is_number(column.dtype):
        return column
    return column.cast(pl.Float64).cast(pl.String).str.strip_suffix(".0")


def _is_number(dtype: pl.DataType) -> bool:
    return dtype.is_numeric() or dtype == pl.Boolean


def _float64(column: pl.Series) -> np.ndarray:
    values: np.ndarray = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return values


def _text_or_none(value: object) -> str | None:
    if isinstance(value, int | float):
        value = _column(pl.DataFrame({"id": [float(value)]}), "id")[0]
    return None if value is None else str(value)
