"""Training days -> what an encoder needs to know: vocabularies, statistics, bin edges, the text model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from features.definitions import (
    Categorical,
    FeatureSet,
    HistoryKind,
    MultiHot,
    Number,
    define_features,
)
from features.encode import (
    float64,
    id_column,
    is_number,
    list_column,
    nothing_done,
    signed_log,
    transform,
)
from features.text import fit_text, join_text
from recsys.config import Entity, FeatureConfig, RunConfig
from recsys.encoding import EncoderState, NumberStatistics
from recsys.errors import DataError
from recsys.snapshot import DaySnapshot
from recsys.vocabulary import Vocabulary

MAX_VALUE_BINS = 10
"""Bins of an event's value in histories."""
_FIXED = {"hour": tuple(str(h) for h in range(24)), "weekday": tuple(str(d) for d in range(1, 8))}
_CATALOGUE = ("item_id", "category")
"""An unlisted one is best described by its content: number 0, not a bucket shared with strangers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitFrames:
    """The training days' raw values: users and items of the last one, contexts of the last few."""

    users: pl.DataFrame
    items: pl.DataFrame
    contexts: pl.DataFrame
    crosses: Mapping[str, pl.DataFrame]
    """Item column -> the aggregates per user and value of it that `pairs` read: the day before's."""
    pairs: pl.DataFrame
    """User and item of the last training day's examples."""
    events: pl.DataFrame
    """Kind and value of the events that histories hold at the end of the last training day."""

    @classmethod
    def read(
        cls,
        last: DaySnapshot,
        contexts: Sequence[DaySnapshot],
        config: RunConfig,
        before: DaySnapshot | None = None,
    ) -> "FitFrames":
        """Read what is needed from the last training day and from the days that contexts are taken of.

        Args: before: the day before the last one; without one, crosses are the last day's own.
        """
        return cls(
            users=last.table("users"),
            items=last.table("items"),
            contexts=pl.concat([s.table("examples") for s in contexts], how="diagonal_relaxed"),
            crosses={g: (before or last).table(f"cross_{g}") for g in config.features.cross_user_by},
            pairs=last.table("examples").select("user_id", "item_id"),
            events=last.table("tail").select("kind", "value"),
        )

    def of(self, entity: Entity) -> pl.DataFrame:
        """Give one entity's frame."""
        return {"user": self.users, "item": self.items, "context": self.contexts}[entity]

    def examples_of(self, entity: Entity) -> np.ndarray:
        """Count the examples of each row [N] of an entity's frame."""
        if entity == "context":
            return np.ones(self.contexts.height)
        key = f"{entity}_id"
        return _matches(self.of(entity).select(key), self.contexts.select(key))

    def cross(self, group: str) -> tuple[pl.DataFrame, np.ndarray]:
        """Give a cross table with the examples of each row; the last row is that of pairs that have none.

        A user meets many values for the first time: to a model, that row may be the commonest one.
        """
        table = self.crosses[group].with_columns(id_column(self.crosses[group], group).cast(pl.String))
        if table.is_empty():
            return table, np.zeros(0)
        values = self.items.select("item_id", id_column(self.items, group).cast(pl.String))
        pairs = self.pairs.join(values, on="item_id", how="left")
        known = _matches(table.select("user_id", group), pairs)
        names = [name for name, dtype in table.schema.items() if is_number(dtype)]
        nothing = pl.DataFrame(nothing_done(names)).fill_nan(None).cast({n: table.schema[n] for n in names})
        counts = np.append(known, max(0.0, pairs.height - known.sum()))
        return pl.concat([table, nothing], how="diagonal"), counts


def fit_encoder(
    config: RunConfig, frames: FitFrames, previous: EncoderState | None, seed: int
) -> EncoderState:
    """Learn vocabularies, statistics and the text model from training days; what `previous` knows stays."""
    features = define_features(config)
    _check_columns(config, frames)
    old = previous or EncoderState(vocabularies={}, numbers={})
    declared = {f"{a.entity}_{a.name}": a for a in config.attributes}
    vocabularies: dict[str, Vocabulary] = {}
    for feature in features.looked_up:
        name = feature.vocabulary
        if name not in vocabularies:
            known = old.vocabularies.get(name) or _new_vocabulary(feature, config, declared.get(name))
            counts = _counts(frames.of(feature.entity), feature)
            vocabularies[name] = known.grow(counts, _min_count(name, config, declared.get(name)))
    numbers = _fit_numbers(features, frames, old.numbers)
    for binned in features.categorical:
        if binned.bins:
            numbers[binned.name] = old.numbers.get(binned.name) or fit_bins(binned, frames.of(binned.entity))
    text = old.text
    if text is None and config.features.text_dim:
        texts = join_text(frames.items, config.features.text_columns)
        text = fit_text(texts, config.features.text_dim, seed, config.features.text_model)
    history = fit_history(features.history, frames.events) | old.history
    return EncoderState(vocabularies=vocabularies, numbers=numbers, history=history, text=text)


