"""Bundles: what was written is what is read, or it is refused before a parser sees it."""

import errno
import hashlib
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from safetensors.numpy import save_file

from recsys import index as index_module
from recsys import index_recall
from recsys import manifest as manifest_module
from recsys.bundle import CONFIG_KEYS, BundleParts, load_bundle, map_bundle, save_bundle
from recsys.calibration import Isotonic, Platt
from recsys.config import build_fusion, parse_config
from recsys.config_view import UndeclaredKeyError, values, view
from recsys.encoding import EncoderState, NumberStatistics, TextModel
from recsys.errors import BundleError
from recsys.item_item.neighbours import ItemItem
from recsys.manifest import OLDEST_READ, SCHEMA_VERSION, FileEntry, read_manifest
from recsys.source_terms import SourceTerms
from recsys.vocabulary import Vocabulary

ROOMS = ("recsys", "features", "training", "serving", "protos")


@pytest.fixture
def parts(config):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(7, 4)).astype(np.float32)
    return BundleParts(
        date="2026-01-05",
        parent="2026-01-04-abc",
        refitted=True,
        config=config,
        inputs={"user_tables": [["user_id", "user_id", 6]], "user_numbers": [["age", 3]]},
        encoder=EncoderState(
            vocabularies={
                "item_id": Vocabulary(ids=("a", "ü"), hash_buckets=0),
                "hour": Vocabulary(ids=(), hash_buckets=3),
            },
            numbers={"price": NumberStatistics(prior=0.1, mean=1 / 3, std=2.5)},
            text=TextModel(
                terms=("red", "shoe"),
                idf=np.array([1.5, 2.5], np.float32),
                components=np.eye(2, dtype=np.float32),
            ),
        ),
        calibration={"click": Platt(a=1 / 3, b=-0.1), "rating": Isotonic(x=(1.0, 2.0), y=(1.5, 3.0))},
        weights={
            "table.item_id.weight": rng.normal(size=(3, 4)).astype(np.float32),
            "ranker.n": np.zeros((), np.int64),
        },
        items=pl.DataFrame({"item_id": list("abcdefg"), "price": range(7)}),
        item_embeddings_ID=vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        popular=pl.DataFrame({"item_id": ["b"], "score": [2.0]}),
        snapshot_at_ms=1_767_657_600_000,
    )


def _golden(bundle):
    return pl.DataFrame({"user": [bundle.items.height]})


@pytest.fixture
def path(parts, tmp_path):
    return tmp_path / "bundles" / save_bundle(tmp_path / "bundles", parts, _golden)


def test_a_round_trip_keeps_every_part(path, parts):
    bundle = load_bundle(path)
    assert bundle.version == path.name
    assert values(bundle.config) == values(view(parts.config, "a test", CONFIG_KEYS))
    with pytest.raises(UndeclaredKeyError, match="the user of a bundle reads the config key serving"):
        bundle.config.serving  # noqa: B018
    assert bundle.manifest.calibration == parts.calibration
    assert bundle.manifest.inputs == parts.inputs
    assert (bundle.manifest.parent, bundle.manifest.refitted) == (parts.parent, True)
    assert bundle.encoder.vocabularies == parts.encoder.vocabularies
    assert bundle.encoder.numbers == parts.encoder.numbers
    assert bundle.encoder.text.terms == parts.encoder.text.terms
    np.testing.assert_array_equal(bundle.encoder.text.idf, parts.encoder.text.idf)
    assert set(bundle.weights) == set(parts.weights)
    for name, value in parts.weights.items():
        np.testing.assert_array_equal(bundle.weights[name], value)
        assert bundle.weights[name].dtype == value.dtype
    np.testing.assert_array_equal(bundle.index.embeddings_ID, parts.item_embeddings_ID)
    assert bundle.index.search(parts.item_embeddings_ID[3], 1, None).tolist() == [3]
    assert_frame_equal(bundle.items, parts.items)
    assert_frame_equal(bundle.popular, parts.popular)
    assert bundle.golden["user"].to_list() == [7]


def test_the_same_parts_make_the_same_version_and_the_same_bytes(path, parts, tmp_path):
    version = save_bundle(tmp_path / "elsewhere", parts, _golden)
    assert version == path.name
    for file in (p for p in path.rglob("*") if p.is_file()):
        assert (tmp_path / "elsewhere" / version / file.relative_to(path)).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    "change", [{"date": "2026-01-06"}, {"refitted": False}, {"weights": {}}, {"snapshot_at_ms": 1}]
)
def test_other_parts_make_another_version(path, parts, tmp_path, change):
    import dataclasses

    assert save_bundle(tmp_path / "b", dataclasses.replace(parts, **change), _golden) != path.name


