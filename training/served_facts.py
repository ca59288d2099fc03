"""Loads bundles as a server does and measures what `training.gate.as_served` asks about."""

import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from features.golden import NUM_RETRIEVED, golden_requests
from features.loading import Answering
from features.store import open_store
from recsys.bundle import Bundle, item_queries
from recsys.config import StoreConfig
from recsys.errors import BundleError
from recsys.index_recall import RecallCheck
from recsys.model.scorer import Scorer
from training.gate import ServedFacts

REQUESTS = 16
"""Golden requests that are timed."""
TURNS = 3
"""Bundles take turns: what else the machine does meets them alike."""


def served_facts(bundles: Mapping[str, Bundle]) -> dict[str, ServedFacts]:
    """Measure each bundle; name -> facts. Golden requests carry their own users: no store is read."""
    with TemporaryDirectory(prefix="recsys-served-") as empty:
        answering = {
            name: Answering.of(b, open_store(StoreConfig(), Path(empty)), Scorer)
            for name, b in bundles.items()
        }
        times: dict[str, list[float]] = {name: [] for name in bundles}
        for _ in range(TURNS):
            for name, loaded in answering.items():
                times[name] += _request_times(loaded)
        return {name: _facts(loaded, times[name]) for name, loaded in answering.items()}


def _facts(loaded: Answering[Bundle, Scorer], times: list[float]) -> ServedFacts:
    bundle = loaded.bundle
    settings, half = bundle.config.retrieval, bundle.items.height // 2
    k = max(1, min(settings.num_candidates, NUM_RETRIEVED, half))  # of all items any index finds all
    check = RecallCheck(bundle.index.embeddings_ID, item_queries(bundle), k, shares=(1.0,))
    try:
        loaded.check_golden()
        golden = None
    except BundleError as error:
        golden = str(error)
    return ServedFacts(
        golden=golden,
        index_recall=check.of(bundle.index)[1.0].recall,
        min_recall=settings.index_min_recall,
        size_bytes=sum(entry.size for entry in bundle.manifest.files.values()),
        request_ms=1000 * median(times) if times else 0.0,
    )


def _request_times(loaded: Answering[Bundle, Scorer]) -> list[float]:
    """Encode the users of golden requests, search, score what was found; processor seconds of each."""
    bundle, scorer = loaded.bundle, loaded.scorer
    k = min(bundle.config.retrieval.num_candidates, bundle.items.height)
    found = []
    for user, context in golden_requests(bundle.golden, loaded.features, REQUESTS):
        began = time.thread_time()
        side = scorer.user_side(user)
        scorer.predict(side, context, scorer.retrieve(side, k))
        found.append(time.thread_time() - began)
    return found