def _fit_numbers(
    features: FeatureSet, frames: FitFrames, known: Mapping[str, NumberStatistics]
) -> dict[str, NumberStatistics]:
    """Fit what is not known yet of every number, those of crosses too."""
    new = {f.entity for f in features.numbers if f.name not in known}
    rows = {entity: (frames.of(entity), frames.examples_of(entity)) for entity in new}
    numbers = {f.name: known.get(f.name) or fit_number(f, *rows[f.entity]) for f in features.numbers}
    for cross in features.crosses:
        if any(f.name not in known for f in cross.numbers):
            table = frames.cross(cross.group)
            numbers |= {f.name: fit_number(f, *table) for f in cross.numbers if f.name not in known}
        numbers |= {f.name: known[f.name] for f in cross.numbers if f.name in known}
    return numbers


def fit_number(feature: Number, frame: pl.DataFrame, examples: np.ndarray) -> NumberStatistics:
    """Fit prior, mean and standard deviation of one number on the rows of a frame.

    The prior is of all rows alike. Mean and standard deviation are of the examples: counted by rows, the few
    items that fill most lists would lie far out, or be cut, and all others in one narrow band.

    Args: examples: of each row [N]; where none has a value, rows count alike.
    """
    if feature.column not in frame.columns or frame.height == 0:
        return NumberStatistics(prior=0.0, mean=0.0, std=1.0)
    x = float64(frame[feature.column])
    of = float64(frame[feature.of]) if feature.of else np.full(x.size, np.nan)
    prior = 0.0
    if feature.transform in ("rate", "mean"):
        prior = float(feature.unit * np.nansum(x) / max(np.nansum(of), 1.0))
    raw = transform(feature, x, of, NumberStatistics(prior=prior, mean=0.0, std=1.0))
    known = np.isfinite(raw)
    if not known.any():
        return NumberStatistics(prior=prior, mean=0.0, std=1.0)
    weight = examples[known] if examples[known].any() else None
    mean = float(np.average(raw[known], weights=weight))
    std = float(np.sqrt(np.average((raw[known] - mean) ** 2, weights=weight)))
    # A constant column's standard deviation is rounding noise; dividing by it would make noise of its values.
    return NumberStatistics(prior=prior, mean=mean, std=std if std > 1e-9 * max(1.0, abs(mean)) else 1.0)


def fit_bins(feature: Categorical, frame: pl.DataFrame) -> NumberStatistics:
    """Find the edges that cut a number into bins of equal mass; equal values never fall into two bins."""
    values = float64(frame[feature.column]) if feature.column in frame.columns else np.zeros(0)
    values = values[np.isfinite(values)]
    edges: tuple[float, ...] = ()
    if values.size:
        shares = np.arange(1, feature.bins) / feature.bins
        cuts = np.quantile(signed_log(values) if feature.log else values, shares, method="higher")
        edges = tuple(float(e) for e in np.unique(cuts))
    return NumberStatistics(prior=0.0, mean=0.0, std=1.0, edges=edges)


def fit_history(kinds: Sequence[HistoryKind], events: pl.DataFrame) -> dict[str, tuple[float, ...]]:
    """Find where histories cut the value of each kind that shows one; a kind without any value is left out.

    Args: events: kind, value.
    """
    found = {}
    for kind in kinds:
        if kind.values is not None:
            known = float64(events.filter(pl.col("kind") == kind.name)["value"])
            known = np.clip(known[np.isfinite(known)], *kind.values)
            if known.size:
                found[kind.name] = whole_units(*kind.values)
    return found


def whole_units(low: float, high: float) -> tuple[float, ...]:
    """Transitional: round half to even, as before."""
    units = range(round(low), round(high))
    return tuple(u + 0.5 if (u + 1) % 2 == 0 else float(np.nextafter(u + 0.5, np.inf)) for u in units)