def test_a_bundle_holds_no_clock_host_or_path(path, tmp_path):
    text = (path / "manifest.json").read_text()
    assert str(tmp_path) not in text
    assert os.uname().nodename not in text or len(os.uname().nodename) < 4


def _files(path):
    return sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())


def test_every_file_is_in_the_manifest(path):
    assert _files(path) == sorted([*read_manifest(path).files, "manifest.json"])
    assert len(_files(path)) == 12


FILES = (
    "weights.safetensors",
    "item_embeddings.safetensors",
    "index.faiss",
    "items.parquet",
    "popular.parquet",
    "golden.parquet",
    "encoder.json",
    "vocabularies/item_id.parquet",
    "text.safetensors",
    "text_terms.parquet",
)


@pytest.mark.parametrize("name", FILES)
def test_one_changed_byte_in_any_file(path, name):
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{re.escape(name)} differs from its manifest"):
        load_bundle(path)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(path, name):
    (path / name).unlink()
    with pytest.raises(BundleError, match=rf"{re.escape(name)} is missing"):
        load_bundle(path)


@pytest.mark.parametrize("name", ["extra", "vocabularies/extra", ".hidden", "new/deep/file"])
def test_an_unknown_file(path, name):
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_text("")
    with pytest.raises(BundleError, match=rf"files its manifest does not name: {re.escape(name)}"):
        load_bundle(path)


def test_links_are_refused(path, tmp_path):
    original = path / "weights.safetensors"
    shutil.move(original, tmp_path / "outside")
    original.symlink_to(tmp_path / "outside")
    with pytest.raises(BundleError, match="not a plain file"):
        load_bundle(path)


def test_a_linked_folder_is_refused(path, tmp_path):
    shutil.move(path / "vocabularies", tmp_path / "outside")
    (path / "vocabularies").symlink_to(tmp_path / "outside")
    with pytest.raises(BundleError):
        load_bundle(path)


def test_a_linked_manifest_is_refused(path, tmp_path):
    shutil.move(path / "manifest.json", tmp_path / "outside")
    (path / "manifest.json").symlink_to(tmp_path / "outside")
    with pytest.raises(BundleError, match="is a link"):
        load_bundle(path)


def _rewrite(path, change):
    data = json.loads((path / "manifest.json").read_text())
    change(data)
    (path / "manifest.json").write_text(json.dumps(data))


def test_a_path_that_leaves_the_bundle(path, tmp_path):
    """Even a manifest whose own hash was recomputed may not name files outside."""
    from recsys import manifest as module

    (tmp_path / "secret").write_text("x")
    manifest = read_manifest(path)
    entry = manifest.files["items.parquet"]
    for name in ("../../secret", str(tmp_path / "secret")):
        files = {**manifest.files, name: entry}
        forged = manifest.model_copy(update={"files": files})
        forged = forged.model_copy(update={"version": module.version_of(forged)})
        (path / "manifest.json").write_text(forged.model_dump_json())
        with pytest.raises(BundleError, match="not a plain file inside the bundle"):
            load_bundle(path)


def test_a_newer_schema_says_upgrade(path):
    _rewrite(path, lambda data: data.update(schema_version=SCHEMA_VERSION + 1, something_new=1))
    with pytest.raises(BundleError, match=rf"schema version {SCHEMA_VERSION + 1}.*upgrade"):
        load_bundle(path)


def test_an_older_schema_asks_for_a_new_night(tmp_path, parts):
    path = tmp_path / save_bundle(tmp_path, parts, _golden)
    _rewrite(path, lambda data: data.update(schema_version=OLDEST_READ - 1))
    with pytest.raises(BundleError, match=rf"schema version {OLDEST_READ - 1}.*run the night again"):
        read_manifest(path)


def test_the_manifest_carries_the_fusion(tmp_path, parts, make_config):
    section = {"formula": "multiplicative", "weights": {"click": 2.0}, "offsets": {"click": 0.1}}
    tuned = replace(parts, config=make_config(fusion=section))
    manifest = read_manifest(tmp_path / save_bundle(tmp_path, tuned, _golden))
    assert manifest.fusion == build_fusion(tuned.config.tasks, tuned.config.fusion)
    assert manifest.fusion.terms["click"].offset == 0.1
    _rewrite(tmp_path / manifest.version, lambda data: data["fusion"].update(formula="harmonic"))
    with pytest.raises(
        BundleError, match=r"not a manifest \(fusion\.formula: 'harmonic' is no fusion formula"
    ):
        read_manifest(tmp_path / manifest.version)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(version="2026-01-05-000000000000"),
        lambda data: data.update(refitted=False),
        lambda data: data["config"].update(timezone="Asia/Shanghai"),
        lambda data: data["calibration"]["click"].update(a=2.0),
        lambda data: data["files"]["index.faiss"].update(size=0),
    ],
)
def test_a_changed_manifest_is_not_its_version(path, change):
    _rewrite(path, change)
    with pytest.raises(BundleError, match="was changed"):
        load_bundle(path)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"schema_version": "x"}', "\x00", "{" * 2000])
