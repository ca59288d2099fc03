"""A bundle -> what answers requests with it: encoder, online read and scorer; for training and serving.

Bundles and scorers need torch, which this room does without: whoever calls passes both in.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import polars as pl

from features.encode import Encoder
from features.golden import Scoring, check_golden
from features.online import OnlineFeatures, encode_items
from features.store import FeatureStore
from recsys.config import RunConfig
from recsys.encoding import EncoderState
from recsys.inputs import ItemInputs


class LoadedBundle(Protocol):
    """What is asked of a bundle: `recsys.bundle.Bundle`."""

    @property
    def version(self) -> str:
        """Name the bundle."""

    @property
    def config(self) -> RunConfig:
        """Give what it holds of the config."""

    @property
    def encoder(self) -> EncoderState:
        """Give what its encoder has fitted."""

    @property
    def items(self) -> pl.DataFrame:
        """Give its catalogue."""

    @property
    def golden(self) -> pl.DataFrame:
        """Give its golden requests."""

    @property
    def snapshot_at_ms(self) -> int:
        """Give the instant as of which its nightly values stand."""


B = TypeVar("B", bound=LoadedBundle)
S = TypeVar("S", bound=Scoring)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering(Generic[B, S]):
    """A bundle with all that a request needs."""

    bundle: B
    encoder: Encoder
    features: OnlineFeatures
    scorer: S

    @classmethod
    def of(cls, bundle: B, store: FeatureStore, build_scorer: Callable[[B, ItemInputs], S]) -> Self:
        """Build encoder, online read and scorer. Args: build_scorer: `recsys.model.scorer.Scorer`."""
        encoder = Encoder.from_config(bundle.config, bundle.encoder)
        items = encode_items(encoder, bundle.items)
        encoder.forget_texts()  # the catalogue is encoded once
        return cls.around(build_scorer(bundle, items), bundle, store, encoder)

    @classmethod
    def around(cls, scorer: S, bundle: B, store: FeatureStore, encoder: Encoder) -> Self:
        """Take a scorer that has the catalogue already, and the bundle's encoder."""
        features = OnlineFeatures(store, bundle.version, bundle.config, encoder, bundle.snapshot_at_ms)
        return cls(bundle=bundle, encoder=encoder, features=features, scorer=scorer)

    def check_golden(self, mode: str = "fp32") -> dict[str, float]:
        """Answer the bundle's golden requests again; give what was compared, as `features.golden` does.

        Args: mode: the type that the scorer multiplies in, a key of `features.golden.TOLERANCE`.
        Raises: BundleError when this host does not reproduce the bundle.
        """
        return check_golden(self.bundle.golden, self.scorer, self.features, mode)