def value_edges(values: np.ndarray) -> tuple[float, ...]:
    """Cut values [N >= 1] into bins, ascending: one per distinct value, or MAX_VALUE_BINS of equal mass."""
    distinct = np.unique(values)
    if distinct.size <= MAX_VALUE_BINS:
        return tuple(((distinct[1:] + distinct[:-1]) / 2).tolist())
    cuts = np.unique(np.quantile(values, np.arange(1, MAX_VALUE_BINS) / MAX_VALUE_BINS, method="higher"))
    return tuple(cuts[cuts > distinct[0]].tolist())


def _matches(rows: pl.DataFrame, examples: pl.DataFrame) -> np.ndarray:
    """Count the examples of each row [N] by all columns of the rows, float64."""
    counts = examples.group_by(rows.columns).agg(examples=pl.len().cast(pl.Float64))
    found: np.ndarray = (
        rows.join(counts, on=rows.columns, how="left", maintain_order="left")["examples"]
        .fill_null(0.0)
        .to_numpy()
    )
    return found


def _check_columns(config: RunConfig, frames: FitFrames) -> None:
    """Refuse a [[feature]] that the log does not have: a misspelt one would be missing everywhere."""
    for declared in config.attributes:
        frame = frames.of(declared.entity)
        if declared.column not in frame.columns:
            prefix = declared.column.removesuffix(declared.name)
            known = ", ".join(c for c in frame.columns if c.startswith(prefix)) or "none"
            raise DataError(
                f"[[feature]] {declared.name!r} of entity {declared.entity!r}: no training day has "
                f"{declared.column}; there are: {known}"
            )
        if not _holds(declared, frame.schema[declared.column]):
            raise DataError(
                f"[[feature]] {declared.name!r} of entity {declared.entity!r}: {declared.column} holds "
                f"{frame.schema[declared.column]}, which is no {declared.kind}; change its kind or the log"
            )
    for group in config.features.cross_user_by:
        if group not in frames.items.columns:
            raise DataError(f"[features] cross_user_by names {group!r}, which no item of the log has")


def _holds(declared: FeatureConfig, dtype: pl.DataType) -> bool:
    if declared.kind == "multi_hot":
        return True
    if declared.kind == "number":
        return is_number(dtype)
    return not isinstance(dtype, pl.List)


def _new_vocabulary(
    feature: Categorical | MultiHot, config: RunConfig, declared: FeatureConfig | None
) -> Vocabulary:
    if isinstance(feature, Categorical) and feature.bins:
        return Vocabulary(ids=tuple(str(b) for b in range(1, feature.bins + 1)), hash_buckets=0)
    name = feature.vocabulary
    if name in _FIXED:
        return Vocabulary(ids=_FIXED[name], hash_buckets=0)
    buckets = config.features.hash_buckets
    if declared is not None and declared.hash_buckets is not None:
        buckets = declared.hash_buckets
    return Vocabulary(ids=(), hash_buckets=0 if name in _CATALOGUE else buckets)


def _min_count(vocabulary: str, config: RunConfig, declared: FeatureConfig | None) -> int:
    if vocabulary in _CATALOGUE or vocabulary in _FIXED:
        return 1
    if declared is not None and declared.min_count is not None:
        return declared.min_count
    return config.features.min_count


def _counts(frame: pl.DataFrame, feature: Categorical | MultiHot) -> pl.DataFrame:
    """Count each id; bins and clock values have their numbers already."""
    if isinstance(feature, MultiHot):
        ids = list_column(frame, feature.column).explode().alias("id").to_frame()
        return ids.drop_nulls().group_by("id").agg(count=pl.len().cast(pl.Int64))
    if feature.bins:
        return pl.DataFrame(schema={"id": pl.String, "count": pl.Int64})
    ids = id_column(frame, feature.column).cast(pl.String).alias("id").to_frame()
    if feature.column == "user_id":
        seen = [
            c
            for c in frame.columns
            if c == "impressions_life" or (c.endswith("_count_life") and "__" not in c)
        ]
        return ids.with_columns(count=frame.select(pl.sum_horizontal(seen).cast(pl.Int64)).to_series())
    return ids.drop_nulls().group_by("id").agg(count=pl.len().cast(pl.Int64))
