"""Weights -> a bundle -> the online store. What a server will load is what is checked here."""

from datetime import date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from features.encode import Encoder
from features.golden import make_golden
from features.loading import Answering
from features.online import encode_items
from features.packing import num_users, pack_first_users, pack_users
from features.store import FeatureStore, StoredUser, open_store
from recsys.bundle import Bundle, BundleParts, item_queries, load_bundle, save_bundle
from recsys.calibration import Calibrator
from recsys.config import RunConfig, StoreConfig
from recsys.index_recall import NUM_QUERIES
from recsys.item_bias import no_item_bias
from recsys.log import period_end
from recsys.model.item_rows import encode_item_side
from recsys.model.scorer import Scorer
from recsys.registry import Registry
from recsys.snapshot import DaySnapshot
from recsys.source_terms import SourceTerms
from training.build_model import inputs_json
from training.item_item import item_item_table
from training.train import TrainedModel

NUM_GOLDEN = 32
NUM_POPULAR = 1000
POPULAR_DAYS = 28


def write_bundle(
    registry: Registry,
    trained: TrainedModel,
    calibration: dict[str, Calibrator],
    config: RunConfig,
    snapshot: DaySnapshot,
    parent: str | None,
    *,
    refitted: bool,
    sources: SourceTerms,
    item_bias: pl.DataFrame | None = None,
) -> str:
    """Write a bundle whose nightly values are the snapshot's; give its version.

    Args: sources: their part of the score; item_bias: what the heads miss of items; default: nothing.
    """
    encoder = Encoder.from_config(config, trained.state)
    items = snapshot.table("items")
    as_of = period_end(snapshot.day, config.timezone)
    parts = BundleParts(
        date=str(snapshot.day),
        parent=parent,
        refitted=refitted,
        config=config,
        inputs=inputs_json(trained.ranker.inputs),
        encoder=trained.state,
        calibration=calibration,
        weights=trained.weights(),
        items=items,
        item_embeddings_ID=_item_embeddings(trained, encoder, items),
        popular=popular_items(items, config, as_of),
        item_item=item_item_table(snapshot, config, items["item_id"], sources),
        sources=sources,
        item_bias=no_item_bias() if item_bias is None else item_bias,
        snapshot_at_ms=int(as_of.timestamp() * 1000),
    )
    probe = _Probe(snapshot)
    return save_bundle(registry.bundles, parts, probe.golden, probe.user_vectors, registry.write_index)


def verify_version(runs: Path, version: str) -> tuple[int, dict[str, float]]:
    """Check a version's hashes and its golden requests; give the number of files, and what was compared.

    Raises: RegistryError for an unknown version; BundleError when a file or an answer differs.
    """
    loaded = load_bundle(Registry(runs).require(version))
    # Golden requests carry their own users: an empty store will do.
    with TemporaryDirectory() as empty:
        found = Answering.of(loaded, open_store(StoreConfig(), Path(empty)), Scorer).check_golden()
    return len(loaded.manifest.files), found


def publish(store: FeatureStore, registry: Registry, version: str, snapshot: DaySnapshot) -> int:
    """Write a version's users into the store; give how many."""
    bundle = load_bundle(registry.require(version))
    encoder = Encoder.from_config(bundle.config, bundle.encoder)
    meta = {
        "version": version,
        "day": str(snapshot.day),
        "snapshot_at_ms": str(bundle.manifest.snapshot_at_ms),
    }
    return store.publish(version, pack_users(snapshot, encoder), meta, num_users(snapshot))


def popular_items(items: pl.DataFrame, config: RunConfig, as_of: datetime) -> pl.DataFrame:
    """Rank the available items by recent positives: the list of last resort."""
    window = max((w for w in config.features.window_days if w <= POPULAR_DAYS), default=None)
    task = config.retrieval_task
    name = task.name if task is not None else None
    column = (f"{name}_count" if name else "impressions") + (f"_{window}" if window else "_life")
    open_now = pl.lit(value=True)
    if "available_until" in items.columns:
        open_now = pl.col("available_until").is_null() | (pl.col("available_until") > as_of)
    return (
        items.filter(open_now)
        .select("item_id", score=pl.col(column).cast(pl.Float64).fill_null(0.0))
        .sort(["score", "item_id"], descending=[True, False])
        .head(NUM_POPULAR)
    )


