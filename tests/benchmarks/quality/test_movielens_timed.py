import gzip
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality.models.bags import BagSetting
from benchmarks.quality.models.catalogue_softmax import SoftmaxSetting
from benchmarks.quality.models.pairs import Pairs
from benchmarks.quality.movielens import by_time as movielens_time
from benchmarks.quality.movielens import by_time_trees as movielens_trees
from benchmarks.quality.movielens import top_ten as movielens_top
from benchmarks.quality.movielens.timed_reader import read_timed
from recsys.cli import run

USERS, ITEMS = 30, 40


def write_100k(folder: Path, *, poison: bool = False) -> Path:
    """Write RecBole's files: users come one after the other; stars are biases; halves like their own half."""
    rng = np.random.default_rng(4)
    folder.mkdir()
    taste, worth = rng.normal(0, 0.7, USERS), rng.normal(0, 0.9, ITEMS)
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for user in range(USERS):
        likely = np.where(np.arange(ITEMS) % 2 == user % 2, 5.0, 1.0)
        for n, item in enumerate(rng.choice(ITEMS, 16, replace=False, p=likely / likely.sum())):
            stars = int(np.clip(round(3.3 + taste[user] + worth[item]), 1, 5))
            # The last users' ratings are the test; user 0 comes back for the last four.
            when = 10_000 + n if user == 0 and n >= 12 else 100 * user + n
            late = when >= 2_404
            lines.append(f"{user + 1}\t{item + 1}\t{6 - stars if poison and late else stars}\t{when}")
    write(folder / "ml-100k.inter.gz", lines)
    write(
        folder / "ml-100k.user.gz",
        ["user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token"]
        + [f"{u + 1}\t{20 + u}\t{'FM'[u % 2]}\tother\t85711" for u in range(USERS)],
    )
    write(
        folder / "ml-100k.item.gz",
        ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"]
        + [f"{i + 1}\tFilm\t{1950 + i}\t{'Drama' if i % 2 else 'Comedy Crime'}" for i in range(ITEMS)],
    )
    return folder


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
    monkeypatch.setattr(movielens_trees, "TRIALS", 1)
    monkeypatch.setattr(movielens_top, "BUDGET", replace(movielens_top.BUDGET, epochs=2))
    monkeypatch.setattr(movielens_top, "BAGS", BagSetting(users=8, hidden=0.3))
    monkeypatch.setattr(movielens_top, "SOFTMAX", SoftmaxSetting(epochs=30, users=8))
    monkeypatch.setattr(movielens_top, "CANDIDATES", 15)


def test_the_cut_is_by_time(tmp_path):
    data = read_timed(write_100k(tmp_path / "set"))
    train, validation, test = data.parts()
    assert (train.size, validation.size, test.size) == (346, 38, 96)
    # Users came one after the other: user 0 and one other are in the training part and in the test.
    earlier = np.concatenate([train.user, validation.user])
    assert (test.user[-4:] == train.user[0]).all()
    assert np.isin(validation.user, train.user).sum() < 16
    warm = movielens_time._warm(data.parts())
    assert np.flatnonzero(warm).tolist() == [*range(12), *range(92, 96)], "the user cut in two, and user 0"
    assert (warm == np.isin(test.user, earlier)).all()


def test_strangers_share_an_unknown_id_and_keep_what_else_is_known(tmp_path):
    data = read_timed(write_100k(tmp_path / "set"))
    train, _, test = data.parts()
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


def test_trees_see_only_earlier_ratings(tmp_path):
    """Turning a rating round changes the features of later rows of its user or movie, never of earlier."""
    data = read_timed(write_100k(tmp_path / "set"))
    train = data.parts()[0]
    stars = train.labels["rating"].copy()
    middle = train.size // 2
    # Swapped with a later one, so that the mean stays.
    other = middle + 1 + int(np.flatnonzero(stars[middle + 1 :] != stars[middle])[0])
    stars[middle], stars[other] = stars[other], stars[middle]
    turned = Pairs(user=train.user, item=train.item, labels={**train.labels, "rating": stars})
    one, two = (movielens_trees.past_of_each(data, rows) for rows in (train, turned))
    changed = np.flatnonzero((np.abs(one - two) > 1e-4).any(axis=1))
    assert changed.size
    assert changed.min() > middle


