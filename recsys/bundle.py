"""A bundle: everything a server needs, one version, one hash. No pickle, nothing from the clock or the host.

    manifest.json                what follows, with sizes and SHA-256; its own hash is the version's
    weights.safetensors          ranker weights, tables with optimiser state
    item_embeddings.safetensors  e_item by item row
    index.faiss                  the same vectors, searchable
    items.parquet                the catalogue with nightly values, in the order of the item rows
    item_item.safetensors        what each item says for others, where the log tells of any
    item_bias.parquet            item_id and bias: what the heads miss of an item, where anything is counted
    popular.parquet              item_id and score, best first: the answer when nothing else works
    golden.parquet               requests whose answers a server must reproduce before it is ready
    encoder.json, vocabularies/, text.safetensors, text_terms.parquet   what the encoder has fitted

It names no user: golden requests have neither id nor number, vocabularies hold hashes of users' ids, with a
key that is not in it (`recsys.user_key`). Hashes are checked before any parser sees a byte.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from recsys.calibration import Calibrator
from recsys.config import RunConfig, build_fusion, parse_config
from recsys.config_view import values, view
from recsys.encoding import EncoderState
from recsys.errors import BundleError
from recsys.files import sync_folder
from recsys.index import DEFAULT_FACTOR, ItemIndex
from recsys.index_recall import NUM_QUERIES, tune_index
from recsys.item_bias import no_item_bias
from recsys.item_item.neighbours import ItemItem
from recsys.manifest import (
    SCHEMA_VERSION,
    FileEntry,
    Manifest,
    read_manifest,
    sha256_of,
    verify_files,
    version_of,
)
from recsys.mapped_tensors import map_tensors
from recsys.records import IndexRecord
from recsys.scratch import scratch_folder
from recsys.source_terms import NO_SOURCES, SourceTerms
from recsys.stage_files import sync_tree
from recsys.stages import SCRATCH, disk_failure
from recsys.user_key import find_user_key
from recsys.vocabulary import FindKey, Vocabulary

CONFIG_KEYS = (
    "timezone",
    "period",
    "tasks",
    "attributes",
    "features",
    "model",
    "retrieval",
    "item_item",
    "policy.repeat",
    "policy.repeat_kinds",
    "policy.max_per_category",
    "policy.max_repeats",
    "policy.mmr",
    "training.max_days",
    "chosen",
)
"""What a bundle holds of the config: all that using and evaluating it needs, and nothing of host, store or
gate."""
_ITEM_ITEM = "item_item.safetensors"
_ITEM_BIAS = "item_bias.parquet"
_TOGETHER = "together.safetensors"
"""What bundles of schema version 7 have instead: neighbours, best first, without weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A verified bundle in memory."""

    path: Path
    manifest: Manifest
    config: RunConfig
    encoder: EncoderState
    weights: dict[str, np.ndarray]
    items_in_memory: pl.DataFrame | None
    index: ItemIndex
    popular: pl.DataFrame
    item_item: ItemItem | None
    """What each item of the catalogue says for others; None: nothing is known of any."""
    item_bias: pl.DataFrame = field(default_factory=no_item_bias)
    """What the heads miss of items, as `recsys.item_bias` says."""

    @property
    def items(self) -> pl.DataFrame:
        """Give the catalogue with nightly values; it is read anew each time where the bundle is mapped."""
        if self.items_in_memory is not None:
            return self.items_in_memory
        return pl.read_parquet(self.path / "items.parquet")

    @property
    def version(self) -> str:
        """Name the bundle: date and hash."""
        return self.manifest.version

    @property
    def snapshot_at_ms(self) -> int:
        """Give the instant as of which the nightly values stand."""
        return self.manifest.snapshot_at_ms

    @property
    def golden(self) -> pl.DataFrame:
        """Read the golden requests."""
        return pl.read_parquet(self.path / "golden.parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleParts:
    """What a bundle is made of before it has a version."""

    date: str
    parent: str | None
    refitted: bool
    config: RunConfig
    inputs: dict[str, Any]
    encoder: EncoderState
    calibration: dict[str, Calibrator]
    weights: dict[str, np.ndarray]
    items: pl.DataFrame
    item_embeddings_ID: np.ndarray
    popular: pl.DataFrame
    snapshot_at_ms: int
    item_item: ItemItem | None = None
    """What each item says for others; None: nothing is known of any."""
    sources: SourceTerms = NO_SOURCES
    """The sources' part of the score."""
    item_bias: pl.DataFrame = field(default_factory=no_item_bias)
    """What the heads miss of items."""


