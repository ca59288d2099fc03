"""Each trunk against its paper's formula, written out plainly."""

import torch

from recsys.config import TrunkConfig
from recsys.model.trunks import build_trunk

TASKS = ("click", "rating")


def _build(name, **values):
    torch.manual_seed(0)
    shape = TrunkConfig(**{"name": name, "num_experts": 3, "task_experts": 2, "hidden": (6, 4), **values})
    return build_trunk(shape, 5, TASKS, 0.0), torch.randn(7, 5)


def _expert(experts, number, x):
    for weight, bias in zip(experts.weights, experts.biases, strict=True):
        x = (x @ weight[number] + bias[number]).relu()
    return x


def test_mmoe_is_a_gated_sum_of_experts():
    trunk, x = _build("mmoe")
    for task, h in trunk(x).items():
        gate = trunk.gates[task](x).softmax(dim=1)
        expected = sum(gate[:, e, None] * _expert(trunk.experts, e, x) for e in range(3))
        torch.testing.assert_close(h, expected)


def test_ple_is_progressive_extraction():
    trunk, x = _build("ple")
    first, last = trunk.levels

    def experts(level, which, x):
        group = level.shared if which == "*" else level.own[which]
        return [_expert(group, e, x) for e in range(3 if which == "*" else 2)]

    def gated(gate, x, outputs):
        weights = gate(x).softmax(dim=1)
        return sum(weights[:, e, None] * h for e, h in enumerate(outputs))

    shared = experts(first, "*", x)
    own = {t: experts(first, t, x) for t in TASKS}
    middle = {t: gated(first.gates[t], x, shared + own[t]) for t in TASKS}
    shared_middle = gated(first.shared_gate, x, [*shared, *own["click"], *own["rating"]])
    for task, h in trunk(x).items():
        outputs = experts(last, "*", shared_middle) + experts(last, task, middle[task])
        torch.testing.assert_close(h, gated(last.gates[task], middle[task], outputs))


def test_ples_own_experts_are_out_of_other_tasks_reach():
    trunk, x = _build("ple")
    gates = trunk.gate_weights(x)
    assert gates["click"].shape == (7, 3 + 2 * 2)
    assert (gates["click"][:, 5:] == 0).all()
    assert (gates["rating"][:, 3:5] == 0).all()
    assert (gates["click"][:, :5] > 0).all()


def test_one_layer_is_the_customised_gate_control_of_the_paper():
    """A single level has no shared gate: nothing would read it."""
    trunk, x = _build("ple", hidden=(4,))
    assert trunk.levels[0].shared_gate is None
    assert trunk(x)["click"].shape == (7, 4)


def test_cross_stitch_mixes_after_each_layer():
    trunk, x = _build("cross_stitch")
    with torch.no_grad():
        for stitch in trunk.stitches:
            stitch.copy_(torch.tensor([[0.7, -0.2], [0.4, 1.1]]))
    a = b = x
    for layer in trunk.layers:
        own_a, own_b = layer["click"](a).relu(), layer["rating"](b).relu()
        a, b = 0.7 * own_a - 0.2 * own_b, 0.4 * own_a + 1.1 * own_b
    found = trunk(x)
    torch.testing.assert_close(found["click"], a)
    torch.testing.assert_close(found["rating"], b)


def test_a_fresh_stitch_keeps_most_of_a_tasks_own():
    trunk, _ = _build("cross_stitch")
    torch.testing.assert_close(trunk.stitches[0].detach(), torch.tensor([[0.9, 0.1], [0.1, 0.9]]))


def test_single_task_bottoms_start_apart():
    trunk, x = _build("single_task")
    found = trunk(x)
    assert not torch.equal(found["click"], found["rating"])
    assert torch.equal(found["click"], trunk.bottoms["click"](x))
