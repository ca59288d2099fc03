"""The entire-space product in log space against float64, at both ends."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.model.heads import Heads, product_logit
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
