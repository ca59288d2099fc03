"""Order inside lists: the loss by hand, what it pulls at, that its minimum is calibrated, what it teaches."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from recsys.batch import Batch, HistoryIndex
from training.data.pairs import Pairs
from training.objective import list_loss, task_losses


def _pairs(label, lists=None):
    label = np.asarray(label, float)
    lists = np.zeros(label.size) if lists is None else np.asarray(lists)
    return Pairs.of(lists, label).tensors(np.arange(label.size))


def _batch(label, lists=None, observed=None):
    none, size = torch.zeros(0), len(label)
    return Batch(
        rows={},
        index={},
        item_text_UT=none,
        user_numbers_BF=none,
        item_numbers_BF=none,
        context_numbers_BF=none,
        cross_numbers_BF=none,
        item_text_BT=none,
        history=HistoryIndex.empty(size),
        position_B=torch.zeros(size),
        labels={"click": torch.tensor(label)},
        observed={"click": torch.ones(size, dtype=torch.bool) if observed is None else observed},
        pairs={"click": _pairs(label, lists)},
    )


@pytest.fixture
def click(config):
    def make(weight):
        return config.tasks[0].model_copy(update={"list_weight": weight})

    return make


def test_by_hand():
    logits = torch.tensor([[1.0, 0.0, -1.0, 2.0, 2.0]])
    pairs = _pairs([1, 0, 0, 1, 0], lists=[0, 0, 0, 1, 1])
    # 3 rows / 2 pairs * (log(1 + e^-1) + log(1 + e^-2)) + 2 rows / 1 pair * log 2
    wanted = 1.5 * (0.3132617 + 0.1269280) + 2 * 0.6931472
    assert float(list_loss(logits, pairs)) == pytest.approx(wanted, rel=1e-6)
    members = torch.cat([logits, torch.zeros_like(logits)])
    assert float(list_loss(members, pairs)) == pytest.approx((wanted + 5 * 0.6931472) / 2, rel=1e-6)


def test_it_raises_positives_above_negatives_of_their_list_and_moves_no_list():
    logits = torch.tensor([[0.3, 0.1, -0.2, 4.0, -4.0]], requires_grad=True)
    list_loss(logits, _pairs([0, 1, 0, 1, 1], lists=[0, 0, 0, 1, 1])).backward()
    down, up, also_down, *of_one_label = logits.grad[0].tolist()
    assert up < 0 < down
    assert also_down > 0
    assert down > also_down, "what stands higher is pushed harder"
    assert up + down + also_down == pytest.approx(0, abs=1e-6)
    assert of_one_label == [0, 0]


def test_it_is_added_per_observed_example_and_weighed(click):
    label, logits = [1.0, 0.0, 0.0], torch.tensor([0.2, 0.5, 0.1])
    batch = _batch(label, observed=torch.tensor([True, True, False]))
    plain, some, more = (
        float(task_losses({"click": logits}, batch, [click(w)])["click"]) for w in (0.0, 0.5, 1.0)
    )
    assert more - plain == pytest.approx(2 * (some - plain), rel=1e-5)
    assert more - plain == pytest.approx(float(list_loss(logits[None], batch.pairs["click"])) / 2, rel=1e-5)


@pytest.mark.parametrize("weight", [0.3, 3.0])
def test_the_least_sum_of_both_losses_is_calibrated(click, weight):
    """Three rows of known chances, all eight outcomes of their labels: predictions become the chances."""
    chances = torch.tensor([0.7, 0.3, 0.05])
    logits = torch.zeros(3, requires_grad=True)
    outcomes = [list(labels) for labels in product((0.0, 1.0), repeat=3)]
    likely = [float(torch.where(torch.tensor(y) > 0, chances, 1 - chances).prod()) for y in outcomes]
    batches = [_batch(labels) for labels in outcomes]
    optimizer = torch.optim.LBFGS([logits], max_iter=100, line_search_fn="strong_wolfe")

    def expected():
        optimizer.zero_grad()
        losses = [task_losses({"click": logits}, batch, [click(weight)])["click"] for batch in batches]
        total = sum(p * loss for p, loss in zip(likely, losses, strict=True))
        total.backward()
        return total

    optimizer.step(expected)
    assert torch.allclose(logits.sigmoid(), chances, atol=1e-3)


def test_it_learns_an_order_that_popularity_has_the_wrong_way_round(click):
    """Item 0 is shown to users who click much, item 1 to all; whoever sees both prefers item 1.

    The model knows items alone, as one that cannot tell such users apart.
    """
    item, label, lists = [], [], []
    for n in range(40):
        item += [0, 1] if n % 4 == 0 else [0, 0]  # users who click much
        label += [0.0, 1.0] if n % 4 == 0 else [1.0, 1.0]
        item += [1, 1]  # users who click little
        label += [0.0, 1.0] if n % 4 == 0 else [0.0, 0.0]
        lists += [2 * n, 2 * n, 2 * n + 1, 2 * n + 1]
    item = torch.tensor(item)
    batch = _batch(label, lists)

    def logits_of(weight):
        items = nn.Parameter(torch.zeros(2))
        optimizer = torch.optim.Adam([items], lr=0.1)
        for _ in range(200):
            optimizer.zero_grad()
            task_losses({"click": items[item]}, batch, [click(weight)])["click"].backward()
            optimizer.step()
        return items.tolist()

    popular, better = logits_of(0.0)
    assert popular > better
    popular, better = logits_of(10.0)
    assert better > popular


def test_shares_of_ranks_add_up(click):
    label, lists, logits = [1.0, 0.0, 1.0, 0.0, 0.0], [0, 0, 1, 1, 1], torch.linspace(-1, 1, 5)
    whole = float(task_losses({"click": logits}, _batch(label, lists), [click(1.0)])["click"])
    told = SimpleNamespace(observed=torch.tensor([5.0]))
    shares = [
        float(task_losses({"click": logits[s]}, _batch(label[s], lists[s]), [click(1.0)], told)["click"])
        for s in (slice(0, 2), slice(2, 5))
    ]
    assert sum(shares) == pytest.approx(whole, rel=1e-6)
