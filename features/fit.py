"""Training days -> what an encoder needs to know: vocabularies, statistics, bin edges, the text model."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from features.definitions import LIFETIME, ORGANIC_BASE, Cross, HistoryKind, define_features
from features.encode import nothing_done
from features.kinds import FEATURE_KINDS
from features.kinds.categorical import Categorical
from features.kinds.feature import BagFeature, Feature, FitRows, Fitted, IdFeature
from features.kinds.rows import float64, id_column, is_number
from features.log_rows import LogRows
from features.text import fit_text, join_text
from recsys.config import Entity, RunConfig
from recsys.encoding import EncoderState, NumberStatistics
from recsys.errors import DataError
from recsys.snapshot import DaySnapshot
from recsys.user_key import UserKey
from recsys.vocabulary import Vocabulary

MAX_VALUE_BINS = 10
"""Bins of an event's value in histories."""
USER_ID = "user_id"
"""The column that names a user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitFrames:
    """The training days' raw values: users and items of the last one, contexts of the last few."""

    users: pl.DataFrame
    items: pl.DataFrame
    contexts: FitRows
    """Each row is one example."""
    crosses: Mapping[str, pl.DataFrame]
    """Item column -> the aggregates per user and value of it that `pairs` read: the day before's."""
    pairs: FitRows
    """The last training day's examples."""
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

        Examples stay on disk where they are more than `[training] chunk_rows`.

        Args: before: the day before the last one; without one, crosses are the last day's own.
        """
        return cls(
            users=last.table("users"),
            items=last.table("items"),
            contexts=LogRows(contexts, config.training.chunk_rows),
            crosses={g: (before or last).table(f"cross_{g}") for g in config.features.cross_user_by},
            pairs=LogRows([last], config.training.chunk_rows),
            events=last.table("tail").select("kind", "value"),
        )

    def of(self, entity: Entity) -> pl.DataFrame:
        """Give all of one entity's raw values."""
        return self.rows_of(entity).frame

    def rows_of(self, entity: Entity) -> FitRows:
        """Give one entity's rows with the examples of each."""
        if entity == "context":
            return self.contexts
        key = f"{entity}_id"
        rows = self.users if entity == "user" else self.items
        return FitRows(rows, lambda: _matches(rows.select(key), self.contexts.frames([key])))

    def rows_of_cross(self, group: str) -> FitRows:
        """Give a cross table with the examples of each row; the last row is that of pairs that have none.

        Users often meet a value for the first time, so that row may be the most common one.
        """
        table = self.crosses[group].with_columns(id_column(self.crosses[group], group).cast(pl.String))
        if table.is_empty():
            return FitRows(table, lambda: np.zeros(0))
        values = self.items.select(*dict.fromkeys(("item_id", group)))
        values = values.with_columns(id_column(self.items, group).cast(pl.String))
        pairs = (p.join(values, on="item_id", how="left") for p in self.pairs.frames(["user_id", "item_id"]))
        known = _matches(table.select("user_id", group), pairs)
        names = [name for name, dtype in table.schema.items() if is_number(dtype)]
        nothing = pl.DataFrame(nothing_done(names)).fill_nan(None).cast({n: table.schema[n] for n in names})
        counts = np.append(known, max(0.0, self.pairs.num_rows - known.sum()))
        return FitRows(pl.concat([table, nothing], how="diagonal"), lambda: counts)


def fit_encoder(
    config: RunConfig, frames: FitFrames, previous: EncoderState | None, seed: int
) -> EncoderState:
    """Learn vocabularies, statistics and the text model from training days; what `previous` knows stays."""
    features = define_features(config)
    _check_columns(config, frames)
    old = previous or EncoderState(vocabularies={}, numbers={})
    rows: dict[Entity, FitRows] = {e: frames.rows_of(e) for e in ("user", "item", "context")}
    vocabularies: dict[str, Vocabulary] = {}
    numbers: dict[str, NumberStatistics] = {}
    for feature in features.all:
        fitted = feature.fit(rows[feature.entity], _known(feature, old))
        if fitted.statistics is not None:
            numbers[feature.name] = fitted.statistics
        if fitted.vocabulary is not None and isinstance(feature, IdFeature | BagFeature):
            vocabularies.setdefault(feature.vocabulary, fitted.vocabulary)
    for cross in features.crosses:
        numbers |= _fit_cross(cross, frames, old)
    text = old.text
    if text is None and config.features.text_dim:
        texts = join_text(frames.items, config.features.text_columns)
        text = fit_text(texts, config.features.text_dim, seed, config.features.text_model)
    history = fit_history(features.history, frames.events) | old.history
    return EncoderState(vocabularies=vocabularies, numbers=numbers, history=history, text=text)