def test_what_is_no_manifest(path, text):
    (path / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"manifest\.json is not a manifest"):
        load_bundle(path)


def test_an_oversized_manifest_is_not_parsed(path):
    with (path / "manifest.json").open("r+b") as stream:
        stream.truncate(17 << 20)
    with pytest.raises(BundleError, match="over 16777216 bytes"):
        load_bundle(path)


def test_a_folder_that_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match=r"is not a bundle: No such file"):
        load_bundle(tmp_path)


def test_a_broken_copy_is_replaced_by_writing_again(path, parts):
    (path / "popular.parquet").write_bytes(b"broken")
    save_bundle(path.parent, parts, _golden)
    assert load_bundle(path).popular.height == 1


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt()])
def test_a_bundle_that_was_not_finished_is_not_there(parts, tmp_path, error):
    def golden(_):
        raise error

    with pytest.raises(type(error)):
        save_bundle(tmp_path / "bundles", parts, golden)
    assert list((tmp_path / "bundles").iterdir()) == []


def test_a_full_disk_publishes_nothing(parts, tmp_path):
    def golden(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(BundleError, match=r"No space left on device; free the disk.*nothing was published"):
        save_bundle(tmp_path / "bundles", parts, golden)
    assert list((tmp_path / "bundles").iterdir()) == []


def test_nothing_in_the_project_is_pickled():
    """A bundle, a checkpoint or a cache that runs code when it is read would be a hole in every server."""
    root = Path(__file__).parents[2]
    banned = re.compile(
        r"\b((import|from) (pickle|dill|cloudpickle|joblib|shelve|marshal)\b"
        r"|torch\.(load|save)\b|joblib\.(load|dump)|pickle\.(load|dump)|allow_pickle=True|read_pickle|to_pickle"
        r"|yaml\.(unsafe_)?load\()"
    )
    found = [
        f"{file.relative_to(root)}:{number}"
        for room in ROOMS
        for file in (root / room).rglob("*.py")
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if banned.search(line)
    ]
    assert found == []


# --- the index of a large catalogue


@pytest.fixture
def large(parts, make_config):
    """Give the parts of a bundle whose index is compressed."""
    vectors = np.random.default_rng(0).normal(size=(1_200, 4)).astype(np.float32)
    return replace(
        parts,
        config=make_config(retrieval={"exact_items": 0, "num_candidates": 20}),
        items=pl.DataFrame({"item_id": [str(n) for n in range(1_200)]}),
        item_embeddings_ID=vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
    )


def test_the_recall_of_a_compressed_index_is_in_the_manifest_and_its_times_beside_it(large, tmp_path):
    records = {}
    asked = []

    def queries(bundle):
        asked.append(bundle.index.kind)
        return bundle.index.embeddings_ID[:30]

    path = tmp_path / save_bundle(tmp_path, large, _golden, queries, records.__setitem__)
    index, record = read_manifest(path).index, records[path.name]
    assert (index["kind"], index["items"], asked) == ("ivf1,pq4x4fs", 1_200, ["ivf1,pq4x4fs"])
    assert (index["recall"]["k"], index["recall"]["queries"]) == (20, 30)
    assert list(index["recall"]["by_share"]) == ["1", "0.5", "0.1", "0.01", "0.001"]
    assert min(index["recall"]["by_share"].values()) >= 0.95
    assert load_bundle(path).index.factor == index["factor"] == record.factor
    assert load_bundle(path).index.lists == index["lists"] == record.lists
    assert load_bundle(path).index.wide_lists == index["wide_lists"] == record.wide_lists
    assert record.recall == index["recall"]["by_share"]
    assert record.file_bytes == (path / "index.faiss").stat().st_size
    assert min(record.search_ms.values()) > 0
    again = save_bundle(tmp_path / "again", large, _golden, queries)
    assert again == path.name, "times are no part of a version"


def test_an_index_that_finds_too_little_is_not_published(large, tmp_path, monkeypatch):
    monkeypatch.setattr(index_recall, "FACTORS", (1,))
    monkeypatch.setattr(index_module, "_FEWEST", 1)
    with pytest.raises(
        BundleError,
        match=r"1200 items finds 0\.\d+ of the 20 nearest ones.*index_min_recall is 0\.95: nothing was "
        r"published\. Lower it, or set \[retrieval\] exact_items = 1200",
    ):
        save_bundle(tmp_path / "bundles", large, _golden)
    assert list((tmp_path / "bundles").iterdir()) == []


def test_a_bundle_of_the_release_before_is_read(large, tmp_path):
    """Its index is a graph, which is built anew; its config lacks the newer keys."""
    path = tmp_path / save_bundle(tmp_path, large, _golden)
    graph = faiss.IndexHNSWFlat(4, 4, faiss.METRIC_INNER_PRODUCT)
    graph.add(large.item_embeddings_ID)
    faiss.write_index(graph, str(path / "index.faiss"))
    manifest = read_manifest(path)
    config = json.loads(json.dumps(manifest.config))
    for key in ("exact_items", "index_min_recall"):
        del config["retrieval"][key]
    content = (path / "index.faiss").read_bytes()
    entry = FileEntry(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    older = manifest.model_copy(
        update={
            "schema_version": OLDEST_READ,
            "config": config,
            "index": {"kind": "hnsw32", "items": 1_200, "dim": 4},
            "files": {**manifest.files, "index.faiss": entry},
        }
    )
    older = older.model_copy(update={"version": manifest_module.version_of(older)})
    (path / "manifest.json").write_text(older.model_dump_json())
    bundle = load_bundle(path)
    assert bundle.config.retrieval.exact_items == 50_000
    assert bundle.index.search(large.item_embeddings_ID[7], 1, None).tolist() == [7]


def test_a_bundle_of_heads_that_a_new_config_may_not_have_is_read(parts, tmp_path):
    """Stars over all impressions are refused in a config today; the live bundle may have them."""
    stars = {"name": "stars", "feedback": "rating", "head": "regression", "window": "1d"}
    config = parse_config({"task": [stars]}, "test", in_use=True)
    bundle = load_bundle(tmp_path / save_bundle(tmp_path, replace(parts, config=config), _golden))
    assert bundle.config.tasks == config.tasks


def test_the_table_of_neighbours_is_kept_and_mapped_and_absent_where_there_is_none(parts, tmp_path):
    assert load_bundle(tmp_path / save_bundle(tmp_path, parts, _golden)).item_item is None
    table = ItemItem(
        neighbours=np.array([[1, -1]] * 7, np.int32), weights=np.array([[0.5, 0.0]] * 7, np.float32)
    )
    path = tmp_path / save_bundle(tmp_path, replace(parts, item_item=table), _golden)
    for bundle in (load_bundle(path), map_bundle(path, EncoderState.load(path))):
        np.testing.assert_array_equal(bundle.item_item.neighbours, table.neighbours)
        np.testing.assert_array_equal(bundle.item_item.weights, table.weights)


def test_the_sources_part_of_the_score_is_kept_and_a_bundle_without_one_says_nothing_of_it(parts, tmp_path):
    path = tmp_path / save_bundle(tmp_path, parts, _golden)
    assert "sources" not in json.loads((path / "manifest.json").read_text())["fusion"]
    terms = SourceTerms(repeat=2.0, repeat_days=14)
    path = tmp_path / save_bundle(tmp_path, replace(parts, sources=terms), _golden)
    assert load_bundle(path).manifest.fusion.sources == terms


def test_a_bundle_of_schema_7_has_neighbours_without_weights_and_keys_of_before(parts, tmp_path):
    path = tmp_path / save_bundle(tmp_path, parts, _golden)
    together = np.array([[2, 3]] + [[-1, -1]] * 6, np.int32)
    save_file({"together": together}, path / "together.safetensors")
    older = json.loads((path / "manifest.json").read_text())
    config = older["config"]
    config["policy"] = {"exclude_seen_kinds": ["purchase"]}
    config["retrieval"]["together_candidates"] = 7
    del config["item_item"], config["retrieval"]["repeat_candidates"]
    older["schema_version"] = 7
    file = path / "together.safetensors"
    older["files"]["together.safetensors"] = {
        "size": file.stat().st_size,
        "sha256": manifest_module.sha256_of(file),
    }
    manifest = manifest_module.Manifest.model_validate(older)
    manifest = manifest.model_copy(update={"version": manifest_module.version_of(manifest)})
    (path / "manifest.json").write_text(manifest.model_dump_json())
    bundle = load_bundle(path)
    assert bundle.config.policy.excluded_kinds == ("purchase",)
    assert bundle.config.item_item.candidates == 7
    assert bundle.item_item.weights[0].tolist() == [1.0, 0.5]
    assert (bundle.item_item.weights[1:] == 0).all()
