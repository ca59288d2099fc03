import gzip
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality.driver import measure_set
from benchmarks.quality.models.pair_data import Pairs
from benchmarks.quality.readers.timed_reader import read_timed
from benchmarks.quality.sets import movielens_by_time as movielens_time
from recsys.cli import run

USERS, ITEMS = 30, 40


def write_latest(folder: Path) -> Path:
    folder.mkdir()
    rows = [f"{u},{i},{0.5 * (1 + (u + i) % 10)},{100 * u + i}" for u in range(1, 21) for i in range(1, 11)]
    write(folder / "ratings.csv.gz", ["userId,movieId,rating,timestamp", *rows])
    films = [f'{i},"Film, The ({1990 + i})",Drama|Comedy' for i in range(1, 11)]
    write(folder / "movies.csv.gz", ["movieId,title,genres", *films])
    return folder


def write(path, lines):
    path.write_bytes(gzip.compress("\n".join(lines).encode()))


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(movielens_time, "BUDGET", replace(movielens_time.BUDGET, epochs=2))
    monkeypatch.setattr(movielens_time, "BATCH_SIZE", 32)
    monkeypatch.setattr(movielens_time, "TRIALS", 1)


def test_the_cut_is_by_time(tmp_path, write_100k):
    data = read_timed(write_100k(tmp_path / "set"))
    split = data.split()
    train, validation, test = split.train, split.validation, split.test
    assert (train.size, validation.size, test.size) == (346, 38, 96)
    # Users came one after the other: user 0 and one other are in the training part and in the test.
    assert (test.user[-4:] == train.user[0]).all()
    assert np.isin(validation.user, train.user).sum() < 16
    warm = np.isin(test.user, split.before.user)
    assert np.flatnonzero(warm).tolist() == [*range(12), *range(92, 96)], "the user cut in two, and user 0"


def test_strangers_share_an_unknown_id_and_keep_what_else_is_known(tmp_path, write_100k):
    data = read_timed(write_100k(tmp_path / "set"))
    train, test = data.split().train, data.split().test
    seen = data.seen(test, train)
    own, strange = data.sides.user_ids[:USERS], data.sides.user_ids[USERS:]
    assert len(set(own[:, 0])) == USERS
    assert len(set(strange[:, 0])) == 1
    assert (own[:, 1:] == strange[:, 1:]).all()
    cold = ~np.isin(test.user, train.user)
    assert ((seen.user >= USERS) == cold).all()
    assert (seen.user % USERS == test.user).all()
    shown = data.with_strangers(train, 0.5, 0)
    assert 0.3 < (shown.user >= USERS).mean() < 0.7
    assert not np.array_equal(shown.user >= USERS, shown.item >= ITEMS)


def test_half_stars_years_and_genres_of_the_latest_layout(tmp_path):
    data = read_timed(write_latest(tmp_path / "set"))
    assert (data.num_users, data.num_items) == (20, 10)
    assert set(np.unique(data.pairs.labels["rating"])) == {0.5 * n for n in range(1, 11)}
    assert ((data.pairs.labels["rating"] >= 4) == data.pairs.labels["liked"]).all()
    assert data.sides.item_ids.max() < data.sides.num_ids


def test_trees_see_only_earlier_ratings(tmp_path, write_100k):
    """Turning a rating round changes the features of later rows of its user or movie, never of earlier."""
    data = read_timed(write_100k(tmp_path / "set"))
    train = data.split().train
    stars = train.labels["rating"].copy()
    middle = train.size // 2
    # Swapped with a later one, so that the mean stays.
    other = middle + 1 + int(np.flatnonzero(stars[middle + 1 :] != stars[middle])[0])
    stars[middle], stars[other] = stars[other], stars[middle]
    turned = Pairs(user=train.user, item=train.item, labels={**train.labels, "rating": stars})
    one, two = (movielens_time.past_of_each(data, rows) for rows in (train, turned))
    changed = np.flatnonzero((np.abs(one - two) > 1e-4).any(axis=1))
    assert changed.size
    assert changed.min() > middle


def test_the_command_scores_all_and_warm_users(tmp_path, small, write_100k):
    target = tmp_path / "time.json"
    arguments = ["--set", "ml-100k", "--data", str(write_100k(tmp_path / "set")), "--seeds", "2"]
    arguments += ["--rows", "mmoe,bias_model,item_mean,lightgbm"]
    assert run(["bench", "quality", *arguments, "--json", str(target)]) == 0
    tree = json.loads(target.read_text())
    rows = {row["name"]: row["heads"] for row in tree["rows"]}
    assert set(rows) == {"mmoe", "bias_model", "item_mean", "lightgbm"}
    inside = {f"list_concordance{of}" for of in ("", "_warm")}
    assert set(rows["mmoe"]["rating"]) == {"rmse", "rmse_warm"} | inside
    assert rows["mmoe"]["rating"]["rmse_warm"]["validation"] is None
    assert tree["facts"]["test_rows"] == 96
    assert (tree["facts"]["warm_test_rows"], tree["facts"]["warm_test_users"]) == (16, 2)
    data = read_timed(tmp_path / "set")
    found, test = movielens_time.bias_model(data, data.split()).test["rating"], data.split().test
    warm = [*range(12), *range(92, 96)]
    by_hand = np.sqrt(np.mean((found[warm] - test.labels["rating"][warm]) ** 2))
    assert rows["bias_model"]["rating"]["rmse_warm"]["value"] == pytest.approx(by_hand)
    found = {(d["against"], d["metric"]): d for d in tree["differences"]}
    assert {d["row"] for d in tree["differences"]} == {"mmoe"}
    assert set(found) == {
        (name, metric)
        for name in ("bias_model", "item_mean", "lightgbm")
        for metric in ("rmse", "rmse_warm", "auc", "auc_warm", "list_auc", "list_auc_warm", *inside)
    }
    for (name, metric), d in found.items():
        own, other = (rows[n][d["head"]][metric]["value"] for n in ("mmoe", name))
        assert d["value"] == pytest.approx(own - other, abs=1e-6)
        assert d["low"] <= d["value"] <= d["high"]
    assert rows["bias_model"]["liked"]["auc"]["value"] > 0.7
    assert abs(rows["mmoe"]["rating"]["rmse"]["value"] - rows["bias_model"]["rating"]["rmse"]["value"]) < 0.3


def test_no_choice_and_no_scored_model_looks_at_the_test_part(tmp_path, small, write_100k):
    found = []
    for name in ("right", "poisoned"):
        data = read_timed(write_100k(tmp_path / name, poison=name == "poisoned"))
        done = movielens_time.train_by_time(data, data.split(), movielens_time.SHAPE, 0)
        found.append((done.note, *(p[h].tolist() for p in (done.validation, done.test) for h in p)))
    assert found[0] == found[1]


@pytest.mark.slow
def test_the_real_sets(monkeypatch):
    root = os.environ.get("RECSYS_DATA")
    if root is None or not (Path(root) / "ml-100k").exists():
        pytest.skip("RECSYS_DATA has no ml-100k")
    monkeypatch.setattr(movielens_time, "BUDGET", replace(movielens_time.BUDGET, epochs=1))
    opened = movielens_time.open_ml_100k(Path(root) / "ml-100k", Path())
    report = measure_set(opened, 1, ["mmoe", "bias_model"], print)
    assert report.facts["test_rows"] == 20_000
    assert report.as_json()["best"]["rating"]["rmse"] < 1.05
