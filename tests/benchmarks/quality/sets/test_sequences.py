"""The set of sequences: choices on validation alone, rows, JSON, and Amazon Beauty where it is there."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.quality.driver import measure_set
from benchmarks.quality.models import closed_forms, next_item_encoders
from benchmarks.quality.models.closed_forms import Choice, Model, climb, fit_ours
from benchmarks.quality.models.next_items import leave_last_out, rank
from benchmarks.quality.readers.sequence_reader import read_sequences
from benchmarks.quality.sets import sequences
from benchmarks.quality.sets.sequences import open_sequences
from recsys.cli import run
from recsys.item_item.directed import Setting
from recsys.item_item.ease import ease_weights
from recsys.item_item.pair_counts import count_pairs
from recsys.item_item.recency import STEPS, PerStep
from recsys.model.sequence.encoder import EncoderShape

USERS, ITEMS = 120, 40


@pytest.fixture
def folder(tmp_path):
    """Users walk along their own ring of items, so what comes next is told by order alone."""
    rng = np.random.default_rng(0)
    lines = []
    for user in range(USERS):
        ring = [item for item in range(ITEMS) if item % 4 == user % 4]
        start = rng.integers(len(ring))
        walk = [ring[(start + step) % len(ring)] for step in range(rng.integers(4, 8))]
        lines.append(f"{user} {' '.join(map(str, walk))}")
    (tmp_path / "Ring.txt").write_text("\n".join(lines))
    return tmp_path


@pytest.mark.usefixtures("small_encoders")
def test_every_row_is_measured_and_order_beats_ease(folder, capsys):
    file = folder / "out.json"
    args = ["bench", "quality", "--set", "sequences", "--data", str(folder), "--json", str(file)]
    assert run(args) == 0
    tree = json.loads(file.read_text())
    by_row = {name: of["next_item"] for name, of in tree["by_row"].items()}
    assert list(by_row) == [
        "item_item", "hstu", "all_together", "ease_recency", "ease", "item_knn", "popular"
    ]  # fmt: skip
    assert {row["name"]: row["seeds"] for row in tree["rows"]}["hstu"] == 1
    assert tree["best"]["row"] in ("item_item", "hstu", "all_together")
    assert tree["best"]["next_item"] == by_row[tree["best"]["row"]]
    assert set(by_row["popular"]) == {"recall_at_10", "ndcg_at_10", "mrr", "coverage_at_10", "novelty_at_10"}
    gains = [by_row[name]["ndcg_at_10"] for name in ("item_item", "ease_recency", "ease", "popular")]
    assert gains == sorted(gains, reverse=True)
    assert gains[1] > 0.9 > gains[2] + 0.1 > gains[3] + 0.5
    assert all(row["costs"]["train_s"] >= 0 and row["costs"]["peak_mb"] > 0 for row in tree["rows"])
    assert tree["facts"]["tested_users"] == USERS
    assert tree["published"] == {}


def test_rows_without_order_are_trained_on_request(folder):
    found = measure_set(open_sequences(folder, folder), 1, ["item_item_no_order"], lambda _: None)
    assert [row.name for row in found.rows] == ["item_item_no_order"]
    assert "steps 0" in found.rows[0].note
    assert found.rows[0].heads["next_item"]["ndcg_at_10"].validation is not None


@pytest.fixture
def small_encoders(monkeypatch):
    """Make the encoders' rows small and quick to train."""
    shape = EncoderShape(dim=16, num_layers=1, widen=1, dropout=0.1)
    for name, setting in next_item_encoders.SETTINGS.items():
        small = replace(setting, shape=shape, users=32, negatives=20, learning_rate=0.02, epochs=6)
        monkeypatch.setitem(next_item_encoders.SETTINGS, name, small)


@pytest.mark.usefixtures("small_encoders")
def test_encoders_learn_order_and_are_no_worse_beside_item_item(folder):
    names = ["item_item", "sasrec", "hstu", "all_together"]
    found = measure_set(open_sequences(folder, folder), 1, names, lambda _: None)
    by_row = {row.name: row.heads["next_item"]["ndcg_at_10"] for row in found.rows}
    assert set(by_row) == set(names)
    assert min(by_row[name].value for name in ("sasrec", "hstu")) > 0.8, "EASE, without order, has less"
    assert by_row["all_together"].validation >= by_row["item_item"].validation - 0.01
    notes = {row.name: row.note for row in found.rows}
    assert "epochs" in notes["hstu"]
    assert "x hstu" in notes["all_together"]


@pytest.mark.usefixtures("small_encoders")
def test_of_many_events_an_encoder_is_trained_on_request_alone(folder, monkeypatch):
    monkeypatch.setattr(sequences, "MOST_POSITIONS", 100)
    rows = open_sequences(folder, folder).rows
    on_request = ["hstu", "all_together", "sasrec", "sasrec_no_attributes"]
    assert [name for name in on_request if not rows[name].on_request] == []


