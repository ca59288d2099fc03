"""The retrieval loss against a plain loop; inverse-propensity weights by hand and against a planted bias."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recsys.batch import Batch, HistoryIndex, Negatives
from training.objective import MAX_IPS_WEIGHT, ips_mean, retrieval_loss
from training.sampled_softmax import sampled_softmax

TEMPERATURE = 0.2


class Towers:
    """An item tower that returns its numbers: the loss needs nothing else of a ranker."""

    inputs = SimpleNamespace(item_tables=())

    def looked_up(self, negatives, rows, entity):
        return []

    def item_side(self, rows, numbers, text):
        return SimpleNamespace(embedding_BD=numbers)


def _unit(rows, seed):
    drawn = torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=1)


def _loss(labels, users, items, drawn, share=None, uniform=0.5):
    """Make the batch of a few examples; items and drawn are catalogue rows."""
    count = len(items)
    empty = torch.zeros(0)
    share = dict.fromkeys(range(20), 0.1) if share is None else share
    positive = [n for n, label in enumerate(labels) if label > 0.5]
    negatives = Negatives(
        index={}, numbers_MF=_unit(len(drawn), 2), text_MT=empty,
        share_M=torch.tensor([share[i] for i in drawn]), share_B=torch.tensor([share[i] for i in items]),
        uniform=uniform, user_B=torch.tensor(users), item_M=torch.tensor(drawn), item_B=torch.tensor(items),
        positive_P=torch.tensor(positive, dtype=torch.long), num_positives=len(positive),
    )  # fmt: skip
    batch = Batch(
        rows={},
        index={},
        item_text_UT=empty,
        user_numbers_BF=empty,
        item_numbers_BF=empty,
        context_numbers_BF=empty,
        cross_numbers_BF=empty,
        item_text_BT=empty,
        history=HistoryIndex.empty(count),
        position_B=torch.zeros(count),
        labels={},
        observed={},
        negatives=negatives,
    )
    user, item = SimpleNamespace(embedding_BD=_unit(count, 0)), SimpleNamespace(embedding_BD=_unit(count, 1))
    return retrieval_loss(Towers(), batch, {}, user, item, TEMPERATURE)


def _plain(labels, users, items, drawn, share, uniform):
    user, own, other = _unit(len(items), 0), _unit(len(items), 1), _unit(len(drawn), 2)
    positive = [n for n, label in enumerate(labels) if label > 0.5]
    losses = []
    for p in positive:
        terms = {}
        for n in positive:
            masked = n != p and (items[n] == items[p] or users[n] == users[p])
            if not masked:
                terms[("own", n)] = (user[p] @ own[n]).item() / TEMPERATURE - math.log(
                    share[items[n]] * len(positive) + uniform
                )
        for m, item in enumerate(drawn):
            if item != items[p]:
                terms[("drawn", m)] = (user[p] @ other[m]).item() / TEMPERATURE - math.log(
                    share[item] * len(positive) + uniform
                )
        losses.append(np.logaddexp.reduce(list(terms.values())) - terms[("own", p)])
    return float(np.mean(losses))


@pytest.mark.parametrize(
    ("labels", "users", "items", "drawn"),
    [
        ([1.0, 1.0, 1.0], [1, 2, 3], [4, 5, 6], [7, 8]),
        ([1.0, 0.0, 1.0], [1, 2, 3], [4, 5, 6], [7, 8]),
        ([1.0, 1.0, 1.0], [1, 2, 3], [4, 4, 6], [4, 8]),
        ([1.0, 1.0, 1.0], [1, 1, 3], [4, 5, 6], [7, 6]),
        ([1.0], [1], [4], [4]),
    ],
    ids=["plain", "a negative", "duplicate items", "one user's positives", "only itself"],
)
def test_it_is_the_plain_rule(labels, users, items, drawn):
    share = {n: 0.01 * (n + 1) for n in range(20)}
    found = _loss(labels, users, items, drawn, share, 0.25).item()
    assert found == pytest.approx(_plain(labels, users, items, drawn, share, 0.25), abs=1e-5)


def test_its_gradients_are_those_of_finite_differences():
    draw = torch.Generator().manual_seed(0)
    user, item, correction = (torch.randn(*s, generator=draw).double() for s in ((3, 2), (5, 2), (5,)))
    place = torch.tensor([1, 0, 4])
    hidden = torch.rand(3, 5, generator=draw) < 0.4
    hidden.scatter_(1, place[:, None], value=False)
    assert hidden.any()
    parts = (user.requires_grad_(), item.requires_grad_(), correction, hidden, place)
    assert torch.autograd.gradcheck(sampled_softmax, parts)


def test_without_positives_or_candidates_it_is_nothing():
    assert _loss([0.0, 0.0], [1, 2], [3, 4], [5]).item() == 0


def test_a_popular_item_is_corrected_down_by_how_often_it_comes():
    """The correction counts positives, not impressions."""
    rare, popular = (dict.fromkeys(range(20), s) for s in (1e-6, 0.5))
    mixed = {**rare, 5: 0.5}
    args = ([1.0, 1.0, 0.0, 0.0, 0.0, 0.0], [1, 2, 3, 4, 5, 6], [4, 5, 6, 7, 8, 9], [10])
    found = _loss(*args, share=mixed).item()
    assert found == pytest.approx(_plain(*args, mixed, 0.5), abs=1e-5)
    assert found != pytest.approx(_loss(*args, share=popular).item())


def test_ips_weighs_each_observed_loss_by_its_propensity():
    p = torch.tensor([0.2, 0.4, 0.8, 0.5])
    observed = torch.tensor([True, True, True, False])
    loss = torch.tensor([1.0, 2.0, 4.0, 1e6])
    weights = (1 / p)[:3]
    expected = (weights * loss[:3]).sum() / weights.sum()
    assert ips_mean(loss, observed, torch.logit(p)).item() == pytest.approx(expected.item(), rel=1e-5)


def test_ips_weights_are_clipped_and_finite_at_any_propensity():
    loss, observed = torch.tensor([1.0, 5.0]), torch.ones(2, dtype=torch.bool)
    found = ips_mean(loss, observed, torch.tensor([-200.0, 200.0])).item()
    # The mean propensity is 1/2, so the second example weighs 1/2 and the first what clipping leaves it.
    assert found == pytest.approx((MAX_IPS_WEIGHT * 1 + 0.5 * 5) / (MAX_IPS_WEIGHT + 0.5))
    low = torch.full((2,), -300.0, requires_grad=True)
    value = ips_mean(loss, observed, low)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(low.grad).all()


def test_propensities_learn_the_share_observed_and_nothing_from_the_loss():
    observed = torch.arange(10) < 3
    observation = torch.zeros(10, requires_grad=True)
    gradients = []
    for loss in (torch.ones(10), torch.arange(10.0)):
        observation.grad = None
        ips_mean(loss, observed, observation).backward()
        gradients.append(observation.grad.clone())
    assert torch.equal(gradients[0], gradients[1])
    torch.testing.assert_close(gradients[0], (0.5 - observed.float()) / 10)


def test_a_batch_with_nothing_observed_teaches_the_propensities_nothing():
    observation = torch.zeros(4, requires_grad=True)
    value = ips_mean(torch.ones(4), torch.zeros(4, dtype=torch.bool), observation)
    value.backward()
    assert value.item() == 0
    assert not observation.grad.any()


@pytest.mark.parametrize("debiased", [False, True])
def test_ips_finds_what_everybody_would_rate_where_only_fans_do(debiased):
    """y = x², told more often where x is large; a line is fitted. Over everybody it is flat at 1."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, generator=generator)
    observed = torch.rand(20_000, generator=generator) < torch.sigmoid(1.2 * x - 1)
    line, chance = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    optimiser = torch.optim.Adam([line, chance], lr=0.05)
    for _ in range(300):
        loss = (line[0] + line[1] * x - x.square()).square()
        mean = ips_mean(loss, observed, chance[0] + chance[1] * x) if debiased else loss[observed].mean()
        optimiser.zero_grad()
        mean.backward()
        optimiser.step()
    off = (line.detach() - torch.tensor([1.0, 0.0])).abs().max().item()
    if debiased:
        assert chance.tolist() == pytest.approx([-1.0, 1.2], abs=0.1), (
            "the propensities are those of the draw"
        )
        assert off < 0.25
    else:
        assert off > 0.5
