import gzip
import json
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality.baselines.biases import best_biases, fit_biases
from benchmarks.quality.models.fitting import Budget
from benchmarks.quality.movielens import folds as movielens
from benchmarks.quality.movielens.folds_reader import NUM_FOLDS, rating_pairs, read_movielens
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
    data = read_movielens(write_set(tmp_path / "set"))
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
    data = read_movielens(write_set(tmp_path / "set"))
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
        best_biases(fit_biases, (train, validation), "rating", (0.1, 1e6), (40, 20))
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


def test_seeds_of_a_fold_are_no_further_repeats():
    """Figures of two seeds: the interval is that of the five folds' means, at 4 degrees of freedom."""
    values = [0.80, 0.85, 0.90, 0.95, 1.00, 0.84, 0.87, 0.94, 0.97, 1.04]
    runs = [
        movielens.FoldScores(known_rmse=v + 1, rmse=v, known_auc=0.5, auc=1 - v / 2, epoch=1) for v in values
    ]
    found = movielens._row("mmoe", runs, 2).heads["rating"]["rmse"]
    assert found.runs == pytest.approx((0.82, 0.86, 0.92, 0.96, 1.02))
    assert found.validation == pytest.approx(1.916)
    half = 2.7764 * np.std(found.runs, ddof=1) / np.sqrt(5)
    assert (found.low, found.high) == pytest.approx((0.916 - half, 0.916 + half), abs=1e-5)


def test_no_choice_looks_at_the_test_fold(tmp_path, small):
    shape = movielens.SHAPE
    right = read_movielens(write_set(tmp_path / "right"))
    poisoned = read_movielens(write_set(tmp_path / "poisoned", poison_fold=1))
    found = [movielens.train_fold(data, 1, shape, 0) for data in (right, poisoned)]
    assert found[0].epoch == found[1].epoch
    assert found[0].known_rmse == found[1].known_rmse
    assert found[0].rmse < found[1].rmse


def test_a_missing_fold_says_so(tmp_path):
    with pytest.raises(DataError, match=r"fold1.csv.gz is missing"):
        read_movielens(tmp_path)


@pytest.mark.slow
def test_the_published_folds():
    root = os.environ.get("RECSYS_DATA")
    if root is None or not (Path(root) / "ml-1m").exists():
        pytest.skip("RECSYS_DATA has no ml-1m")
    data = read_movielens(Path(root) / "ml-1m")
    assert sum(f.size for f in data.folds) == 1_000_209
    assert (len(data.sides.user_ids), len(data.sides.item_ids)) == (6_040, 3_706)
    found = movielens._bias_row(data).heads["rating"]["rmse"]
    assert found.value == pytest.approx(0.9087, abs=0.002), "what the set's README measured"