@pytest.mark.usefixtures("small_encoders")
@pytest.mark.parametrize("name", ["item_item", "ease_recency", "item_knn", "sasrec"])
def test_no_choice_and_no_fit_looks_at_test_items(folder, name):
    lines = (folder / "Ring.txt").read_text().splitlines()
    before = measure_set(open_sequences(folder, folder), 1, [name], lambda _: None).rows[0]
    other = [f"{line.rsplit(' ', 1)[0]} {ITEMS - 1 - int(line.split()[-1])}" for line in lines]
    (folder / "Ring.txt").write_text("\n".join(other))
    after = measure_set(open_sequences(folder, folder), 1, [name], lambda _: None).rows[0]
    assert before.note.split(" train ")[0] == after.note.split(" train ")[0]
    assert before.validation == after.validation
    assert before.heads["next_item"]["novelty_at_10"].value == pytest.approx(
        after.heads["next_item"]["novelty_at_10"].value
    )


def test_a_set_in_which_nobody_has_enough_items_is_refused(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("1 2 3\n2 3 4")
    assert run(["bench", "quality", "--set", "sequences", "--data", str(tmp_path)]) == 3
    assert "no user has 3 items" in capsys.readouterr().err


def test_above_eases_size_the_rows_are_the_sparse_ones(folder, monkeypatch):
    for name in (
        sequences.__name__,
        closed_forms.__name__,
        "recsys.item_item.directed",
        "recsys.item_item.ease",
    ):
        monkeypatch.setattr(f"{name}.MOST_ITEMS", ITEMS - 1)
    monkeypatch.setattr(sequences, "MOST_POSITIONS", 0)  # without the encoder
    found = measure_set(open_sequences(folder, folder), 1, [], lambda _: None)
    assert [row.name for row in found.rows] == ["item_item", "item_knn", "popular"]
    assert found.rows[0].heads["next_item"]["ndcg_at_10"].value > 0.8
    assert "shrinkage" in found.rows[0].note


def test_the_climb_goes_up_then_down_and_keeps_zeros():
    start = Setting(penalty=100.0, steps=2.0, attributes=0.0)

    def worth(setting: Setting) -> float:
        return -abs(setting.penalty - 25) - abs(setting.steps - 8)

    assert climb(start, worth) == replace(start, penalty=25.0, steps=8.0)
    assert climb(start, lambda setting: setting.penalty).penalty == 100.0 * 2**closed_forms.MOST_CLIMBS


def test_recency_is_chosen_once_more_on_the_whole_catalogue(folder, monkeypatch):
    validation, _ = leave_last_out(read_sequences(folder))
    monkeypatch.setattr(Choice, "setting", lambda _, **__: (Setting(), STEPS[0]))
    monkeypatch.setattr(Choice, "recency", lambda _, __, ___, laws: laws[-1])
    assert sequences.choose_ours(Choice(validation)).note.endswith(f"history {STEPS[1]}")


def test_ease_that_is_kept_is_of_the_same_part_and_penalty(folder):
    validation, test = leave_last_out(read_sequences(folder))
    ease = closed_forms.Ease()
    kept = ease.fit(test, 100.0)
    assert ease.fit(test, 100.0) is kept
    for part, penalty in ((test, 200.0), (validation, 200.0)):
        expected = ease_weights(count_pairs(part.known, part.num_items), penalty)
        np.testing.assert_array_equal(ease.fit(part, penalty), expected)


@pytest.mark.data
@pytest.mark.slow
def test_amazon_beauty_gives_the_figures_of_ease(data):
    """Figures of a first measurement, by other code: penalty 100, no choice of anything."""
    folder = data / "amazon_beauty_5core"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    _, test = leave_last_out(read_sequences(folder))
    weights = ease_weights(count_pairs(test.known, test.num_items), 100.0)
    for factor, found, gain in ((1.0, 0.0781, 0.0434), (0.7, 0.0892, 0.0532)):
        values = rank(Model(weights=weights, recency=PerStep(factor)).scorer(test), test).values()
        assert values["recall_at_10"].mean() == pytest.approx(found, abs=1e-4)
        assert values["ndcg_at_10"].mean() == pytest.approx(gain, abs=1e-4)
    ours = Model(weights=fit_ours(test, Setting()), recency=PerStep(0.7)).scorer(test)
    assert rank(ours, test).values()["ndcg_at_10"].mean() > 0.065


def test_settings_of_a_set_without_attributes_use_none(folder):
    validation, _ = leave_last_out(read_sequences(folder))
    assert Choice(validation).setting()[0].attributes == 0
    assert Choice(validation).setting(order=False)[0].steps == 0
