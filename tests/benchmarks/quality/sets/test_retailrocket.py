import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.quality.models.fitting import Budget
from benchmarks.quality.readers.caserec_reader import EVENTS, read_retailrocket
from benchmarks.quality.sets import retailrocket
from benchmarks.quality.sets.retailrocket import split_retailrocket, train_trunk
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
    right, lists = split_retailrocket(*read_retailrocket(folder))
    turned = {task: 1 - label for task, label in right.test.labels.items()}
    wrong = replace(right, test=replace(right.test, labels=turned))
    others = {head: (known, replace(test, held_out=test.known)) for head, (known, test) in lists.items()}
    shape = retailrocket.setting().trunks(retailrocket.SHAPE)["mmoe"]
    (one, _), (other, _) = (train_trunk(*of, shape, 0) for of in ((right, lists), (wrong, others)))
    assert one.note == other.note
    assert np.array_equal(one.validation["cart"], other.validation["cart"])
    assert np.array_equal(one.test["cart"], other.test["cart"])


def test_lists_hold_a_heads_own_items_and_leave_training_ones_out(folder):
    parts, lists = split_retailrocket(*read_retailrocket(folder))
    bought = parts.test.take(parts.test.labels["purchase"] > 0)
    _, of = lists["purchase"]
    assert of.held_out.sum() == bought.size
    assert of.known.sum() == parts.train.size
    assert np.array_equal(of.users, np.unique(bought.user))
    assert of.held_out.multiply(of.known).sum() == 0


def test_the_command_judges_heads_among_pairs_and_by_lists(folder, quick):
    target = folder / "rr.json"
    rows = "mmoe,single_task,all_together,bias_model,popularity,ease"
    arguments = ["--set", "retailrocket", "--data", str(folder), "--seeds", "1", "--rows", rows]
    assert run(["bench", "quality", *arguments, "--json", str(target)]) == 0
    tree = json.loads(target.read_text())
    found = {row["name"]: row["heads"] for row in tree["rows"]}
    assert set(found["mmoe"]["purchase"]) == {"list_auc", "auc", "recall@10", "ndcg@10"}
    assert set(found["mmoe"]["view"]) == {"recall@10", "ndcg@10"}
    assert set(found["ease"]) == {"view", "purchase"}
    for head in ("cart", "purchase"):
        assert found["all_together"][head]["auc"] == found["mmoe"][head]["auc"], (
            "its heads are those of a row"
        )
    assert found["bias_model"]["cart"]["auc"]["value"] > 0.9, "an item's share tells all"
    assert tree["best"]["cart"]["auc"] > 0.6
    said = {(d["row"], d["against"], d["head"], d["metric"]): d for d in tree["differences"]}
    best = tree["best"]["row"]
    figures = {(head, metric) for head in ("cart", "purchase") for metric in ("list_auc", "auc")}
    lists = {(head, metric) for head in ("view", "purchase") for metric in ("recall@10", "ndcg@10")}
    held = {(best, "bias_model", *of) for of in figures}
    held |= {(best, other, *of) for other in ("popularity", "ease") for of in lists}
    assert set(said) == held | {("mmoe", "single_task", *of) for of in figures | lists}
    for (row, against, head, metric), d in said.items():
        value = [found[name][head][metric]["value"] for name in (row, against)]
        assert d["value"] == pytest.approx(value[0] - value[1])
