import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.quality.caserec import retailrocket
from benchmarks.quality.caserec.reader import EVENTS, read_retailrocket
from benchmarks.quality.caserec.retailrocket import Found, evaluated, split_retailrocket, train_trunk
from benchmarks.quality.models.fitting import Budget
from recsys.cli import run

VISITORS, ITEMS = 30, 25


@pytest.fixture
def folder(tmp_path):
    """Visitors view even or odd items, and buy what every third item is."""
    rng = np.random.default_rng(0)
    lines = {task: ["visitorid\titemid\tevent"] for task in EVENTS}
    for visitor in range(VISITORS):
        for item in rng.permutation(np.arange(visitor % 2, ITEMS, 2))[:10]:
            line = f"{visitor + 1}\t{item + 1}\t1"
            lines["view"].append(line)
            if item % 3 == 0:
                lines["cart"].append(line)
            if item % 3 == 0 and rng.random() < 0.8:
                lines["purchase"].append(line)
    with zipfile.ZipFile(tmp_path / "Retailrocket_Ecommerce.zip", "w") as archive:
        for task, name in EVENTS.items():
            archive.writestr(f"RetailRocket/{name}_ecommerce.dat", "\n".join(lines[task]))
    return tmp_path


@pytest.fixture
def quick(monkeypatch):
    budget = Budget(epochs=3, learning_rate=1e-2, sparse_learning_rate=0.2, weight_decay=0, decay=0.9)
    monkeypatch.setattr(retailrocket, "BUDGET", budget)
    monkeypatch.setattr(retailrocket, "BATCH_SIZE", 128)
    monkeypatch.setattr(retailrocket, "DIM", 8)


def test_no_choice_looks_at_the_test_part(folder, quick):
    right = split_retailrocket(*read_retailrocket(folder))
    turned = {task: 1 - label for task, label in right.test.labels.items()}
    wrong = replace(right, test=replace(right.test, labels=turned), lists={})
    shape = retailrocket.setting().trunks(retailrocket.SHAPE)["mmoe"]
    (one, epoch), (other, same) = (train_trunk(parts, shape, 0) for parts in (right, wrong))
    assert epoch == same
    found = [evaluated(m, right.validation, right.known_lists).among["cart"] for m in (one, other)]
    assert np.array_equal(found[0], found[1])


def test_lists_hold_a_heads_own_items_and_leave_training_ones_out(folder):
    parts = split_retailrocket(*read_retailrocket(folder))
    bought = parts.test.take(parts.test.labels["purchase"] > 0)
    of = parts.lists["purchase"]
    assert of.held_out.sum() == bought.size
    assert of.known.sum() == parts.train.size
    assert np.array_equal(of.users, np.unique(bought.user))
    assert of.held_out.multiply(of.known).sum() == 0


def test_the_command_judges_heads_among_pairs_and_by_lists(folder, quick):
    target = folder / "rr.json"
    rows = "mmoe,single_task,bias_model,popularity,ease"
    arguments = ["--set", "retailrocket", "--data", str(folder), "--seeds", "1", "--rows", rows]
    assert run(["bench", "quality", *arguments, "--json", str(target)]) == 0
    tree = json.loads(target.read_text())
    found = {row["name"]: row["heads"] for row in tree["rows"]}
    assert set(found["mmoe"]["purchase"]) == {"auc", "recall@10", "ndcg@10"}
    assert set(found["mmoe"]["view"]) == {"recall@10", "ndcg@10"}
    assert set(found["ease"]) == {"view", "purchase"}
    assert found["bias_model"]["cart"]["auc"]["value"] > 0.9, "an item's share tells all"
    assert tree["best"]["cart"]["auc"] > 0.6
    said = {(d["row"], d["against"], d["head"], d["metric"]): d for d in tree["differences"]}
    best = tree["best"]["row"]
    figures = {("cart", "auc"), ("purchase", "auc")}
    lists = {(head, metric) for head in ("view", "purchase") for metric in ("recall@10", "ndcg@10")}
    held = {(best, "bias_model", *of) for of in figures}
    held |= {(best, other, *of) for other in ("popularity", "ease") for of in lists}
    assert set(said) == held | {("mmoe", "single_task", *of) for of in figures | lists}
    for (row, against, head, metric), d in said.items():
        value = [found[name][head][metric]["value"] for name in (row, against)]
        assert d["value"] == pytest.approx(value[0] - value[1])


def test_validation_chooses_and_the_verdicts_are_of_the_test(folder, monkeypatch):
    """One trunk knows the validation labels, the other the test's; lists are the same."""
    test = split_retailrocket(*read_retailrocket(folder)).test
    monkeypatch.setattr(retailrocket, "train_trunk", lambda _parts, shape, _seed: (shape.name, 1))

    def known(name, held_out, lists):
        knows = (name == "mmoe") == (held_out.size == test.size)
        among = {h: held_out.labels[h] if knows else 1 - held_out.labels[h] for h in ("cart", "purchase")}
        values = {h: np.full(of.users.size, 0.4) for h, of in lists.items()}
        return Found(among=among, lists={h: {"recall": v, "ndcg": v} for h, v in values.items()})

    monkeypatch.setattr(retailrocket, "evaluated", known)
    asked = ["mmoe", "single_task", "bias_model"]
    tree = retailrocket.measure_retailrocket(folder, 2, asked, lambda _: None).as_json()
    assert tree["best"]["row"] == "single_task"
    assert tree["best"]["cart"]["auc"] == 0
    said = {(d["row"], d["against"], d["head"], d["metric"]): d for d in tree["differences"]}
    for head in ("cart", "purchase"):
        shared, biases = (
            said[of, against, head, "auc"]
            for of, against in (("mmoe", "single_task"), ("single_task", "bias_model"))
        )
        assert (shared["value"], shared["verdict"]) == (1, "helps")
        assert (biases["value"] < -0.5, biases["verdict"]) == (True, "hurts")
    assert said["mmoe", "single_task", "view", "ndcg@10"]["verdict"] == "no evidence"
