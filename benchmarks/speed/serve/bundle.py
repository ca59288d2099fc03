"""A synthetic bundle of any size in a cache folder: two versions, their users in the store, and requests.

    CACHE/recsys-bench-serve/items-1000000-<key>/
      config.toml            the shop's config with the bench's sizes
      runs/                  bundles, registry and store, as nights write them
      ready                  written last: the versions

The weights are random, all else is real: the encoder is fitted on the snapshot, and the night's writers write
and publish. The key is a hash of the sizes and of the code that writes: a bundle of other code is not taken.
"""

import fcntl
import hashlib
import importlib
import inspect
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from benchmarks.speed.serve.snapshot import AS_OF, CATEGORIES, write_snapshot
from features.encode import Encoder
from features.fit import FitFrames, fit_encoder
from features.online import encode_items
from features.store import open_store
from features.text import fit_text, join_text
from recsys.calibration import Affine, Calibrator, Platt
from recsys.config import RunConfig
from recsys.encoding import EncoderState
from recsys.manifest import SCHEMA_VERSION
from recsys.model.item_rows import encode_item_side
from recsys.model.ranker import Ranker
from recsys.registry import Registry
from recsys.snapshot import DaySnapshot
from recsys.source_terms import NO_SOURCES
from training.build_model import build_model
from training.publish import publish, write_bundle
from training.threads import use_threads
from training.train import TrainedModel
from training.trainer.train_log import TrainLog

