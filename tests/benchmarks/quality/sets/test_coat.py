import gzip
import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality.driver import measure_set
from benchmarks.quality.models.fitting import Budget
from benchmarks.quality.readers import coat_reader
from benchmarks.quality.readers.coat_reader import NUM_FOLDS, read_coat, split_coat
from benchmarks.quality.sets import coat
from benchmarks.quality.sets.coat import VARIANTS, coat_sides, open_coat, snips_rmse
from recsys.cli import run
from recsys.errors import DataError

USERS, ITEMS, RATED = 12, 20, 10
USER_MAP = ["age:old", "age:young", "home:town", "home:land"]
ITEM_MAP = ["colour:red", "colour:blue", "colour:green"]


def write_set(folder: Path, *, test: bool = False) -> Path:
    """Write matrices in the published form: every user rates ten coats, red ones by choice."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    colour = np.arange(ITEMS) % 3
    propensity = np.where(colour == 0, 0.8, 0.35) * np.ones((USERS, 1))
    order = np.argsort(rng.random((USERS, ITEMS)) / propensity, axis=1)
    stars = rng.integers(1, 6, (USERS, ITEMS))
    chosen = np.zeros_like(stars)
    np.put_along_axis(chosen, order[:, :RATED], 1, axis=1)
    save(folder / "train.ascii.gz", stars * chosen)
    save(folder / "propensities.ascii.gz", propensity)
    if test:
        save(folder / "test.ascii.gz", stars * (rng.random(stars.shape) < 0.3))
    save(
        folder / "user_features.ascii.gz",
        np.eye(4)[np.arange(USERS) % 2] + np.eye(4)[2 + np.arange(USERS) % 2],
    )
    save(folder / "item_features.ascii.gz", np.eye(3)[colour])
    (folder / "user_features_map.txt").write_text("\n".join(USER_MAP))
    (folder / "item_features_map.txt").write_text("\n".join(ITEM_MAP))
    return folder


def save(path: Path, matrix: np.ndarray) -> None:
    text = "\n".join(" ".join(f"{value:g}" for value in row) for row in matrix)
    path.write_bytes(gzip.compress(text.encode()))


@pytest.fixture
def quick(monkeypatch):
    budget = Budget(epochs=2, learning_rate=5e-3, sparse_learning_rate=0.1, weight_decay=0, decay=0.9)
    monkeypatch.setattr(coat, "BUDGET", budget)
    monkeypatch.setattr(coat, "BATCH_SIZE", 64)


def fit_of(data, name):
    """Give how a row is trained on a fold."""
    if name in VARIANTS:
        return partial(coat.train_variant, data, VARIANTS[name])
    return {
        "bias_model": partial(coat.fit_bias_model, data),
        "mean_ips": partial(coat.fit_mean, data, weighted=True),
    }[name]


def test_flags_of_a_group_are_one_column(tmp_path):
    data = read_coat(write_set(tmp_path / "set"))
    assert data.stars.shape == data.propensity.shape == (USERS, ITEMS)
    assert (~np.isnan(data.stars)).sum() == USERS * RATED
    assert data.test is None
    assert data.user_columns.tolist()[:2] == [[1, 1], [2, 2]]
    assert data.item_columns[:4, 0].tolist() == [1, 2, 3, 1]
    sides = coat_sides(data, features=True)
    assert (sides.user_ids.shape[1], sides.item_ids.shape[1]) == (3, 2)
    assert sides.num_ids == USERS + 2 + 2 + ITEMS + 3
    assert coat_sides(data, features=False).num_ids == USERS + ITEMS


def test_files_may_be_unpacked(tmp_path):
    folder = write_set(tmp_path / "set")
    packed = folder / "train.ascii.gz"
    (folder / "train.ascii").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    assert (~np.isnan(read_coat(folder).stars)).sum() == USERS * RATED


@pytest.mark.parametrize(
    "name", ["train.ascii", "propensities.ascii", "user_features.ascii", "item_features.ascii"]
)
def test_a_missing_file_says_so(tmp_path, name):
    folder = write_set(tmp_path / "set")
    (folder / f"{name}.gz").unlink()
    with pytest.raises(DataError, match=rf"{name} is missing"):
        read_coat(folder)


@pytest.mark.parametrize(
    ("name", "matrix", "said"),
    [
        ("train.ascii", np.full((USERS, ITEMS), 6), "values other than 0"),
        ("propensities.ascii", np.zeros((USERS, ITEMS)), r"outside \(0, 1\)"),
        ("propensities.ascii", np.ones((USERS, ITEMS)), r"outside \(0, 1\)"),
        ("propensities.ascii", np.ones((USERS, ITEMS - 1)), "must be equal"),
        ("user_features.ascii", np.ones((USERS, 3)), "the map's 4 columns"),
    ],
)
def test_a_wrong_file_says_so(tmp_path, name, matrix, said):
    folder = write_set(tmp_path / "set")
    save(folder / f"{name}.gz", matrix)
    with pytest.raises(DataError, match=said):
        read_coat(folder)


def test_words_are_no_matrix(tmp_path):
    folder = write_set(tmp_path / "set")
    (folder / "train.ascii.gz").write_bytes(gzip.compress(b"1 2\nno stars\n"))
    with pytest.raises(DataError, match="no matrix of numbers"):
        read_coat(folder)


def test_every_rating_is_held_out_once_and_no_part_has_anothers(tmp_path):
    data = read_coat(write_set(tmp_path / "set"))
    parts = [split_coat(data, fold) for fold in range(NUM_FOLDS)]
    assert np.array_equal(sum(p.held_out.astype(int) for p in parts), ~np.isnan(data.stars))
    for part in parts:
        together = part.train.astype(int) + part.validation + part.held_out
        assert np.array_equal(together, ~np.isnan(data.stars))
        assert (part.held_out.sum(axis=1) == RATED / NUM_FOLDS).all()
        assert part.validation.any()


def test_with_the_random_test_the_fold_is_for_validation(tmp_path):
    data = read_coat(write_set(tmp_path / "set", test=True))
    part = split_coat(data, 1)
    assert not part.held_out.any()
    assert part.validation.sum() == USERS * RATED / NUM_FOLDS
    assert np.array_equal(part.train | part.validation, ~np.isnan(data.stars))


def test_snips_by_hand():
    """Weights 2 and 10, squared errors 1 and 9: (2 · 1 + 10 · 9) / 12."""
    found = snips_rmse(np.array([1.0, 5.0]), np.array([2.0, 2.0]), np.array([0.5, 0.1]))
    assert found == pytest.approx(np.sqrt(92 / 12))


@pytest.mark.parametrize("name", ["mmoe", "mmoe_ips_estimated", "bias_model", "mean_ips"])
def test_held_out_ratings_teach_nothing(tmp_path, quick, name):
    data = read_coat(write_set(tmp_path / "set"))
    part = split_coat(data, 2)
    turned = replace(data, stars=np.where(part.held_out, 6 - data.stars, data.stars))
    rows = coat.coat_pairs(data, part.held_out, data.stars)
    one, other = (fit_of(d, name)(part, 0)(rows)["rating"] for d in (data, turned))
    assert np.array_equal(one, other)


def test_weights_and_features_change_what_is_trained(tmp_path, quick):
    data = read_coat(write_set(tmp_path / "set"))
    part = split_coat(data, 0)
    rows = coat.coat_pairs(data, part.held_out, data.stars)
    names = ("mmoe", "mmoe_ips", "mmoe_ips_estimated", "mmoe_ids")
    found = [fit_of(data, name)(part, 0)(rows)["rating"] for name in names]
    assert len({f.tobytes() for f in found}) == len(names)


def test_the_command_estimates_the_random_error(tmp_path, quick, monkeypatch):
    for module in (coat, coat_reader):
        monkeypatch.setattr(module, "NUM_FOLDS", 2)
    target = tmp_path / "coat.json"
    arguments = ["--data", str(write_set(tmp_path / "set")), "--seeds", "2", "--rows", "mmoe,mmoe_ips,mean"]
    assert run(["bench", "quality", "--set", "coat", *arguments, "--json", str(target)]) == 0
    tree = json.loads(target.read_text())
    rows = {r["name"]: r["heads"] for r in tree["rows"]}
    assert set(rows["mmoe"]["rating"]) == {"snips_rmse", "rmse"}
    assert len(rows["mmoe"]["rating"]["rmse"]["runs"]) == 2
    assert set(rows["mean"]) == {"rating"}
    assert {(d["row"], d["against"]) for d in tree["differences"]} >= {("mmoe_ips", "mmoe")}


def test_the_random_test_is_scored_without_weights(tmp_path, quick):
    data = read_coat(write_set(tmp_path / "set", test=True))
    opened = open_coat(tmp_path / "set", tmp_path)
    assert [(m.metric, m.weight, m.label.size) for m in opened.test] == [
        (metric, None, (~np.isnan(data.test)).sum()) for metric in ("rmse", "auc")
    ]
    assert len(opened.rows["mean"].train(0)) == NUM_FOLDS
    report = measure_set(opened, 2, ["mean"], lambda _: None)
    assert (report.rows[0].seeds, len(report.rows[0].heads["rating"]["rmse"].runs)) == (1, NUM_FOLDS)


def test_without_the_random_test_its_error_is_estimated_by_inverse_propensity(tmp_path):
    data = read_coat(write_set(tmp_path / "set"))
    snips, plain = open_coat(tmp_path / "set", tmp_path).test[:2]
    off = np.where(np.arange(snips.label.size) % 3 == 0, 2.0, 0.5)
    found = {m.metric: m.value({"rating": m.label + off}) for m in (snips, plain)}
    pairs = coat.joined([coat.tested_pairs(data, fold) for fold in range(NUM_FOLDS)])
    weight = 1 / data.propensity[pairs.user, pairs.item]
    assert found["snips_rmse"] == pytest.approx(np.sqrt(np.average(off**2, weights=weight)))
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean(off**2)))


def test_each_question_has_its_plain_row(tmp_path):
    questions = open_coat(write_set(tmp_path / "set"), tmp_path).questions
    assert len(questions) == 5
    for weighted, plain in questions:
        assert VARIANTS[plain] == replace(VARIANTS[weighted], weights="none")


def test_the_published_files():
    root = os.environ.get("RECSYS_DATA")
    if root is None or not (Path(root) / "coat").exists():
        pytest.skip("RECSYS_DATA has no coat")
    data = read_coat(Path(root) / "coat")
    assert data.stars.shape == (290, 300)
    assert (~np.isnan(data.stars)).sum() == 6_960
    assert np.nanmean(data.stars) == pytest.approx(2.61, abs=0.005)
    assert (data.user_columns.shape[1], data.item_columns.shape[1]) == (4, 4)
    assert {split_coat(data, fold).held_out.sum() for fold in range(NUM_FOLDS)} == {6_960 / NUM_FOLDS}
