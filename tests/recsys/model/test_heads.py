"""The entire-space product in log space against float64; depth, own parameters and transfer of heads."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.model.heads import Heads, Transfer, product_logit
from recsys.tasks import TaskSpec

CLICK = TaskSpec(name="click", feedback="click", head="binary", window="1h")
BUY = TaskSpec(name="buy", feedback="buy", head="binary", window="1h", parent="click")


def _reference(a, b):
    """logit(σ(a)·σ(b)) in extended precision."""
    a, b = np.longdouble(a), np.longdouble(b)
    p = 1 / ((1 + np.exp(-a)) * (1 + np.exp(-b)))
    miss = (np.exp(-a) + np.exp(-b) + np.exp(-a - b)) * p
    return float(np.log(p) - np.log(miss))


@given(a=st.floats(-60, 60), b=st.floats(-60, 60))
def test_it_is_the_logit_of_the_product(a, b):
    a, b = float(np.float32(a)), float(np.float32(b))
    found = product_logit(torch.tensor([a]), torch.tensor([b])).item()
    assert found == pytest.approx(_reference(a, b), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("a", [-1e4, -200.0, -30.0, 0.0, 30.0, 200.0, 1e4])
@pytest.mark.parametrize("b", [-1e4, -200.0, -30.0, 0.0, 30.0, 200.0, 1e4])
def test_it_is_finite_with_finite_gradients_at_both_ends(a, b):
    parent, conditional = (torch.tensor([v], requires_grad=True) for v in (a, b))
    found = product_logit(parent, conditional)
    found.backward()
    for value in (found, parent.grad, conditional.grad):
        assert torch.isfinite(value).all()
    assert parent.grad >= 0
    assert conditional.grad >= 0
    assert parent.grad + conditional.grad > 0.9, "some gradient always flows"


@given(a=st.floats(-20, 20), b=st.floats(-20, 20))
def test_a_child_is_never_more_likely_than_its_parent(a, b):
    found = product_logit(torch.tensor([a]), torch.tensor([b])).item()
    assert found <= min(a, b) + 1e-5


def test_heads_give_the_child_as_a_product():
    torch.manual_seed(0)
    heads = Heads([CLICK, BUY], 4, 8)
    hidden = {"click": torch.randn(5, 4), "buy": torch.randn(5, 4)}
    bias = {"click": torch.full((5,), 0.3), "buy": torch.full((5,), -0.2)}
    logits = heads(hidden, bias)
    parent = heads.heads["click"](hidden["click"]).squeeze(1) + 0.3
    given_parent = heads.heads["buy"](hidden["buy"]).squeeze(1) - 0.2
    torch.testing.assert_close(logits["click"], parent)
    torch.testing.assert_close(logits["buy"].sigmoid(), parent.sigmoid() * given_parent.sigmoid())


def test_a_purchase_trains_the_click_too():
    heads = Heads([CLICK, BUY], 4, 8)
    hidden = {"click": torch.randn(5, 4), "buy": torch.randn(5, 4)}
    heads(hidden, {n: torch.zeros(5) for n in hidden})["buy"].sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in heads.heads["click"].parameters())


def test_a_head_has_its_own_depth():
    deep = BUY.model_copy(update={"hidden": (6, 3)})
    none = CLICK.model_copy(update={"hidden": ()})
    heads = Heads([none, deep], 4, 8)
    shapes = {name: tuple(p.shape) for name, p in heads.heads.named_parameters() if p.dim() == 2}
    assert shapes == {
        "click.0.weight": (1, 4),
        "buy.0.weight": (6, 4),
        "buy.2.weight": (3, 6),
        "buy.4.weight": (1, 3),
    }
    assert Heads([CLICK], 4, 8).heads["click"][0].weight.shape == (8, 4)


def _transferred(parent):
    buy = BUY.model_copy(update={"transfer_from": "click", "parent": parent, "hidden": (5,)})
    torch.manual_seed(1)
    return Heads([CLICK, buy], 4, 8)


@pytest.mark.parametrize("parent", [None, "click"])
def test_transfer_lets_a_head_read_the_earlier_one(parent):
    """Without a transfer and a parent, a change of the click's hidden vector leaves the purchase alone."""
    own, earlier, other = (torch.randn(7, 4, generator=torch.Generator().manual_seed(n)) for n in range(3))
    zero = {"click": torch.zeros(7), "buy": torch.zeros(7)}
    heads = _transferred(parent)
    one = heads({"click": earlier, "buy": own}, zero)
    two = heads({"click": other, "buy": own}, zero)
    assert (one["buy"] != two["buy"]).all()
    plain = Heads([CLICK, BUY.model_copy(update={"parent": None})], 4, 8)
    assert torch.equal(
        plain({"click": earlier, "buy": own}, zero)["buy"], plain({"click": other, "buy": own}, zero)["buy"]
    )
    if parent is not None:
        assert (one["buy"] <= one["click"] + 1e-6).all()


@pytest.mark.parametrize("parent", [None, "click"])
def test_every_part_of_a_transfer_is_trained_and_so_is_the_earlier_head(parent):
    heads = _transferred(parent)
    hidden = {"click": torch.randn(64, 4), "buy": torch.randn(64, 4)}
    heads(hidden, {n: torch.zeros(64) for n in hidden})["buy"].square().sum().backward()
    idle = {n for n, p in heads.named_parameters() if p.grad is None or not p.grad.any()}
    # The click's output layer is the parent's; its hidden layer is what is transferred.
    assert idle == ({"heads.click.2.weight", "heads.click.2.bias"} if parent is None else set())


def test_transfer_is_the_attention_of_the_paper():
    transfer = Transfer(3, 2)
    own, earlier = torch.randn(4, 2), torch.randn(4, 3)
    parts = [transfer.inform(earlier), own]
    scores = [(transfer.query(u) * transfer.key(u)).sum(1) / 2**0.5 for u in parts]
    weights = [s.exp() / (scores[0].exp() + scores[1].exp()) for s in scores]
    expected = sum(w[:, None] * transfer.value(u) for w, u in zip(weights, parts, strict=True))
    torch.testing.assert_close(transfer(own, earlier), expected)


def test_own_parameters_are_a_partition_of_all():
    heads = _transferred("click")
    own = [id(p) for name in ("click", "buy") for p in heads.own_parameters(name)]
    assert sorted(own) == sorted(id(p) for p in heads.parameters())


def test_a_task_may_be_called_as_a_method_of_torch():
    torch.manual_seed(0)
    tasks = [
        TaskSpec(name="apply", feedback="apply", head="binary", window="1h"),
        TaskSpec(name="train", feedback="hire", head="binary", window="1h", transfer_from="apply"),
    ]
    heads = Heads(tasks, 4, 3)
    again = Heads(tasks, 4, 3)
    again.load_state_dict(heads.state_dict())
    names = ("apply", "train")
    hidden, bias = dict.fromkeys(names, torch.ones(2, 4)), dict.fromkeys(names, torch.zeros(2))
    found = heads.eval()(hidden, bias)
    assert tuple(found) == names
    assert all(torch.equal(v, again(hidden, bias)[k]) for k, v in found.items())
    assert {id(p) for t in names for p in heads.own_parameters(t)} == {id(p) for p in heads.parameters()}