def with_hashed_users(state: EncoderState | None, config: RunConfig, key: UserKey) -> EncoderState:
    """Let users be known by hashes of their ids: those that have numbers keep them, and all that follow.

    Args: state: what is fitted so far.
    Raises: BundleError when they are hashes of another key already.
    """
    state = state or EncoderState(vocabularies={}, numbers={})
    hashed = {
        feature.vocabulary: (
            state.vocabularies.get(feature.vocabulary)
            or Vocabulary(ids=(), hash_buckets=feature.hash_buckets)
        ).keyed(key)
        for feature in define_features(config).ids_of("user")
        if feature.column == USER_ID and isinstance(feature, Categorical)
    }
    return replace(state, vocabularies=state.vocabularies | hashed)


def _known(feature: Feature, old: EncoderState) -> Fitted:
    statistics = old.numbers.get(feature.name)
    if isinstance(feature, IdFeature | BagFeature):
        return Fitted(vocabulary=old.vocabularies.get(feature.vocabulary), statistics=statistics)
    return Fitted(statistics=statistics)


def _fit_cross(cross: Cross, frames: FitFrames, old: EncoderState) -> dict[str, NumberStatistics]:
    """Fit what is not known yet of a cross; its rows are only put together where something is new."""
    known = {f.name: old.numbers[f.name] for f in cross.numbers if f.name in old.numbers}
    if len(known) == len(cross.numbers):
        return known
    rows = frames.rows_of_cross(cross.group)
    return {f.name: known.get(f.name) or f.statistics_of(rows) for f in cross.numbers}


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
                found[kind.name] = value_edges(known)
    return found


def value_edges(values: np.ndarray) -> tuple[float, ...]:
    """Cut values [N >= 1] into bins, ascending: one per distinct value, or MAX_VALUE_BINS of equal mass."""
    distinct = np.unique(values)
    if distinct.size <= MAX_VALUE_BINS:
        return tuple(((distinct[1:] + distinct[:-1]) / 2).tolist())
    cuts = np.quantile(values, np.arange(1, MAX_VALUE_BINS) / MAX_VALUE_BINS, method="higher")
    # Where the least value is a tenth of all or more (seconds of zero), it has the first bin to itself.
    return tuple(np.unique(np.maximum(cuts, distinct[1])).tolist())


def _matches(rows: pl.DataFrame, examples: Iterable[pl.DataFrame]) -> np.ndarray:
    """Count the examples of each row [N] by all columns of the rows, float64."""
    counts = rows.head(0).with_columns(examples=pl.lit(0.0))
    for piece in examples:
        own = piece.group_by(rows.columns).agg(examples=pl.len().cast(pl.Float64))
        both = pl.concat([counts, own.select(counts.columns)], how="vertical_relaxed")
        counts = both.group_by(rows.columns).agg(pl.col("examples").sum())
    found: np.ndarray = (
        rows.join(counts, on=rows.columns, how="left", maintain_order="left")["examples"]
        .fill_null(0.0)
        .to_numpy()
    )
    return found


def _check_columns(config: RunConfig, frames: FitFrames) -> None:
    """Refuse a [[feature]] that the log does not have: a misspelt one would be missing everywhere."""
    for declared in config.attributes:
        schema = frames.rows_of(declared.entity).schema
        if declared.column not in schema:
            prefix = declared.column.removesuffix(declared.name)
            known = ", ".join(c for c in schema if c.startswith(prefix)) or "none"
            raise DataError(
                f"[[feature]] {declared.name!r} of entity {declared.entity!r}: no training day has "
                f"{declared.column}; there are: {known}"
            )
        dtype = schema[declared.column]
        if not FEATURE_KINDS[declared.kind].holds(dtype):
            raise DataError(
                f"[[feature]] {declared.name!r} of entity {declared.entity!r}: {declared.column} holds "
                f"{dtype}, which is no {declared.kind}; change its kind or the log"
            )
    base = config.features.organic_base
    if base and not frames.items[f"{ORGANIC_BASE}_{LIFETIME}"].sum():
        raise DataError(
            f"[features] organic_base = {base!r}: the training days have no feedback of this kind without an "
            "impression; name another kind, or leave the key out"
        )
    for group in config.features.cross_user_by:
        if group not in frames.items.columns:
            raise DataError(f"[features] cross_user_by names {group!r}, which no item of the log has")