def test_the_command_scores_all_and_warm_users(tmp_path, small):
    target = tmp_path / "time.json"
    arguments = ["--set", "ml-100k", "--data", str(write_100k(tmp_path / "set")), "--seeds", "2"]
    arguments += ["--rows", "mmoe,bias_model,item_mean,lightgbm"]
    assert run(["bench", "quality", *arguments, "--json", str(target)]) == 0
    tree = json.loads(target.read_text())
    rows = {row["name"]: row["heads"] for row in tree["rows"]}
    assert set(rows) == {"mmoe", "bias_model", "item_mean", "lightgbm"}
    assert set(rows["mmoe"]["rating"]) == {"rmse", "rmse_warm"}
    assert rows["mmoe"]["rating"]["rmse_warm"]["validation"] is None
    assert tree["facts"]["test_rows"] == 96
    assert (tree["facts"]["warm_test_rows"], tree["facts"]["warm_test_users"]) == (16, 2)
    data = read_timed(tmp_path / "set")
    found, test = movielens_time._biases("bias_model", data, data.parts()).test["rating"], data.parts()[2]
    warm = [*range(12), *range(92, 96)]
    by_hand = np.sqrt(np.mean((found[warm] - test.labels["rating"][warm]) ** 2))
    assert rows["bias_model"]["rating"]["rmse_warm"]["value"] == pytest.approx(by_hand)
    found = {(d["against"], d["metric"]): d for d in tree["differences"]}
    assert {d["row"] for d in tree["differences"]} == {"mmoe"}
    assert set(found) == {
        (name, metric)
        for name in ("bias_model", "item_mean", "lightgbm")
        for metric in ("rmse", "rmse_warm", "auc", "auc_warm")
    }
    for (name, metric), d in found.items():
        own, other = (rows[n][d["head"]][metric]["value"] for n in ("mmoe", name))
        assert d["value"] == pytest.approx(own - other, abs=1e-6)
        assert d["low"] <= d["value"] <= d["high"]
    assert rows["bias_model"]["liked"]["auc"]["value"] > 0.7
    assert abs(rows["mmoe"]["rating"]["rmse"]["value"] - rows["bias_model"]["rating"]["rmse"]["value"]) < 0.3


def test_a_users_rows_are_drawn_together(tmp_path):
    """Of rows of one user, each draw is the same rows: there is no interval to speak of."""
    train, validation, test = read_timed(write_100k(tmp_path / "set")).parts()
    rng = np.random.default_rng(0)
    run = movielens_time.Run(
        validation={head: rng.random(validation.size) for head in ("rating", "liked")},
        test={head: rng.random(test.size) for head in ("rating", "liked")},
    )
    alone = replace(test, user=np.full(test.size, train.user[0]))
    wide, none = (
        movielens_time._row("any", (train, validation, rows), [run], ours=True).heads
        for rows in (test, alone)
    )
    for head, metric in (
        ("rating", "rmse"),
        ("rating", "rmse_warm"),
        ("liked", "auc"),
        ("liked", "auc_warm"),
    ):
        assert wide[head][metric].high > wide[head][metric].low
        assert none[head][metric].high == pytest.approx(none[head][metric].low, abs=1e-12)


def test_validations_choice_is_held_against_trunks_and_baselines(tmp_path):
    """Of two of ours, `far` is better on the test and worse on validation: `near` is held against it."""
    train, validation, test = read_timed(write_100k(tmp_path / "set")).parts()
    right = [{h: rows.labels[h].astype(float) for h in ("rating", "liked")} for rows in (validation, test)]
    wrong = [{h: 6 - label for h, label in labels.items()} for labels in right]
    near = [movielens_time.Run(validation=right[0], test=wrong[1])] * 2
    far = [movielens_time.Run(validation=wrong[0], test=right[1])] * 2
    runs = {"near": near, "far": far, "simple": far[:1]}
    table = [
        movielens_time._row(name, (train, validation, test), of, ours=name != "simple")
        for name, of in runs.items()
    ]
    warm = movielens_time._warm((train, validation, test))
    found = movielens_time._differences(table, movielens_time._kept(test, warm, runs))
    assert {(d.row, d.against) for d in found} == {("near", "simple"), ("near", "far")}
    assert len(found) == 8
    assert {d.verdict for d in found} == {"hurts"}


