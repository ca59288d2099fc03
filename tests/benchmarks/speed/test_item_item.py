"""The bench of item-item weights: what it measures, on a small log."""

import json

import numpy as np

from benchmarks.speed import item_item
from benchmarks.speed.item_item import draw_histories
from recsys.cli import run
from recsys.item_item.histories import MOST_EVENTS


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
