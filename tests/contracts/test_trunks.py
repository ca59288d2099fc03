"""Every trunk: one hidden vector per task, all of it trained, the same at the same seed."""

import pytest
import torch

from recsys.errors import ConfigError
from recsys.model.trunks import TRUNKS, build_trunk

TASKS = ("click", "purchase", "rating")


def _build(name, dropout=0.0, seed=0, num_experts=4, hidden=(16, 8)):
    torch.manual_seed(seed)
    return build_trunk(name, 12, TASKS, hidden, num_experts, dropout)


@pytest.fixture(params=sorted(TRUNKS))
def name(request) -> str:
    return request.param


@pytest.fixture
def x_BI():
    return torch.randn(64, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("rows", [0, 1, 64])
@pytest.mark.parametrize("hidden", [(8,), (16, 8), (4, 4, 4)])
def test_shapes(name, rows, hidden):
    trunk = _build(name, hidden=hidden)
    found = trunk(torch.zeros(rows, 12))
    assert list(found) == list(TASKS)
    assert trunk.num_out == hidden[-1]
    assert {tuple(h.shape) for h in found.values()} == {(rows, hidden[-1])}


def test_every_parameter_is_trained_and_every_expert_in_it(name, x_BI):
    trunk = _build(name)
    torch.stack([h.square().sum() for h in trunk(x_BI).values()]).sum().backward()
    for label, parameter in trunk.named_parameters():
        assert parameter.grad is not None, label
        assert torch.isfinite(parameter.grad).all(), label
        # Stacked experts: the first dimension is the expert.
        slices = parameter.grad if parameter.dim() == 3 else parameter.grad[None]
        assert (slices.flatten(1).abs().sum(dim=1) > 0).all(), f"a part of {label} gets no gradient"


def test_each_task_depends_on_the_input(name, x_BI):
    trunk = _build(name)
    for task in TASKS:
        x = x_BI.clone().requires_grad_()
        trunk(x)[task].sum().backward()
        assert (x.grad.abs().sum(dim=0) > 0).all()


def test_rows_do_not_mix(name, x_BI):
    trunk = _build(name).eval()
    whole, part = trunk(x_BI), trunk(x_BI[10:13])
    for task in TASKS:
        torch.testing.assert_close(whole[task][10:13], part[task])


def test_a_seed_decides_everything(name, x_BI):
    one, same, other = (_build(name, seed=seed)(x_BI) for seed in (3, 3, 4))
    for task in TASKS:
        assert torch.equal(one[task], same[task])
        assert not torch.equal(one[task], other[task])


def test_dropout_is_for_training(name, x_BI):
    trunk = _build(name, dropout=0.5)
    assert not torch.equal(trunk(x_BI)["click"], trunk(x_BI)["click"])
    trunk.eval()
    assert torch.equal(trunk(x_BI)["click"], trunk(x_BI)["click"])


def test_it_learns_two_opposite_tasks(name, x_BI):
    trunk = _build(name)
    heads = torch.nn.ModuleDict({t: torch.nn.Linear(8, 1) for t in TASKS})
    target = {"click": x_BI[:, 0], "purchase": -x_BI[:, 0], "rating": x_BI[:, 1]}
    optimiser = torch.optim.Adam([*trunk.parameters(), *heads.parameters()], lr=0.02)
    for _ in range(200):
        loss = torch.stack(
            [(heads[t](h).squeeze(1) - target[t]).square().mean() for t, h in trunk(x_BI).items()]
        ).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.3, "of about 3 at the start"


def test_an_unknown_trunk_lists_the_known():
    with pytest.raises(ConfigError, match=rf"'transformer' is unknown; known: {', '.join(sorted(TRUNKS))}"):
        build_trunk("transformer", 1, TASKS, (1,), 1, 0.0)
