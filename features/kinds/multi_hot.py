"""Kind `multi_hot`: a list of texts; the model reads the mean of the values' rows of a table."""

from dataclasses import dataclass

import polars as pl

from features.kinds.categorical import VocabularyOptions
from features.kinds.feature import BagFeature, FeatureKind, FitRows, Fitted, identity
from features.kinds.rows import Rows, list_column
from recsys.config import FeatureConfig, FeaturesConfig
from recsys.encoding import EncoderState
from recsys.inputs import Bag
from recsys.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiHot(BagFeature):
    """A list of ids; every value of every list counts for the vocabulary."""

    min_count: int
    hash_buckets: int

    @property
    def label(self) -> str:
        """Name the kind in the list of features."""
        return "multi-hot"

    def fit(self, rows: FitRows, known: Fitted) -> Fitted:
        """Number the values that were seen often enough."""
        ids = list_column(rows.frame, self.column).explode().alias("id").to_frame()
        counts = ids.drop_nulls().group_by("id").agg(count=pl.len().cast(pl.Int64))
        vocabulary = known.vocabulary or Vocabulary(ids=(), hash_buckets=self.hash_buckets)
        return Fitted(vocabulary=vocabulary.grow(counts, self.min_count))

    def encode(self, rows: Rows, state: EncoderState) -> Bag:
        """Give each row's numbers."""
        return rows.bags(self.column, state.vocabularies[self.vocabulary])


def define(declared: FeatureConfig, options: VocabularyOptions, features: FeaturesConfig) -> MultiHot:
    """Make a feature of what a config declares."""
    return MultiHot(**identity(declared), **options.resolved(declared, features))  # type: ignore[arg-type]


# A request's context holds texts and numbers, no lists.
MULTI_HOT = FeatureKind(
    options=VocabularyOptions, define=define, holds=lambda _: True, entities=("user", "item")
)
