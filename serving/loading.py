"""A bundle on disk -> a Model that may answer: verified, and shown to reproduce its golden requests."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from features.encode import Encoder
from features.golden import check_golden
from features.online import OnlineFeatures, encode_items
from features.store import FeatureStore
from recsys.bundle import Bundle, load_bundle
from recsys.fusion import Fusion
from recsys.model.scorer import Scorer
from serving.catalogue import Catalogue
from serving.ports import Mask, Model, Rows


def use_threads(count: int) -> None:
    """Say how many threads one scoring call may use; the rest of the machine is for other calls."""
    torch.set_num_threads(count)


def load_model(path: Path, store: FeatureStore) -> Model:
    """Load a bundle and prove that this host reproduces it.

    Raises: BundleError.
    """
    bundle = load_bundle(path)
    encoder = Encoder.from_config(bundle.config, bundle.encoder)
    as_of_ms = bundle.manifest.snapshot_at_ms
    features = OnlineFeatures(store, bundle.version, bundle.config, encoder, as_of_ms)
    scorer = BundleScorer(bundle, encoder)
    check_golden(bundle.golden, scorer, features)
    return Model(
        version=bundle.version,
        catalogue=Catalogue.from_frame(bundle.items),
        popular=dict(
            zip(bundle.popular["item_id"].to_list(), bundle.popular["score"].to_list(), strict=True)
        ),
        tasks=bundle.config.tasks,
        fusion=Fusion.from_tasks(bundle.config.tasks),
        scorer=scorer,
        features=features,
        items_as_of_ms=as_of_ms,
    )


class BundleScorer:
    """The bundle's scorer, which here also scores items that the bundle does not know.

    One more row is encoded behind the catalogue, with nothing known but that it is an item: training hides
    ids now and then, so that such a row has a meaning. Scoring new items by their content is left to a later
    issue.
    """

    def __init__(self, bundle: Bundle, encoder: Encoder) -> None:
        nothing = pl.DataFrame({"item_id": [None]}, schema={"item_id": pl.String})
        items = pl.concat([bundle.items, nothing], how="diagonal_relaxed")
        self._scorer = Scorer(bundle, encode_items(encoder, items))
        self._unknown = bundle.items.height
        self.item_embeddings: npt.NDArray[np.float32] = self._scorer.item_embeddings[: self._unknown]

    def user_side(self, user: Any) -> Any:
        """Compute once a request what does not depend on the item."""
        return self._scorer.user_side(user)

    def retrieve(self, user: Any, k: int, allowed_I: Mask | None = None) -> Rows:
        """Find at most k allowed rows, best first."""
        return self._scorer.retrieve(user, k, allowed_I)

    def similar(self, row: int, k: int, allowed_I: Mask | None = None) -> Rows:
        """Find at most k allowed rows most similar to a row, best first."""
        return self._scorer.similar(row, k, allowed_I)

    def predict(self, user: Any, context: Any, rows: Rows) -> dict[str, npt.NDArray[np.float32]]:
        """Predict each task for rows [N]; row -1 is an item that the bundle does not know."""
        return self._scorer.predict(user, context, np.where(rows < 0, self._unknown, rows))
