import gzip
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.quality.baselines.biases import fit_biases
from benchmarks.quality.baselines.item_rankers import BASELINES, ease, item_knn
from benchmarks.quality.catalogue_lists import positives
from benchmarks.quality.driver import measure_set
from benchmarks.quality.models.bags import BagSetting
from benchmarks.quality.models.catalogue_softmax import SoftmaxSetting, softmax_scores, softmax_start
from benchmarks.quality.readers import leave_one_out_reader as leave_one_out
from benchmarks.quality.readers.folds_reader import NUM_FOLDS
from benchmarks.quality.readers.leave_one_out_reader import gains, hits, read_leave_one_out
from benchmarks.quality.sets import movielens_leave_one_out as movielens_loo
from benchmarks.quality.sets.movielens_ranking import BIAS_PENALTY, candidate_pairs, train_ranking
from recsys.cli import run
from recsys.errors import DataError

USERS, ITEMS, NEGATIVES = 24, 30, 6
"""Users of even number have movies of the lower half, the others of the upper half."""


def write_set(folder: Path, *, poison: bool = False) -> Path:
    """Write folds, lists and map; movie ids are odd, lists number movies downwards."""
    rng = np.random.default_rng(3)
    folder.mkdir()
    lines, last, negatives = [], [], []
    for user in range(USERS):
        half = (user % 2) * ITEMS // 2
        own = rng.permutation(np.arange(half, half + ITEMS // 2))[:10]
        lines += [f"{user + 1},{2 * item + 1},{rng.integers(1, 6)}" for item in own]
        rest = np.setdiff1d(np.arange(ITEMS), own)
        last.append(f"{user}\t{ITEMS - 1 - own[-1]}\t5\t978824351")
        drawn = rng.permutation(rest)[:NEGATIVES]
        if poison:
            drawn = np.setdiff1d(np.arange(half, half + ITEMS // 2), own)[:NEGATIVES]
        named = "\t".join(str(ITEMS - 1 - item) for item in drawn)
        negatives.append(f"({user},{ITEMS - 1 - own[-1]})\t{named}")
    order = rng.permutation(len(lines))
    write = lambda name, rows: (folder / name).write_bytes(gzip.compress("\n".join(rows).encode()))  # noqa: E731
    for fold in range(NUM_FOLDS):
        write(f"fold{fold + 1}.csv.gz", [lines[i] for i in order[fold::NUM_FOLDS]])
    write("users.dat.gz", [f"{u + 1}::{'FM'[u % 2]}::18::{u % 4}::00000" for u in range(USERS)])
    write("movies.dat.gz", [f"{i + 1}::Film {i}::Drama" for i in range(2 * ITEMS)])
    write("ncf.ml-1m.test.rating.gz", last)
    write("ncf.ml-1m.test.negative.gz", negatives)
    known = "\n".join(f"{ITEMS - 1 - i},{2 * i + 1},1" for i in range(ITEMS))
    (folder / "ncf_item_map.csv").write_text("ncf_item,movie_id,unique\n" + known)
    return folder


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(leave_one_out, "NUM_NEGATIVES", NEGATIVES)
    quick = replace(movielens_loo.BUDGET, epochs=2, decay=0.9)
    monkeypatch.setattr(movielens_loo, "BUDGET", quick)
    monkeypatch.setattr(movielens_loo, "SOFTMAX", SoftmaxSetting(epochs=30, users=8))
    monkeypatch.setattr(movielens_loo, "BAGS", BagSetting(users=8, hidden=0.3))
    monkeypatch.setattr(movielens_loo, "DIM", 8)


def test_ties_count_as_they_would_on_average():
    scores = np.array([[1.0, 1.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0], [3.0, 0.0, 0.0, 0.0]])
    assert hits(scores, 1).tolist() == pytest.approx([1 / 3, 0, 1])
    assert hits(scores, 3).tolist() == [1, 0, 1]
    first_three = 1 + 1 / np.log2(3) + 1 / np.log2(4)
    assert gains(scores, 3).tolist() == pytest.approx([first_three / 3, 0, 1])
    assert gains(scores, 4)[1] == pytest.approx(1 / np.log2(5))


def test_the_held_out_items_are_in_no_training_row(tmp_path, small):
    data = read_leave_one_out(write_set(tmp_path / "set"))
    have = positives(data.train, data.sides.shape).toarray() > 0
    users = np.arange(USERS)
    assert data.train.size == USERS * 8
    assert not have[users, data.test[:, 0]].any()
    assert not have[users, data.validation[:, 0]].any()
    assert (data.held.user == users).all()
    assert (data.held.item == data.validation[:, 0]).all()
    assert not have[users[:, None], data.validation[:, 1:]].any()
    assert all(len(set(row)) == NEGATIVES + 1 for row in data.validation.tolist())
    # The lists' numbers run downwards; even users have the lower half.
    assert ((data.test[:, 0] < ITEMS // 2) == (users % 2 == 0)).all()


def test_a_test_item_that_its_user_never_rated_is_refused(tmp_path, small):
    folder = write_set(tmp_path / "set")
    (folder / "ncf_item_map.csv").write_text(
        "ncf_item,movie_id,unique\n" + "\n".join(f"{i},{2 * i + 1},1" for i in range(ITEMS))
    )
    with pytest.raises(DataError, match="test items are not among"):
        read_leave_one_out(folder)


@pytest.mark.parametrize("scorer", [item_knn, ease(1.0)])
def test_neighbours_find_the_users_half(tmp_path, small, scorer):
    data = read_leave_one_out(write_set(tmp_path / "set"))
    scores = scorer(positives(data.train, data.sides.shape).toarray())
    halves = scores[::2, : ITEMS // 2].mean(), scores[::2, ITEMS // 2 :].mean()
    assert halves[0] > halves[1] + 0.1


def test_the_softmax_finds_the_users_half_and_a_seed_fixes_it(tmp_path, small):
    data = read_leave_one_out(write_set(tmp_path / "set"))
    shape = data.sides.shape
    one, other = (softmax_start(data.train, shape, 8, movielens_loo.SOFTMAX, 0) for _ in range(2))
    assert torch.equal(one.items, other.items)
    scores = softmax_scores(one, data.train, shape)
    assert scores[::2, : ITEMS // 2].mean() > scores[::2, ITEMS // 2 :].mean() + 0.5


def test_the_model_starts_as_the_softmax(tmp_path, small):
    """Without a step to learn from, the head orders lists as the start does."""
    data = read_leave_one_out(write_set(tmp_path / "set"))
    start = softmax_start(data.train, data.sides.shape, 8, movielens_loo.SOFTMAX, 0)
    still = replace(
        movielens_loo.setting(),
        budget=replace(movielens_loo.BUDGET, epochs=1, learning_rate=0.0, sparse_learning_rate=0.0),
    )
    model, _ = train_ranking(data.sides, data.train, "mmoe", still, start, 0, None)
    every = candidate_pairs(np.repeat(np.arange(USERS), ITEMS), np.tile(np.arange(ITEMS), USERS))
    found = model.predict(every)
    logits = np.log(found["interaction"] / (1 - found["interaction"])).reshape(USERS, ITEMS)
    difference = logits - softmax_scores(start, data.train, data.sides.shape)
    assert np.abs(difference - difference.mean()).max() < 0.05, "bfloat16 at most"
    biases = fit_biases(data.train, "rating", BIAS_PENALTY, data.sides.shape)
    assert np.abs(found["rating"] - biases.predict(every).clip(1, 5)).max() < 0.05


def test_the_command_compares_one_model_with_neighbours(tmp_path, small):
    target = tmp_path / "loo.json"
    arguments = ["--set", "ml-1m-loo", "--data", str(write_set(tmp_path / "set")), "--seeds", "2"]
    arguments += ["--rows", "mmoe,catalogue_softmax,popularity,item_knn,ease"]
    assert run(["bench", "quality", *arguments, "--json", str(target)]) == 0
    tree = json.loads(target.read_text())
    rows = {row["name"]: row for row in tree["rows"]}
    assert set(rows) == {"mmoe", "catalogue_softmax", *BASELINES}
    assert "sampled metric" in tree["protocol"]
    assert tree["best"]["row"] == "mmoe"
    assert set(tree["best"]) == {"row", "interaction", "rating"}
    own, other = (rows[n]["heads"]["interaction"]["hr@10"]["value"] for n in ("mmoe", "popularity"))
    assert own > 0.9
    found = {(d["against"], d["metric"]): d["value"] for d in tree["differences"] if d["row"] == "mmoe"}
    assert len(found) == 8
    assert found["popularity", "hr@10"] == pytest.approx(own - other)


def test_no_choice_looks_at_the_published_lists(tmp_path, small):
    """Other negatives: the same epochs and settings."""
    found = []
    for name in ("right", "poisoned"):
        said: list[str] = []
        folder = write_set(tmp_path / name, poison=name == "poisoned")
        opened = movielens_loo.open_leave_one_out(folder, tmp_path)
        report = measure_set(opened, 1, ["mmoe", "ple", "ease"], said.append)
        found.append((said, report.as_json()["best"]["row"]))
        assert report.facts["users"] == USERS
    assert found[0] == found[1]


@pytest.mark.slow
def test_the_published_lists():
    root = os.environ.get("RECSYS_DATA")
    if root is None or not (Path(root) / "ml-1m").exists():
        pytest.skip("RECSYS_DATA has no ml-1m")
    data = read_leave_one_out(Path(root) / "ml-1m")
    matrix = positives(data.but_test, data.sides.shape).toarray()
    scores = np.take_along_axis(ease(500.0)(matrix), data.test, axis=1)
    assert hits(scores).mean() == pytest.approx(0.7098, abs=0.001), "what the set's README measured"
    popular = np.take_along_axis(np.broadcast_to(matrix.sum(axis=0), matrix.shape), data.test, axis=1)
    assert hits(popular).mean() == pytest.approx(0.4538, abs=0.005)
