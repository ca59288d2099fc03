"""A prepared version answers as the bundle does; damage, a full disk and older code's folders are noticed."""

import gc
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features.store import FeatureStore, open_store
from recsys.bundle import load_bundle
from recsys.config import StoreConfig
from recsys.errors import BundleError
from recsys.log import InteractionLog
from recsys.registry import Registry
from recsys.user_key import FILE
from serving.devices import ON_CPU
from serving.loading import load_model
from serving.prepared import child
from serving.prepared.listing import LISTING, _state, is_as_listed
from serving.prepared.loader import PreparedLoader
from serving.prepared.prepare import ITEM_BIAS
from serving.served_model import ServedModel


@pytest.fixture
def source(night: Path, tmp_path: Path) -> Path:
    registry = Registry(night / "runs")
    copied = shutil.copytree(registry.path(str(registry.current())), tmp_path / "bundle")
    shutil.copy(night / "runs" / FILE, tmp_path)
    return Path(copied)


@pytest.fixture
def store(night: Path) -> FeatureStore:
    return open_store(StoreConfig(), night / "runs")


@pytest.fixture
def loader(tmp_path: Path) -> PreparedLoader:
    return PreparedLoader(tmp_path / "cache", ON_CPU)


def predictions(model: ServedModel) -> dict[str, np.ndarray]:
    rows = np.arange(len(model.catalogue))
    side = model.scorer.user_side(model.features.user("stranger", 0).inputs)
    return model.scorer.predict(side, model.features.context({}, 0), rows)


def test_a_prepared_version_is_the_bundle_and_is_mapped(source, store, loader, tmp_path) -> None:
    model, plain = loader(source, store), load_model(source, store)
    assert predictions(model).keys() == predictions(plain).keys()
    for task, values in predictions(model).items():
        np.testing.assert_array_equal(values, predictions(plain)[task])
    rows = np.arange(len(plain.catalogue))
    assert [model.catalogue.item(row) for row in rows] == [plain.catalogue.item(row) for row in rows]
    np.testing.assert_array_equal(model.popular.scores(rows), plain.popular.scores(rows))
    np.testing.assert_array_equal(model.item_bias, plain.item_bias)
    np.testing.assert_array_equal(model.times_shown, plain.times_shown)
    assert plain.times_shown.max() > 50, "the shop shows an item that often"
    mapped = Path("/proc/self/maps").read_text()
    for name in (
        "weights.safetensors",
        "item_embeddings.safetensors",
        "0.values.npy",
        "ids.blob.npy",
        "packed.npy",
    ):
        assert f"/{name}\n" in mapped
    folder = model.files.path
    assert not loader(source, store).files.is_new
    del model
    gc.collect()
    loader._cache.collect()
    assert not folder.exists(), "nobody uses it any more"


def test_an_item_has_the_bias_that_the_bundle_says_by_its_id(source, store) -> None:
    model, known = load_model(source, store), load_bundle(source).item_bias
    assert known.height
    for item_id, bias in known.iter_rows():
        row = model.catalogue.row_of(item_id)
        if row >= 0:
            assert model.item_bias[row] == np.float32(bias)
    assert np.count_nonzero(model.item_bias) > 0.5 * known.height


def test_a_folder_of_before_the_biases_is_prepared_again(source, store, loader, tmp_path) -> None:
    folder = loader(source, store).files.path
    gc.collect()
    (folder / ITEM_BIAS).unlink()
    (folder / LISTING).write_text(json.dumps(_state(folder)))
    model = PreparedLoader(tmp_path / "cache", ON_CPU)(source, store)
    assert model.item_bias.size == model.catalogue.num_in_bundle


def test_large_vocabularies_are_mapped(source, store, loader, monkeypatch) -> None:
    monkeypatch.setattr("recsys.vocabulary._MAX_DICT", 10)
    model, plain = loader(source, store), load_model(source, store)
    for task, values in predictions(model).items():
        np.testing.assert_array_equal(values, predictions(plain)[task])
    assert "vocabularies/item_id/blob.npy" in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("most_in_dict", [10, 10_000])
def test_users_are_found_by_the_key_above_the_bundle(
    night, source, store, loader, monkeypatch, most_in_dict
) -> None:
    monkeypatch.setattr("recsys.vocabulary._MAX_DICT", most_in_dict)
    bundle = load_bundle(source)
    key, known = bundle.encoder.vocabularies["user_id"].key, bundle.encoder.vocabularies["user_id"]
    assert key is not None
    log = InteractionLog(night / "log")
    users = [*log.read("impressions", log.days("impressions")[0])["user_id"].unique(), "stranger"]
    encoder = loader(source, store).features.encoder.state.vocabularies["user_id"]
    found = encoder.encode_few(users)
    assert (found >= known.num_reserved).sum() > 10
    np.testing.assert_array_equal(found, known.encode_few(users))
    os.unlink(source.parent / FILE)
    with pytest.raises(
        BundleError, match=f"bundle has users hashed with the key {key.name}, and .*{FILE} is not"
    ):
        loader(source, store)