def test_no_choice_and_no_scored_model_looks_at_the_test_part(tmp_path, small):
    found = []
    for name in ("right", "poisoned"):
        data = read_timed(write_100k(tmp_path / name, poison=name == "poisoned"))
        done = movielens_time.train_by_time(data, data.parts(), movielens_time.SHAPE, 0)
        found.append((done.note, *(p[h].tolist() for p in (done.validation, done.test) for h in p)))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["mmoe", "catalogue_softmax", "ease"])
def test_no_list_looks_at_the_test_movies(tmp_path, small, monkeypatch, name):
    """Other test movies: the same setting and epoch, and scored lists that are the same to the last digit."""
    split = movielens_top.read_split(write_100k(tmp_path / "set"), 0)
    turned = replace(split, test=replace(split.test, item=ITEMS - 1 - split.test.item))
    measure, listed = movielens_top.list_metrics, []

    def kept(score, of):
        listed.append(score(np.arange(USERS)).tolist())
        return measure(score, of)

    monkeypatch.setattr(movielens_top, "list_metrics", kept)
    score = movielens_top._score_baseline if name == "ease" else movielens_top._score_ours
    found = []
    for of in (split, turned):
        run = score(name, of, 0)
        found.append((run.note, [of.tolist() for of in run.validation.values()], listed[-1]))
        listed.clear()
    assert found[0] == found[1]


def test_a_quarter_of_each_user_is_the_test(tmp_path):
    split = movielens_top.read_split(write_100k(tmp_path / "set"), 1)
    assert (np.bincount(split.test.user) == 4).all()
    assert (np.bincount(split.validation.user) == 1).all()
    pairs = [set(zip(p.user.tolist(), p.item.tolist(), strict=True)) for p in (split.before, split.test)]
    assert len(pairs[0]) + len(pairs[1]) == USERS * 16
    assert not pairs[0] & pairs[1]


def test_the_command_ranks_the_whole_catalogue(tmp_path, small):
    target = tmp_path / "top.json"
    arguments = ["--set", "ml-100k-top10", "--data", str(write_100k(tmp_path / "set")), "--seeds", "2"]
    arguments += ["--rows", "mmoe,catalogue_softmax,popularity,item_knn,ease"]
    assert run(["bench", "quality", *arguments, "--json", str(target)]) == 0
    tree = json.loads(target.read_text())
    rows = {row["name"]: row["heads"]["interaction"] for row in tree["rows"]}
    assert rows["ease"]["recall@10"]["value"] > rows["popularity"]["recall@10"]["value"]
    assert rows["mmoe"]["recall@10"]["value"] > 0.4
    assert tree["best"]["row"] == "mmoe"
    against = {d["against"]: d for d in tree["differences"] if d["metric"] == "ndcg@10"}
    assert set(against) == {"popularity", "item_knn", "ease", "catalogue_softmax"}
    own, other = (rows[name]["ndcg@10"]["value"] for name in ("mmoe", "popularity"))
    assert against["popularity"]["value"] == pytest.approx(own - other)
    assert against["popularity"]["verdict"] == "helps"


@pytest.mark.slow
def test_the_real_sets(monkeypatch):
    root = os.environ.get("RECSYS_DATA")
    if root is None or not (Path(root) / "ml-100k").exists():
        pytest.skip("RECSYS_DATA has no ml-100k")
    monkeypatch.setattr(movielens_time, "BUDGET", replace(movielens_time.BUDGET, epochs=1))
    report = movielens_time.measure_ml_100k(Path(root) / "ml-100k", 1, ["mmoe", "bias_model"], print)
    assert report.facts["test_rows"] == 20_000
    assert report.as_json()["best"]["rating"]["rmse"] < 1.05