def item_queries(bundle: Bundle) -> np.ndarray:
    """Give vectors of the bundle's own items as queries, the same ones each time: [Q, D]."""
    vectors = bundle.index.embeddings_ID
    chosen: np.ndarray = vectors[np.linspace(0, vectors.shape[0] - 1, NUM_QUERIES, dtype=np.int64)]
    return chosen


def save_bundle(
    folder: Path,
    parts: BundleParts,
    make_golden: Callable[[Bundle], pl.DataFrame],
    make_queries: Callable[[Bundle], np.ndarray] = item_queries,
    on_index: Callable[[str, IndexRecord], None] = lambda _version, _record: None,
) -> str:
    """Write a bundle into `folder/<version>` and return the version; the same parts give the same version.

    Args: make_golden: computes the golden requests with the bundle as a server would load it; make_queries:
    gives users' vectors [Q, D], by which a compressed index is tuned; on_index: gets the version and what its
    index costs, which is no part of it.
    Raises: BundleError when the disk is full, or the index finds less than `[retrieval] index_min_recall`.
    """
    try:
        with scratch_folder(folder, SCRATCH) as own:
            return _save(folder, own, parts, make_golden, make_queries, on_index)
    except (OSError, SafetensorError, pl.exceptions.PolarsError) as error:
        reason = disk_failure(error)
        if reason is None:
            raise
        raise BundleError(
            f"cannot write the bundle to {folder}: {reason}; free the disk and run again: nothing "
            "was published"
        ) from error


def _save(
    folder: Path,
    own: Path,
    parts: BundleParts,
    make_golden: Callable[[Bundle], pl.DataFrame],
    make_queries: Callable[[Bundle], np.ndarray],
    on_index: Callable[[str, IndexRecord], None],
) -> str:
    """Write a bundle in a folder of this process, and move it to its place when it is whole."""
    built = own / "bundle"
    built.mkdir()
    start = time.process_time()
    index = ItemIndex.build(parts.item_embeddings_ID, parts.config.retrieval.exact_items)
    build_s = time.process_time() - start
    _write_files(built, parts, index)
    draft = _assemble(built, _manifest(built, parts, index.summary()))
    tuned = tune_index(index, lambda: make_queries(draft), parts.config.retrieval)
    make_golden(replace(draft, index=tuned.index)).write_parquet(built / "golden.parquet")
    manifest = _manifest(built, parts, tuned.summary())
    (built / "manifest.json").write_text(manifest.model_dump_json(indent=1) + "\n")
    sync_tree(built)
    target = folder / manifest.version
    if not is_sound(target):
        if target.exists():
            os.replace(target, own / "damaged")
        os.replace(built, target)
        sync_folder(folder)
    on_index(manifest.version, tuned.record(build_s, manifest.files["index.faiss"].size))
    return manifest.version


def load_bundle(path: Path) -> Bundle:
    """Verify a bundle and read it.

    Raises: BundleError.
    """
    manifest = read_manifest(path)
    verify_files(path, manifest)
    return _assemble(path, manifest)


def is_sound(path: Path) -> bool:
    """Say whether a bundle is there and its files are as its manifest says; all of them are read."""
    try:
        verify_files(path, read_manifest(path))
    except BundleError:
        return False
    return True


def read_bundle(path: Path, find_key: FindKey = find_user_key) -> Bundle:
    """Read a bundle whose files have been verified, and that nobody else can have changed since.

    Args: find_key: finds the key of its users' hashes.
    Raises: BundleError.
    """
    return _assemble(path, read_manifest(path), find_key)


def map_bundle(path: Path, encoder: EncoderState) -> Bundle:
    """Open a bundle as `read_bundle` does, but map its arrays: processes of one host share them.

    Args: encoder: the bundle's; its vocabularies may be mapped likewise.
    Raises: BundleError.
    """
    manifest = read_manifest(path)
    try:
        weights = map_tensors(path / "weights.safetensors")
        embeddings = map_tensors(path / "item_embeddings.safetensors")["item_embeddings"]
        popular = pl.read_parquet(path / "popular.parquet")
        item_item = _read_item_item(path, manifest, map_tensors)
    except (OSError, KeyError, ValueError, pl.exceptions.PolarsError) as error:
        raise BundleError(f"{path} cannot be read ({error}); remove it, and it is prepared again") from error
    index = ItemIndex.load(path / "index.faiss", embeddings, *_tuned(manifest), mapped=True)
    return _bundle(path, manifest, encoder, weights, None, index, popular, item_item)


