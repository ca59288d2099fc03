import gzip
import json
import os
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality.baselines.biases import best_biases, fit_biases, rating_error
from benchmarks.quality.models.fitting import Budget
from benchmarks.quality.readers.folds_reader import NUM_FOLDS, rating_pairs, read_movielens_1m
from benchmarks.quality.sets import movielens_folds as movielens
from recsys.cli import run
from recsys.errors import DataError
from recsys.metrics.pointwise import rmse

USERS, ITEMS = 30, 20


def write_set(folder: Path, *, poison_fold: int | None = None) -> Path:
    """Write five folds of stars made of user's and movie's biases; movie ids have gaps."""
    rng = np.random.default_rng(2)
    folder.mkdir()
    tastes, worths = rng.normal(0, 0.7, USERS), rng.normal(0, 0.7, ITEMS)
    pairs = rng.permutation(USERS * ITEMS)
    for fold in range(NUM_FOLDS):
        lines = []
        for pair in pairs[fold::NUM_FOLDS]:
            user, item = divmod(int(pair), ITEMS)
            stars = int(np.clip(round(3.5 + tastes[user] + worths[item]), 1, 5))
            lines.append(f"{user + 1},{2 * item + 1},{6 - stars if fold == poison_fold else stars}")
        (folder / f"fold{fold + 1}.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    people = "\n".join(f"{u + 1}::{'FM'[u % 2]}::{18 + u % 3}::{u % 4}::00000" for u in range(USERS))
    films = "\n".join(f"{i + 1}::Film {i}::{'Drama' if i % 2 else 'Comedy|Crime'}" for i in range(2 * ITEMS))
    (folder / "users.dat.gz").write_bytes(gzip.compress(people.encode()))
    (folder / "movies.dat.gz").write_bytes(gzip.compress(films.encode()))
    return folder


@pytest.fixture
def small(monkeypatch):
    quick = Budget(epochs=3, learning_rate=5e-3, sparse_learning_rate=0.3, weight_decay=0, decay=0.9)
    monkeypatch.setattr(movielens, "BUDGET", quick)
    monkeypatch.setattr(movielens, "BAGS", replace(movielens.BAGS, users=6, passes=4))


def test_columns_have_stretches_of_their_own(tmp_path):
    data = read_movielens_1m(write_set(tmp_path / "set"))
    assert sum(f.size for f in data.folds) == USERS * ITEMS
    assert data.sides.user_ids.shape == (USERS, 4)
    assert data.sides.item_ids.shape == (ITEMS, 4)
    columns = [*data.sides.user_ids.T, data.sides.item_ids[:, 0], data.sides.item_ids[:, 1:]]
    for one, other in pairwise(columns):
        assert one.max() < other.min()
    assert data.sides.item_ids.max() == data.sides.num_ids - 1
    # Ids 1, 3, 5, … are every other film: comedies and crime, one number a genre and one for no third one.
    assert len(np.unique(data.sides.item_ids[:, 1:])) == 3


def test_a_fold_is_not_in_its_training_part(tmp_path):
    data = read_movielens_1m(write_set(tmp_path / "set"))
    test, train = data.folds[2], data.but(2)
    seen = set(zip(train.user.tolist(), train.item.tolist(), strict=True))
    assert len(seen) == train.size == USERS * ITEMS - test.size
    assert not seen & set(zip(test.user.tolist(), test.item.tolist(), strict=True))


def test_the_bias_model_finds_biases():
    rng = np.random.default_rng(0)
    user, item = rng.integers(40, size=3000), rng.integers(20, size=3000)
    taste, worth = rng.normal(0, 0.3, 40), rng.normal(0, 0.3, 20)
    stars = (3 + taste[user] + worth[item]).astype(np.float32)
    ratings = rating_pairs(user, item, stars)
    found = fit_biases(ratings, "rating", 1.0, (40, 20)).predict(ratings)
    assert rmse(stars, found) < 0.05 < stars.std()


def test_validation_chooses_the_penalty():
    """The same training rows: the biases come back in one validation part, and are gone in the other."""
    rng = np.random.default_rng(1)
    user, item = rng.integers(40, size=3000), rng.integers(20, size=3000)
    worth = rng.normal(0, 0.5, 20)
    train = rating_pairs(user, item, 3 + worth[item])
    gone = rating_pairs(user, item, np.full(3000, 3 + worth[item].mean()))
    chosen = [
        best_biases(train, "rating", (0.1, 1e6), (40, 20), rating_error(validation))
        for validation in (train, gone)
    ]
    assert [penalty for penalty, _ in chosen] == [0.1, 1e6]
    assert np.abs(chosen[0][1].item).max() > 100 * np.abs(chosen[1][1].item).max()


def test_the_command_gives_both_heads_of_one_model(tmp_path, small):
    target = tmp_path / "ml.json"
    arguments = ["--set", "ml-1m", "--data", str(write_set(tmp_path / "set")), "--seeds", "1"]
    arguments += ["--rows", "mmoe,bias_model"]
    assert run(["bench", "quality", *arguments, "--json", str(target)]) == 0
    tree = json.loads(target.read_text())
    ours, bias = ({r["name"]: r for r in tree["rows"]}[name] for name in ("mmoe", "bias_model"))
    assert len(ours["heads"]["rating"]["rmse"]["runs"]) == NUM_FOLDS
    assert tree["best"]["row"] == "mmoe"
    assert tree["best"]["liked"]["auc"] > 0.7
    assert bias["heads"]["rating"]["rmse"]["value"] < 0.7
    assert bias["ours"] is False


def test_no_choice_looks_at_the_test_fold(tmp_path, small):
    shape = movielens.SHAPE
    right = read_movielens_1m(write_set(tmp_path / "right"))
    poisoned = read_movielens_1m(write_set(tmp_path / "poisoned", poison_fold=1))
    fitted = [movielens.train_fold(data, shape, 1, 0) for data in (right, poisoned)]
    assert fitted[0][2] == fitted[1][2], "the same epoch"
    one, other = (predict(right.folds[1])["rating"] for _, predict, _ in fitted)
    assert np.array_equal(one, other)


def test_a_run_measures_each_fold_by_a_model_that_lacks_it(tmp_path, small):
    """A model that knows the stars of the folds it was given, and nothing of the one left out."""
    data = read_movielens_1m(write_set(tmp_path / "set"))

    def fit(fold, _seed):
        test = set(zip(data.folds[fold].user.tolist(), data.folds[fold].item.tolist(), strict=True))

        def predict(pairs):
            out = np.array(
                [pair in test for pair in zip(pairs.user.tolist(), pairs.item.tolist(), strict=True)]
            )
            return {"rating": pairs.labels["rating"] + np.where(out, fold + 1.0, 0.0)}

        return predict, predict, f"fold {fold}"

    run_ = movielens.over_folds(data, fit, 0)
    assert run_.test["rating"].tolist() == pytest.approx([1, 2, 3, 4, 5])
    assert run_.validation["rating"].tolist() == [0.0] * NUM_FOLDS
    assert set(run_.test) == {"rating"}


def test_a_missing_fold_says_so(tmp_path):
    with pytest.raises(DataError, match=r"fold1.csv is missing"):
        read_movielens_1m(tmp_path)


@pytest.mark.slow
def test_the_published_folds():
    root = os.environ.get("RECSYS_DATA")
    if root is None or not (Path(root) / "ml-1m").exists():
        pytest.skip("RECSYS_DATA has no ml-1m")
    data = read_movielens_1m(Path(root) / "ml-1m")
    assert sum(f.size for f in data.folds) == 1_000_209
    assert (len(data.sides.user_ids), len(data.sides.item_ids)) == (6_040, 3_706)
    found = movielens.over_folds(data, partial(movielens.fit_bias_model, data), 0).test["rating"]
    assert found.mean() == pytest.approx(0.9087, abs=0.002), "what the set's README measured"