CONFIG: Final = Path(__file__).with_name("shop.toml")
CLOCK_START: Final = AS_OF.replace(hour=9).isoformat()
"""The server's clock: the morning after the snapshot, so that ages are as in real use."""
CALIBRATION: Final[dict[str, Calibrator]] = {
    "click": Platt(a=1.0, b=-2.5),
    "purchase": Platt(a=1.0, b=-4.0),
    "rating": Affine(scale=1.0, offset=0.0, low=1.0, high=5.0),
}
_ID_STD: Final = 0.5
"""Of trained rows of ids; a cold start's are so small that all items of a category would be one."""
_SAMPLE: Final = 20_000
_WRITERS: Final = (
    "benchmarks.speed.serve.bundle",
    "benchmarks.speed.serve.snapshot",
    "features.definitions",
    "features.encode",
    "features.fit",
    "features.golden",
    "features.packing",
    "features.store.sqlite",
    "recsys.bundle",
    "recsys.encoding",
    "recsys.fast_scan",
    "recsys.index",
    "recsys.index_recall",
    "recsys.manifest",
    "recsys.model.item_rows",
    "recsys.model.ranker",
    "recsys.vocabulary",
    "training.publish",
)
"""Modules whose code decides what lies in the cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large the synthetic shop is."""

    items: int = 1_000_000
    seed: int = 0

    @property
    def users(self) -> int:
        """Count the users in the store; each has a history and seen items."""
        return max(200, self.items // 50)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticShop:
    """What the bench serves; the folder is not changed after it was made."""

    folder: Path
    sizes: Sizes
    versions: tuple[str, str]
    build_s: float
    """Seconds that it took to make, in the run that made it."""
    cached: bool

    @property
    def config(self) -> Path:
        """Give the config's file."""
        return self.folder / "config.toml"

    @property
    def runs(self) -> Path:
        """Give the RUNS folder."""
        return self.folder / "runs"

    def user(self, number: int) -> str:
        """Name a user that the store knows."""
        return f"u{number % self.sizes.users}"


def synthetic_shop(sizes: Sizes, cache: Path | None = None) -> SyntheticShop:
    """Give the shop from the cache; make it first where it is not there, and remove its predecessors.

    Args: cache: default `$XDG_CACHE_HOME/recsys-bench-serve`. Another process that makes it is waited for.
    """
    place = cache or _cache_folder()
    place.mkdir(parents=True, exist_ok=True)
    folder = place / f"items-{sizes.items}-{_key(sizes)}"
    with _locked(place / f"items-{sizes.items}.lock"):
        if found := _read(folder, sizes, cached=True):
            return found
        for old in place.glob(f"items-{sizes.items}-*"):
            shutil.rmtree(old)
        print(f"making a bundle of {sizes.items:,} items in {folder}", file=sys.stderr, flush=True)
        _make(folder, sizes)
        found = _read(folder, sizes, cached=False)
    assert found is not None
    return found


def _make(folder: Path, sizes: Sizes) -> None:
    began = time.perf_counter()
    folder.mkdir()
    shutil.copyfile(CONFIG, folder / "config.toml")
    config = shop_config()
    use_threads(1)  # its products are small: beside other jobs, several threads wait for each other
    snapshot = write_snapshot(folder / "snapshot", config, sizes.items, sizes.users, sizes.seed)
    state = _fit(config, snapshot)
    registry = Registry(folder / "runs")
    versions: list[str] = []
    for seed in (sizes.seed, sizes.seed + 1):
        model = _random_model(config, state, snapshot, seed)
        parent = versions[-1] if versions else None
        version = write_bundle(
            registry, model, CALIBRATION, config, snapshot, parent, refitted=False, sources=NO_SOURCES
        )
        versions.append(version)
    with closing(open_store(config.store, folder / "runs")) as store:
        publish(store, registry, versions[0], snapshot)
        store.publish_same(versions[1], versions[0])
    shutil.rmtree(folder / "snapshot")
    said = {"versions": versions, "build_s": time.perf_counter() - began}
    (folder / "ready").write_text(json.dumps(said))


def shop_config() -> RunConfig:
    """Read the bench's config."""
    from features.definitions import read_config

    return read_config(CONFIG)


def _fit(config: RunConfig, snapshot: DaySnapshot) -> EncoderState:
    """Fit the encoder as a night does, the text model on a part of the items."""
    texts = join_text(snapshot.table("items").head(_SAMPLE), config.features.text_columns)
    text = fit_text(texts, config.features.text_dim, config.training.seed)
    known = EncoderState(vocabularies={}, numbers={}, text=text)
    return fit_encoder(config, FitFrames.read(snapshot, [snapshot], config), known, config.training.seed)


def _random_model(config: RunConfig, state: EncoderState, snapshot: DaySnapshot, seed: int) -> TrainedModel:
    """Draw weights; items of a category lie near each other, and embeddings spread around zero."""
    training = config.training.model_copy(update={"seed": seed})
    torch.manual_seed(seed)
    ranker, tables = build_model(config.model_copy(update={"training": training}), state)
    draw = torch.Generator().manual_seed(seed)
    for name in ("item_id", "user_id"):
        rows = tables.weight[name]
        rows.normal_(0.0, _ID_STD, generator=draw)
    items = snapshot.table("items", columns=["item_id", "category"])
    numbers = state.vocabularies["item_id"].encode(items["item_id"])
    category = state.vocabularies["category"].encode(items["category"])
    dim = tables.weight["item_id"].shape[1]
    centres = torch.randn(state.vocabularies["category"].size, dim, generator=draw) * _ID_STD
    tables.weight["item_id"][torch.from_numpy(numbers)] += centres[torch.from_numpy(category)]
    ranker.eval()
    _centre(ranker, tables.weight, Encoder.from_config(config, state), snapshot)
    return TrainedModel(ranker=ranker, tables=tables, state=state, log=TrainLog())


@torch.inference_mode()
def _centre(ranker: Ranker, tables: dict[str, torch.Tensor], encoder: Encoder, snapshot: DaySnapshot) -> None:
    """Take the mean of the item tower's outputs out of its bias: a trained tower spreads around zero."""
    side = encode_item_side(ranker, tables, encode_items(encoder, snapshot.table("items").head(_SAMPLE)))
    outputs = ranker.item_tower(side.input_BI) + ranker.item_factor(side.id_BD)
    ranker.item_tower[-1].bias -= outputs.mean(dim=0)


def _cache_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "recsys-bench-serve"


def _key(sizes: Sizes) -> str:
    sources = [inspect.getsource(importlib.import_module(name)) for name in _WRITERS]
    said = [SCHEMA_VERSION, asdict(sizes), CATEGORIES, np.__version__, CONFIG.read_text(), *sources]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12]


def _read(folder: Path, sizes: Sizes, *, cached: bool) -> SyntheticShop | None:
    try:
        said = json.loads((folder / "ready").read_text())
    except FileNotFoundError:
        return None
    first, second = said["versions"]
    return SyntheticShop(
        folder=folder, sizes=sizes, versions=(first, second), build_s=said["build_s"], cached=cached
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
