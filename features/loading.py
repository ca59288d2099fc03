"""A bundle -> what answers requests with it: encoder, online read and scorer; for training and serving.

The scorer needs torch, which this room does without: whoever calls passes its class in.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from features.encode import Encoder
from features.golden import Scoring, check_golden
from features.online import OnlineFeatures, encode_items
from features.store import FeatureStore
from recsys.bundle import Bundle, load_bundle
from recsys.inputs import ItemInputs

S = TypeVar("S", bound=Scoring)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering(Generic[S]):
    """A bundle with all that a request needs."""

    bundle: Bundle
    encoder: Encoder
    features: OnlineFeatures
    scorer: S

    def check_golden(self) -> dict[str, float]:
        """Answer the bundle's golden requests again.

        Returns: the largest difference, the smallest share of agreeing items, the number of requests.
        Raises: BundleError when this host does not reproduce the bundle.
        """
        return check_golden(self.bundle.golden, self.scorer, self.features)


def load_answering(
    path: Path, store: FeatureStore, build_scorer: Callable[[Bundle, ItemInputs], S]
) -> Answering[S]:
    """Read a bundle, and show that this host reproduces its golden requests.

    Args: build_scorer: `recsys.model.scorer.Scorer`.
    Raises: BundleError when it is corrupt, or does not give here what it gave when it was written.
    """
    loaded = answering(load_bundle(path), store, build_scorer)
    loaded.check_golden()
    return loaded


def answering(
    bundle: Bundle, store: FeatureStore, build_scorer: Callable[[Bundle, ItemInputs], S]
) -> Answering[S]:
    """Build encoder, online read and scorer of a bundle that is in memory."""
    encoder = Encoder.from_config(bundle.config, bundle.encoder)
    snapshot_at_ms = bundle.manifest.snapshot_at_ms
    return Answering(
        bundle=bundle,
        encoder=encoder,
        features=OnlineFeatures(store, bundle.version, bundle.config, encoder, snapshot_at_ms),
        scorer=build_scorer(bundle, encode_items(encoder, bundle.items)),
    )
