"""Kind `categorical`: an id that is looked up in a table of its own."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from pydantic import Field

from features.kinds.feature import FeatureKind, FitRows, Fitted, IdFeature, Options, identity
from features.kinds.rows import Rows, id_column
from recsys.config import FeatureConfig, FeaturesConfig
from recsys.encoding import EncoderState
from recsys.vocabulary import Vocabulary


class VocabularyOptions(Options):
    """Options of what is looked up."""

    dim: int = Field(default=8, ge=1, le=256)
    """Columns of the table."""
    min_count: int | None = Field(default=None, ge=1)
    """Values seen less often share hash buckets; default: [features] min_count."""
    hash_buckets: int | None = Field(default=None, ge=0)
    """Buckets of rare and unlisted values; default: [features] hash_buckets."""

    def resolved(self, declared: FeatureConfig, features: FeaturesConfig) -> dict[str, int | str]:
        """Give the vocabulary's name and settings, with the defaults of `[features]`."""
        return {
            "vocabulary": f"{declared.entity}_{declared.name}",
            "dim": self.dim,
            "min_count": features.min_count if self.min_count is None else self.min_count,
            "hash_buckets": features.hash_buckets if self.hash_buckets is None else self.hash_buckets,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Categorical(IdFeature):
    """An id looked up in an embedding table."""

    min_count: int
    hash_buckets: int
    ids: tuple[str, ...] = ()
    """Ids that have a number before any day is read."""
    counted_by: tuple[str, ...] = ()
    """Columns whose sum says how often a row's id was seen; empty: once a row."""

    @property
    def label(self) -> str:
        """Name the kind in the list of features."""
        return "categorical"

    def fit(self, rows: FitRows, known: Fitted) -> Fitted:
        """Number the ids that were seen often enough."""
        vocabulary = known.vocabulary or Vocabulary(ids=self.ids, hash_buckets=self.hash_buckets)
        counts = [self._counts(frame) for frame in rows.frames((self.column, *self.counted_by))]
        if len(counts) > 1:
            counts = [pl.concat(counts).group_by("id").agg(pl.col("count").sum())]
        return Fitted(vocabulary=vocabulary.grow(counts[0], self.min_count))

    def encode(self, rows: Rows, state: EncoderState) -> np.ndarray:
        """Give each row's number, int64 [N]; 0 = unknown."""
        return rows.ids(self.column, state.vocabularies[self.vocabulary])

    def _counts(self, frame: pl.DataFrame) -> pl.DataFrame:
        ids = id_column(frame, self.column).cast(pl.String).alias("id").to_frame()
        if self.counted_by:
            seen = [c for c in self.counted_by if c in frame.columns]
            return ids.with_columns(count=frame.select(pl.sum_horizontal(seen).cast(pl.Int64)).to_series())
        return ids.drop_nulls().group_by("id").agg(count=pl.len().cast(pl.Int64))


def define(declared: FeatureConfig, options: VocabularyOptions, features: FeaturesConfig) -> Categorical:
    """Make a feature of what a config declares."""
    return Categorical(**identity(declared), **options.resolved(declared, features))  # type: ignore[arg-type]


CATEGORICAL = FeatureKind(
    options=VocabularyOptions, define=define, holds=lambda dtype: not isinstance(dtype, pl.List)
)
