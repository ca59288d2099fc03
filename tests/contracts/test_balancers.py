"""Every balancer: learns a two-task toy, reports finite weights, leaves gradients on the boundary."""

import math

import pytest
import torch

from recsys.errors import ConfigError
from training.balancing import BALANCERS, build_balancer
from training.balancing.gradients import Aggregated
from training.errors import DivergedError


@pytest.fixture(params=sorted(BALANCERS))
def balancer(request):
    return build_balancer(request.param, {"a": 1.0, "b": 1.0})


class Toy:
    """Two regressions from shared rows (the boundary) through one shared layer."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.rows = torch.randn(32, 6, generator=generator)
        self.shared = torch.nn.Parameter(torch.randn(6, 4, generator=generator) * 0.3)
        self.heads = {name: torch.nn.Parameter(torch.randn(4, generator=generator) * 0.3) for name in "ab"}
        self.target = {"a": self.rows[:, 0], "b": 100 * self.rows[:, 1]}
        self.leaf = self.rows.clone().requires_grad_()

    @property
    def parameters(self):
        return [self.shared, *self.heads.values()]

    def losses(self):
        hidden = (self.leaf @ self.shared).tanh()
        scale = {"a": 1.0, "b": 1e-4}
        return {n: scale[n] * (hidden @ w - self.target[n]).square().mean() for n, w in self.heads.items()}


def test_it_learns_two_tasks(balancer):
    toy = Toy()
    optimiser = torch.optim.Adam(toy.parameters, lr=0.05)
    before = {n: v.item() for n, v in toy.losses().items()}
    for _ in range(150):
        optimiser.zero_grad()
        toy.leaf.grad = None
        report = balancer.backward(toy.losses(), toy.parameters, [toy.leaf])
        optimiser.step()
    after = {n: v.item() for n, v in toy.losses().items()}
    assert all(after[n] < before[n] for n in after)
    assert sum(after.values()) < 0.7 * sum(before.values())
    assert all(math.isfinite(w) for w in report.weights.values())
    assert {"a", "b"} <= set(report.weights)


def test_gradients_lie_on_the_parameters_and_on_the_boundary(balancer):
    toy = Toy()
    balancer.backward(toy.losses(), toy.parameters, [toy.leaf])
    for tensor in (*toy.parameters, toy.leaf):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()
        assert tensor.grad.abs().sum() > 0


def test_fixed_weights_learn_the_easy_task_well():
    """The others trade it against the hard one, each by its own rule."""
    toy = Toy()
    optimiser = torch.optim.Adam(toy.parameters, lr=0.05)
    before = toy.losses()["a"].item()
    for _ in range(150):
        optimiser.zero_grad()
        build_balancer("fixed", {}).backward(toy.losses(), toy.parameters, [toy.leaf])
        optimiser.step()
    assert toy.losses()["a"].item() < 0.2 * before


def test_a_loss_of_nothing_does_no_harm(balancer):
    toy = Toy()
    losses = {**toy.losses(), "retrieval": torch.zeros(())}
    report = balancer.backward(losses, toy.parameters, [toy.leaf])
    assert torch.isfinite(toy.leaf.grad).all()
    assert all(math.isfinite(w) for w in report.weights.values())


def test_fixed_weights_are_the_weights():
    toy, other = Toy(), Toy()
    build_balancer("fixed", {"a": 2.0, "b": 0.0}).backward(toy.losses(), toy.parameters, [toy.leaf])
    (2 * other.losses()["a"]).backward()
    torch.testing.assert_close(toy.leaf.grad, other.leaf.grad)
    torch.testing.assert_close(toy.shared.grad, other.shared.grad)


def test_an_unknown_balancer_lists_the_known():
    with pytest.raises(ConfigError, match=rf"'magic' is unknown; known: {', '.join(BALANCERS)}"):
        build_balancer("magic", {})


def test_gradients_too_long_to_square_end_the_training_or_are_passed_on(balancer):
    """Losses can be finite where the products of their gradients are not: no library's error comes out."""
    weight = torch.ones(3, requires_grad=True)
    leaf = torch.ones(2, 3, requires_grad=True)
    losses = {"a": 1e30 * (leaf * weight).sum(), "b": (leaf * weight.square()).sum()}
    if isinstance(balancer, Aggregated):
        with pytest.raises(DivergedError, match=r"lower \[training\] learning_rate"):
            balancer.backward(losses, [weight], [leaf])
    else:
        balancer.backward(losses, [weight], [leaf])
        assert weight.grad is not None
