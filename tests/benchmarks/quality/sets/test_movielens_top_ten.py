import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.quality.models.bags import BagSetting
from benchmarks.quality.models.catalogue_softmax import SoftmaxSetting
from benchmarks.quality.readers.timed_reader import read_timed
from benchmarks.quality.sets import movielens_top_ten as movielens_top
from recsys.cli import run

USERS, ITEMS = 30, 40
TRAIN = {
    "mmoe": lambda splits, seed: movielens_top.train_trunk(splits, "mmoe", seed),
    "catalogue_softmax": movielens_top.score_softmax,
    "ease": lambda splits, seed: movielens_top.rank(splits, "ease", seed),
    "all_together": lambda splits, seed: movielens_top.run_of(
        splits(seed),
        movielens_top.together(
            splits(seed),
            movielens_top.table_scores(splits, seed),
            movielens_top.trunk_scores(splits, "mmoe", seed),
        ),
    ),
}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(movielens_top, "BUDGET", replace(movielens_top.BUDGET, epochs=2))
    monkeypatch.setattr(movielens_top, "BAGS", BagSetting(users=8, hidden=0.3))
    monkeypatch.setattr(movielens_top, "SOFTMAX", SoftmaxSetting(epochs=30, users=8))
    monkeypatch.setattr(movielens_top, "CANDIDATES", 15)


@pytest.mark.parametrize("name", TRAIN)
def test_no_list_looks_at_the_test_movies(tmp_path, small, monkeypatch, name, write_100k):
    """Other test movies: the same setting and epoch, and scored lists that are the same to the last digit."""
    split = movielens_top.split_of(read_timed(write_100k(tmp_path / "set")), 0)
    turned = replace(split, test=replace(split.test, item=ITEMS - 1 - split.test.item))
    measure, listed = movielens_top.list_outputs, []

    def kept(head, score, of):
        listed.append(score(np.arange(USERS)).tolist())
        return measure(head, score, of)

    monkeypatch.setattr(movielens_top, "list_outputs", kept)
    found = []
    for of in (split, turned):
        done = TRAIN[name](lambda _seed, of=of: of, 0)
        found.append((done.note, [values.tolist() for values in done.validation.values()], listed[-1]))
    assert found[0] == found[1]


def test_a_quarter_of_each_user_is_the_test(tmp_path, write_100k):
    split = movielens_top.split_of(read_timed(write_100k(tmp_path / "set")), 1)
    assert (np.bincount(split.test.user) == 4).all()
    assert (np.bincount(split.validation.user) == 1).all()
    pairs = [set(zip(p.user.tolist(), p.item.tolist(), strict=True)) for p in (split.before, split.test)]
    assert len(pairs[0]) + len(pairs[1]) == USERS * 16
    assert not pairs[0] & pairs[1]


def test_the_command_ranks_the_whole_catalogue(tmp_path, small, write_100k):
    target = tmp_path / "top.json"
    arguments = ["--set", "ml-100k-top10", "--data", str(write_100k(tmp_path / "set")), "--seeds", "2"]
    arguments += ["--rows", "mmoe,all_together,catalogue_softmax,popularity,item_knn,ease"]
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
    assert against["popularity"]["verdict"] == "better"
