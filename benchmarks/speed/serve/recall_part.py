"""Part of `recsys bench serve`: what the bundle's index finds of its users' nearest items, and forbids."""

from contextlib import closing
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from benchmarks.speed.serve.bundle import SyntheticShop
from benchmarks.speed.serve.recall import forbidden_ids, recall_by_selectivity
from benchmarks.speed.serve.session import Session
from features.loading import Answering
from features.store import open_store
from recsys.bundle import load_bundle
from recsys.config import StoreConfig
from recsys.model.scorer import Scorer
from recsys.registry import Registry

QUERIES: Final = 128


def measure_recall(session: Session) -> dict[str, Any]:
    """Search the index with the vectors of the shop's users, by share of the items that pass."""
    index, queries_QD = _index_and_users(session.shop)
    fuzzed = forbidden_ids(session.asked.searches)
    return {
        "recall": recall_by_selectivity(index, queries_QD, k=min(500, session.shop.sizes.items // 2)),
        "forbidden_ids": fuzzed.forbidden,
        "forbidden_ids_searches": asdict(fuzzed),
    }


def _index_and_users(shop: SyntheticShop) -> tuple[Any, np.ndarray]:
    """Load the first version; give its index and unit vectors [Q, D] of users."""
    bundle = load_bundle(Registry(shop.runs).require(shop.versions[0]))
    at_ms = bundle.snapshot_at_ms
    # A copy of the store's folder is not needed: users are read, nothing is written.
    with closing(open_store(StoreConfig(), shop.runs)) as store:
        answering = Answering.of(bundle, store, Scorer)
        sides = [
            answering.scorer.user_side(answering.features.user(shop.user(n), at_ms).inputs).side
            for n in range(min(QUERIES, shop.sizes.users))
        ]
    return bundle.index, np.concatenate([side.embedding_BD.numpy() for side in sides])
