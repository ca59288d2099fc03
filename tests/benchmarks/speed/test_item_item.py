"""The bench of item-item weights: what it measures, on a small log."""

import json

import numpy as np

from benchmarks.speed import item_item
from benchmarks.speed.item_item import draw_histories, write_snapshot
from recsys.cli import run
from recsys.config import default_config
from recsys.item_item.ease import build_ease
from recsys.item_item.histories import MOST_EVENTS
from recsys.item_item.pair_counts import count_pairs
from training.item_item import item_item_table


def test_a_small_log_is_measured(tmp_path, capsys):
    file = tmp_path / "out.json"
    sizes = ["--items", "300", "--events", "4000", "--users", "200", "--repeats", "3"]
    assert run(["bench", "item-item", *sizes, "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert (found["items"], found["users"]) == (300, 200)
    assert found["pairs"] > found["events"] > 3000
    for name in ("item_knn", "ease"):
        assert found[name]["score_ms"] > 0
        assert found[name]["peak_mb"] > 0
        assert 0 < found[name]["neighbours"] <= 200
    assert found["night"]["most_neighbours"] == 200
    assert found["night"]["peak_mb"] > 0


def test_a_nights_table_is_that_of_the_histories(tmp_path):
    histories = draw_histories(120, 3000, 60, seed=1)
    snapshot = write_snapshot(histories, 120, tmp_path)
    night = item_item_table(snapshot, default_config(), snapshot.table("items")["item_id"])
    own = build_ease(count_pairs(histories, 120), default_config().item_item.penalty)
    np.testing.assert_allclose(night.matrix().toarray(), own.matrix().toarray(), atol=1e-6)


def test_repeats_and_seed_are_those_that_were_asked_for(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(item_item, "score_ms", lambda _, repeats, seed: asked.append((repeats, seed)) or 1.0)
    pairs = []
    for seed in ("4", "5"):
        sizes = ["--items", "100", "--events", "1000", "--users", "20", "--repeats", "7", "--seed", seed]
        assert run(["bench", "item-item", *sizes]) == 0
        pairs.append(json.loads(capsys.readouterr().out)["pairs"])
    assert asked == [(7, 4), (7, 4), (7, 5), (7, 5)]
    assert pairs[0] != pairs[1]


def test_users_keep_to_their_group_and_to_their_latest_events():
    found = draw_histories(5_000, 60_000, 100, seed=0)
    assert found.counts.max() == MOST_EVENTS
    own = (found.items % 5 == found.users % 5).mean()
    assert 0.7 < own < 0.8
    assert (np.diff(found.days)[found.users[1:] == found.users[:-1]] > 0).all()