def test_a_damaged_file_is_found_while_it_is_copied_and_nothing_stays(source, store, loader) -> None:
    with (source / "weights.safetensors").open("r+b") as weights:
        weights.seek(1_000)
        weights.write(b"\xff\xfe")
    with pytest.raises(
        BundleError, match=r"bundle/weights\.safetensors differs from its manifest .*; restore the bundle"
    ):
        loader(source, store)
    assert not [path for path in loader._cache._folder.iterdir() if path.suffix != ".lock"]


@pytest.mark.parametrize(
    ("change", "problem"),
    {
        "longer": (
            lambda p: (p / "popular.parquet").write_bytes(b"longer" * 10_000),
            "popular.parquet differs from",
        ),
        "missing": (lambda p: (p / "popular.parquet").unlink(), "popular.parquet is missing"),
        "link": (
            lambda p: ((p / "index.faiss").rename(p.parent / "i"), (p / "index.faiss").symlink_to("../i")),
            "index.faiss is missing or is not a plain file",
        ),
        "unknown": (lambda p: (p / "notes.txt").touch(), "does not name: notes.txt"),
    }.values(),
)
def test_only_the_bundles_own_files_are_copied(source, store, loader, change, problem) -> None:
    change(source)
    with pytest.raises(BundleError) as refused:
        loader(source, store)
    assert problem in str(refused.value)


def test_a_full_disk_is_an_error_that_says_so_and_nothing_stays(source, store, loader) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for size in (1 << 10, 40 << 10):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
            with pytest.raises(
                BundleError, match=r"cannot be prepared in .*; free the disk, or name another"
            ):
                loader(source, store)
            assert not [path for path in loader._cache._folder.iterdir() if path.suffix != ".lock"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert loader(source, store).files.is_new


def test_a_prepared_version_that_does_not_reproduce_its_golden_requests_is_prepared_again(
    source, store, loader
) -> None:
    """As after an upgrade that computes something else, or a disk's silent fault."""
    folder = loader(source, store).files.path
    golden = folder / "bundle" / "golden.parquet"
    frame = pl.read_parquet(golden)
    wrong = pl.col("prediction_click").list.eval(pl.element() + 0.5)
    frame.with_columns(prediction_click=wrong).write_parquet(golden)
    (folder / LISTING).write_text(json.dumps(_state(folder)))
    with pytest.raises(BundleError, match="does not reproduce the bundle"):
        loader(source, store)  # what this code has prepared fails without more ado
    os.utime(folder / LISTING, (1, 1))
    model = loader(source, store)
    assert model.files.is_new
    assert not loader(source, store).files.is_new


def test_the_childs_own_lines_prepare_and_say_what_went_wrong(source, tmp_path, monkeypatch, capsys) -> None:
    """In this process: a child would spend seconds on importing torch."""
    folders = [str(source), str(tmp_path / "new"), str(tmp_path / "final")]
    monkeypatch.setattr(sys, "argv", ["-c", *folders, "urgent"])
    exec(child._START, {})
    assert is_as_listed(tmp_path / "final")
    (source / "popular.parquet").write_bytes(b"")
    shutil.rmtree(tmp_path / "final")
    with pytest.raises(SystemExit, match="3"):
        exec(child._START, {})
    said = json.loads(capsys.readouterr().out)
    assert said["disk"] is None
    assert "popular.parquet differs from its manifest" in said["error"]


@pytest.mark.slow
def test_a_child_prepares_what_is_large(source, store, loader, monkeypatch) -> None:
    monkeypatch.setattr(child, "_SMALL_BYTES", 0)
    monkeypatch.setattr("serving.prepared.prepare.copy_verified", None)  # of this process
    model, plain = loader(source, store), load_model(source, store)
    for task, values in predictions(model).items():
        np.testing.assert_array_equal(values, predictions(plain)[task])


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="only Linux has it")
def test_a_child_beside_a_serving_process_yields_to_all() -> None:
    lines = "import os; from serving.prepared import process; "
    lines += "process._take_one_thread(); process._yield_to_all(); "
    lines += "print(os.sched_getscheduler(0) == os.SCHED_IDLE, os.nice(0), os.environ['POLARS_MAX_THREADS'])"
    said = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True).stdout
    assert said == "True 19 1\n"