def _assemble(path: Path, manifest: Manifest, find_key: FindKey = find_user_key) -> Bundle:
    try:
        weights = load_file(path / "weights.safetensors")
        embeddings = load_file(path / "item_embeddings.safetensors")["item_embeddings"]
        items, popular = pl.read_parquet(path / "items.parquet"), pl.read_parquet(path / "popular.parquet")
        item_item = _read_item_item(path, manifest, load_file)
    except (OSError, KeyError, SafetensorError, pl.exceptions.PolarsError) as error:
        raise BundleError(f"{path} cannot be read ({error}); restore the bundle") from error
    if items.height != embeddings.shape[0]:
        raise BundleError(
            f"{path}: {items.height} items but {embeddings.shape[0]} embeddings; rebuild the bundle"
        )
    index = ItemIndex.load(path / "index.faiss", embeddings, *_tuned(manifest))
    encoder = EncoderState.load(path, partial(Vocabulary.load, find_key=find_key))
    return _bundle(path, manifest, encoder, weights, items, index, popular, item_item)


def _read_item_item(
    path: Path, manifest: Manifest, read: Callable[[Path], dict[str, np.ndarray]]
) -> ItemItem | None:
    if _ITEM_ITEM in manifest.files:
        return ItemItem(**read(path / _ITEM_ITEM))
    if _TOGETHER in manifest.files:
        return _without_weights(read(path / _TOGETHER)["together"])
    return None


def _without_weights(neighbours_IK: np.ndarray) -> ItemItem:
    """Weigh neighbours that are in order alone by their place: 1, 1/2, 1/3 and so on."""
    by_place = 1.0 / np.arange(1, neighbours_IK.shape[1] + 1, dtype=np.float32)
    return ItemItem(
        neighbours=neighbours_IK,
        weights=np.where(neighbours_IK >= 0, by_place, np.float32(0)).astype(np.float32),
    )


def _tuned(manifest: Manifest) -> tuple[int, float, float]:
    """Give how far a search looks: the factor, and the share of the lists with a filter and without."""
    made = manifest.index
    lists = float(made.get("lists", 1.0))
    return int(made.get("factor", DEFAULT_FACTOR)), lists, float(made.get("wide_lists", lists))


def _bundle(
    path: Path,
    manifest: Manifest,
    encoder: EncoderState,
    weights: dict[str, np.ndarray],
    items: pl.DataFrame | None,
    index: ItemIndex,
    popular: pl.DataFrame,
    item_item: ItemItem | None,
) -> Bundle:
    config = parse_config(manifest.config, str(path / "manifest.json"), in_use=True)
    return Bundle(
        path=path,
        manifest=manifest,
        config=view(config, "the user of a bundle", CONFIG_KEYS),
        encoder=encoder,
        weights=weights,
        items_in_memory=items,
        index=index,
        popular=popular,
        item_item=item_item,
        item_bias=pl.read_parquet(path / _ITEM_BIAS) if _ITEM_BIAS in manifest.files else no_item_bias(),
    )


def _write_files(folder: Path, parts: BundleParts, index: ItemIndex) -> None:
    save_file({k: np.ascontiguousarray(v) for k, v in parts.weights.items()}, folder / "weights.safetensors")
    save_file({"item_embeddings": index.embeddings_ID}, folder / "item_embeddings.safetensors")
    index.save(folder / "index.faiss")
    parts.items.write_parquet(folder / "items.parquet")
    parts.popular.write_parquet(folder / "popular.parquet")
    if parts.item_bias.height:
        parts.item_bias.write_parquet(folder / _ITEM_BIAS)
    if (table := parts.item_item) is not None:
        arrays = {"neighbours": table.neighbours, "weights": table.weights}
        save_file({name: np.ascontiguousarray(v) for name, v in arrays.items()}, folder / _ITEM_ITEM)
    parts.encoder.save(folder)


def _manifest(folder: Path, parts: BundleParts, index: dict[str, Any]) -> Manifest:
    names = sorted(
        str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json"
    )
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        version="",
        date=parts.date,
        parent=parts.parent,
        refitted=parts.refitted,
        config=values(view(parts.config, "a bundle", CONFIG_KEYS)),
        inputs=parts.inputs,
        vocabularies=parts.encoder.digest(),
        calibration=parts.calibration,
        fusion=build_fusion(parts.config.tasks, parts.config.fusion).with_sources(parts.sources),
        index=index,
        tensors={k: (str(v.dtype), tuple(v.shape)) for k, v in sorted(parts.weights.items())},
        snapshot_at_ms=parts.snapshot_at_ms,
        files={n: FileEntry(size=(folder / n).stat().st_size, sha256=sha256_of(folder / n)) for n in names},
    )
    return manifest.model_copy(update={"version": version_of(manifest)})