def _item_embeddings(trained: TrainedModel, encoder: Encoder, items: pl.DataFrame) -> np.ndarray:
    import torch

    trained.ranker.eval()
    with torch.inference_mode():
        side = encode_item_side(trained.ranker, trained.tables.weight, encode_items(encoder, items))
    embeddings: np.ndarray = side.embedding_BD.numpy().copy()
    return embeddings


class _Probe:
    """Asks a bundle that is being written for some users of the snapshot."""

    def __init__(self, snapshot: DaySnapshot) -> None:
        self._snapshot = snapshot
        self._loaded: Answering[Bundle, Scorer] | None = None

    def user_vectors(self, bundle: Bundle) -> np.ndarray:
        """Give the vectors of the first users by id [Q, D]; with fewer users than queries, items' as well."""
        loaded, at_ms = self._answering(bundle), _answered_at_ms(bundle)
        users = pack_first_users(self._snapshot, loaded.encoder, NUM_QUERIES)
        vectors = [
            loaded.scorer.user_side(loaded.features.assemble(StoredUser(value, ()), user_id, at_ms).inputs)
            for user_id, value in users
        ]
        own = np.array([user.side.embedding_BD[0].numpy() for user in vectors], np.float32).reshape(
            -1, bundle.index.embeddings_ID.shape[1]
        )
        return np.concatenate([own, item_queries(bundle)])[:NUM_QUERIES]

    def golden(self, bundle: Bundle) -> pl.DataFrame:
        """Answer for the first users with the longest and the shortest histories, in real contexts."""
        loaded = self._answering(bundle)
        packed = pack_first_users(self._snapshot, loaded.encoder, 20 * NUM_GOLDEN)
        packed.sort(key=lambda pair: len(pair[1]))
        users = packed[: NUM_GOLDEN // 2] + packed[NUM_GOLDEN // 2 :][-NUM_GOLDEN // 2 :]
        names = [c for c in self._snapshot.scan("examples").collect_schema() if c.startswith("context_")]
        contexts = [
            {k.removeprefix("context_"): v for k, v in row.items() if v is not None}
            for row in self._snapshot.first_rows("examples", len(users), names).iter_rows(named=True)
        ]
        contexts += [{}] * (len(users) - len(contexts))
        num_items, at_ms = bundle.items.height, _answered_at_ms(bundle)
        return make_golden(loaded.scorer, loaded.features, users, contexts, num_items, at_ms)

    def _answering(self, bundle: Bundle) -> Answering[Bundle, Scorer]:
        """Encode the catalogue once: only the index differs between the calls."""
        if self._loaded is None:
            self._loaded = Answering.of(bundle, _NoStore(), Scorer)
        self._loaded.scorer.bundle = bundle
        return self._loaded


def _answered_at_ms(bundle: Bundle) -> int:
    return bundle.manifest.snapshot_at_ms + int(timedelta(hours=12).total_seconds() * 1000)


class _NoStore:
    """A store nobody may read: golden requests carry their own rows."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"golden requests must not read the store ({name})")


def evaluated_version(registry: Registry, version: str) -> str:
    """Give the version whose weights were evaluated, before the night refitted them."""
    record = registry.record(version)
    return version if record is None else record.evaluated


def champion_before(registry: Registry, night: date) -> str | None:
    """Give the version of the last night that was live before this one, also after this one went live.

    Versions made during the day are passed over: a night compares with what a night has made.
    """
    version = registry.current()
    while version is not None:
        record = registry.record(version)
        if version[:10] < str(night) and (record is None or record.known_until is None):
            return version
        version = None if record is None else record.champion
    return None
