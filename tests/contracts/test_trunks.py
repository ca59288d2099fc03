"""Every trunk: one hidden vector per task, all of it trained, the same at the same seed."""

import pytest
import torch

from recsys.config import TrunkConfig
from recsys.errors import ConfigError
from recsys.model.budget import match_budget, num_parameters
from recsys.model.trunks import TRUNKS, build_trunk

TASKS = ("click", "purchase", "rating")


def _build(name, dropout=0.0, seed=0, hidden=(16, 8), tasks=TASKS):
    torch.manual_seed(seed)
    return build_trunk(TrunkConfig(name=name, num_experts=4, hidden=hidden), 12, tasks, dropout)


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


def test_a_task_may_be_called_as_a_method_of_torch(name, x_BI):
    other = {"click": "apply", "purchase": "train", "rating": "type"}
    plain, odd = (_build(name, tasks=tuple(tasks)).eval() for tasks in (other, other.values()))
    for task, h_BH in plain(x_BI).items():
        assert torch.equal(odd(x_BI)[other[task]], h_BH)
    renamed = {f"{key}.".replace(f".{t}.", f".{o}.") for key in plain.state_dict() for t, o in other.items()}
    assert {f"{key}." for key in odd.state_dict()} <= renamed


def test_every_parameter_is_trained_and_every_expert_in_it(name, x_BI):
    trunk = _build(name)
    torch.stack([h.square().sum() for h in trunk(x_BI).values()]).sum().backward()
    for label, parameter in trunk.named_parameters():
        assert parameter.grad is not None, label
        assert torch.isfinite(parameter.grad).all(), label
        # Stacked experts: the first dimension is the expert.
        slices = parameter.grad if parameter.dim() == 3 else parameter.grad[None]
        assert (slices.flatten(1).abs().sum(dim=1) > 0).all(), f"a part of {label} gets no gradient"


def test_one_task_is_enough(name, x_BI):
    trunk = _build(name, tasks=("click",))
    h = trunk(x_BI)
    assert list(h) == ["click"]
    h["click"].square().sum().backward()
    # A softmax over one expert is 1 whatever its gate says; four experts are not one.
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trunk.parameters())
    assert any(p.grad.any() for p in trunk.parameters())


def test_rows_that_are_masked_out_of_the_loss_send_no_gradient(name, x_BI):
    """With the loss of a few observed rows, every parameter's gradient is that of those rows alone."""
    observed = torch.arange(64) % 5 == 0
    gradients = []
    for x, mask in ((x_BI, observed), (x_BI[observed], slice(None))):
        trunk = _build(name)
        trunk(x)["rating"][mask].square().sum().backward()
        gradients.append([torch.zeros_like(p) if p.grad is None else p.grad for p in trunk.parameters()])
    for masked, alone in zip(*gradients, strict=True):
        torch.testing.assert_close(masked, alone, atol=1e-5, rtol=1e-4)


def test_gates_say_how_much_each_expert_counts(name, x_BI):
    gates = _build(name).gate_weights(x_BI)
    if not any(".gates." in f".{n}" for n, _ in _build(name).named_parameters()):
        assert gates == {}
        return
    assert list(gates) == list(TASKS)
    assert len({w.shape for w in gates.values()}) == 1, "columns are the same experts for every task"
    for weights in gates.values():
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(64))
        assert (weights >= 0).all()
    assert (torch.stack(list(gates.values())).sum(dim=(0, 1)) > 0).all(), "every expert is in reach of a task"


def test_every_gate_of_every_level_is_shown_and_the_last_are_those_that_mix_the_output(name, x_BI):
    trunk = _build(name).eval()
    every, last = trunk.every_gate(x_BI), trunk.gate_weights(x_BI)
    layers = [m for n, m in trunk.named_modules() if ".gates." in f".{n}" or n.endswith("shared_gate")]
    assert len(every) == len([m for m in layers if isinstance(m, torch.nn.Linear)])
    for task, weights_BE in last.items():
        (shown,) = [w for n, w in list(every.items())[-len(last) :] if n.rpartition("/")[2] == task]
        torch.testing.assert_close(shown, weights_BE, rtol=0, atol=0)
    for weights_BE in every.values():
        torch.testing.assert_close(weights_BE.sum(dim=1), torch.ones(64))


@pytest.mark.parametrize("tasks", [TASKS, TASKS[:1]])
@pytest.mark.parametrize("wanted", [60_000, 1_000_000])
def test_a_trunk_can_have_the_size_of_another(name, wanted, tasks):
    shape = TrunkConfig(name=name, num_experts=8, hidden=(128, 64))
    matched = match_budget(shape, 300, tasks, wanted)
    built = build_trunk(matched, 300, tasks, 0.0)
    size = sum(p.numel() for p in built.parameters())
    assert size == num_parameters(matched, 300, tasks)
    assert abs(size - wanted) <= 0.05 * wanted
    assert matched.model_copy(update={"hidden": shape.hidden}) == shape, "only widths change"


def test_a_size_out_of_reach_is_refused(name):
    with pytest.raises(
        ConfigError, match=rf"'{name}' with 1 layers cannot have 10 parameters: nearest is \d+"
    ):
        match_budget(TrunkConfig(name=name, hidden=(8,)), 300, TASKS, 10)


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
        build_trunk(TrunkConfig(name="transformer"), 1, TASKS, 0.0)


def test_tasks_share_parameters_unless_that_is_the_point(name, x_BI):
    """What one task learns moves another task's h; only the reference shares nothing."""
    trunk = _build(name)
    before = trunk(x_BI)["rating"].detach()
    optimiser = torch.optim.SGD(trunk.parameters(), lr=0.1)
    trunk(x_BI)["click"].square().mean().backward()
    optimiser.step()
    moved = not torch.equal(trunk(x_BI)["rating"], before)
    assert moved == (name != "single_task")
