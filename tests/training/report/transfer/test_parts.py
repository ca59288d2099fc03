"""The parts of the transfer report: probes on known losses, gates broken by hand, advice by the book."""

import math

import pytest
import torch

from recsys.config import TrunkConfig
from recsys.metrics.effect import Effect
from recsys.model.embeddings import LocalTables, TableSpec
from recsys.model.trunks import build_trunk
from training.report.transfer.advice import advise, conflict_findings, partitions
from training.report.transfer.health import Watch, ensemble_findings, health_findings, health_of, watched
from training.report.transfer.probe import GradientProbe, Probe, affinities, mean_cosines
from training.report.transfer.transfer_report import HeadTransfer, PairValue
from training.trainer.moment import Moment
from training.trainer.optimizer import DenseOptimizer
from training.trainer.settings import FitSettings

SETTINGS = FitSettings(
    learning_rate=0.01,
    weight_decay=0.0,
    retrieval_task=None,
    temperature=1.0,
    total_steps=1,
    constant=True,
)


def _moment(losses, step=3, dense=None):
    """A moment of two shared parameters, one of a's own, and a table with two rows in use."""
    tables = LocalTables((TableSpec(name="t", size=4, dim=2),), learning_rate=0.1, seed=0)
    numbers = torch.tensor([1, 3])
    learner = torch.nn.ParameterList([torch.tensor([1.0, -1.0]), torch.tensor([2.0])])
    learner.parameter_groups = lambda: {1.0: list(learner.parameters())}
    rows = tables.lookup({"t": numbers})
    adam = DenseOptimizer(learner, SETTINGS)
    parameters = adam.parameters
    adam.begin_step(0)
    if dense is None:
        for parameter in parameters:
            parameter.grad.fill_(0.5)
        adam.step()
        adam.clear()
    return Moment(
        step=step,
        batch=None,  # the probe looks at losses and gradients alone
        learner=None,
        losses=lambda given: losses(*parameters, given["t"]),
        parameters=parameters,
        dense=adam,
        numbers={"t": numbers},
        rows=rows,
        tables=tables,
    )


def _opposed(shared, own, rows):
    pull = (shared * torch.tensor([1.0, 2.0])).sum() + rows.sum()
    return {"a": 5 + pull + own.sum(), "b": 5 - 3 * pull, "c": 5 + shared[0] * 2 - shared[1]}


def test_cosines_are_those_of_the_shared_gradients():
    probe = GradientProbe({}, every=1)
    probe.before_step(_moment(_opposed))
    cosine = probe.probes[0].cosine
    assert cosine["a", "b"] == pytest.approx(-1.0)
    assert cosine["a", "c"] == pytest.approx(0.0, abs=1e-6), "(1, 2) and (2, -1) stand at right angles"


def test_a_step_of_one_task_raises_the_loss_of_its_opponent():
    probe = GradientProbe({}, every=1)
    moment = _moment(_opposed)
    probe.before_step(moment)
    fall = probe.probes[0].fall
    assert fall["a", "a"] > 0 > fall["a", "b"]
    assert fall["a", "b"] == pytest.approx(-3 * fall["a", "a"], rel=1e-4), (
        "linear losses, gradients apart by -3"
    )
    before = probe.probes[0].loss["b"]
    assert affinities(probe.probes)["a", "b"][0] == pytest.approx(fall["a", "b"] / before)


@pytest.mark.parametrize("weight", [1.0, 0.2])
def test_the_look_ahead_is_the_step_that_the_optimisers_would_make(weight):
    """Of a single loss with its weight, without momentum from before: the same loss after a real step."""

    def losses(shared, own, rows):
        return {"a": shared.square().sum() + (rows + 1).square().sum() + 0 * own.sum(), "b": shared.sum() + 9}

    moment = _moment(losses)
    moment.dense.groups[0].learning_rate = 0.1
    moment.dense.groups[0].exp_avg.zero_()
    moment.tables.state["t"].fill_(
        1.0
    )  # from nothing, Adagrad's first step is of one length whatever it gets
    probe = GradientProbe({"a": weight}, every=1)
    probe.before_step(moment)
    found = losses(*moment.parameters, moment.rows["t"])
    before = found["a"].item()
    (weight * found["a"]).backward()
    with torch.no_grad():
        moment.dense.step()
        moment.tables.step(moment.numbers, moment.rows)
        after = losses(*moment.parameters, moment.tables.weight["t"][moment.numbers["t"]])["a"].item()
    assert probe.probes[0].fall["a", "a"] == pytest.approx(before - after, rel=1e-3)


def test_looking_changes_nothing():
    moment = _moment(_opposed)
    before = [p.detach().clone() for p in moment.parameters]
    tables = moment.tables.weight["t"].clone(), moment.tables.state["t"].clone()
    random = torch.get_rng_state()
    GradientProbe({}, every=1).before_step(moment)
    assert all(torch.equal(p, old) for p, old in zip(moment.parameters, before, strict=True))
    assert torch.equal(moment.tables.weight["t"], tables[0])
    assert torch.equal(moment.tables.state["t"], tables[1])
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(p.grad.any() for p in moment.parameters)
    assert all(leaf.grad is None for leaf in moment.rows.values())


def test_it_looks_at_every_nth_step_and_not_ahead_of_the_first():
    probe = GradientProbe({}, every=5)
    for step in range(11):
        probe.before_step(_moment(_opposed, step=step, dense="fresh" if step == 0 else None))
    assert [p.step for p in probe.probes] == [0, 5, 10]
    assert probe.probes[0].fall == {}
    assert probe.probes[0].cosine
    mean, error, negative = mean_cosines(probe.probes)["a", "b"]
    assert mean == pytest.approx(-1)
    assert error == pytest.approx(0, abs=1e-6)
    assert negative == 1


def _trunk(name="mmoe"):
    torch.manual_seed(0)
    return build_trunk(TrunkConfig(name=name, hidden=(6, 4), num_experts=4), 5, ["a", "b"], 0.0)


def _health(trunk):
    with watched(trunk) as watch:
        for _ in range(3):
            trunk(torch.randn(50, 5))
    assert watch.rows == 150
    return health_of([watch])


def test_occupancy_and_entropy_are_those_of_the_gates():
    trunk = _trunk()
    with torch.no_grad():
        for gate in trunk.gates.values():
            gate.weight.zero_()
        trunk.gates["a"].bias.copy_(torch.tensor([0.0, 0, 0, 0]))
        trunk.gates["b"].bias.copy_(torch.tensor([0.5, 0.5, 0, 0]).clamp(min=1e-9).log())
    health = _health(trunk)
    assert health.gates["a"].occupancy == pytest.approx((0.25,) * 4)
    assert health.gates["b"].occupancy == pytest.approx((0.5, 0.5, 0, 0), abs=1e-6)
    assert health.entropy["a"] == pytest.approx(1.0)
    assert health.entropy["b"] == pytest.approx(math.log(2) / math.log(4), rel=1e-5)


def test_entropy_is_a_share_of_what_a_gate_can_reach():
    """PLE's gates give 0 to other tasks' own experts: an even mix of the rest is as undecided as can be."""
    watch = Watch()
    watch.add({"a": torch.tensor([[0.5, 0.0, 0.5, 0.0]])}, {"a": torch.ones(1, 2)})
    assert watch.gates()["a"].entropy == pytest.approx(1.0)


def test_experts_that_nobody_uses_are_found():
    trunk = _trunk()
    with torch.no_grad():
        for gate in trunk.gates.values():
            gate.bias[2] = -50.0
    health = _health(trunk)
    assert health.dead_experts == 0.25
    found = health_findings(health)
    assert any("25% of the experts are used by no head (first run: 3)" in f.what for f in found)
    assert any("num_experts" in f.remedy for f in found)


def test_a_gate_on_one_expert_and_gates_that_mix_all_alike_are_found():
    collapsed, even = _trunk(), _trunk()
    with torch.no_grad():
        collapsed.gates["a"].bias[1] = 50.0
        for gate in even.gates.values():
            gate.weight.zero_()
            gate.bias.zero_()
    assert any("gate of a uses one expert" in f.what for f in health_findings(_health(collapsed)))
    assert any("share one network" in f.what for f in health_findings(_health(even)))


def test_units_that_are_never_on_are_found():
    trunk = _trunk("shared_bottom")
    with torch.no_grad():
        list(trunk.parameters())[-1].fill_(-50.0)
    health = _health(trunk)
    assert health.gates == {}
    assert health.dead_experts is None
    assert health.dead_units == {"a": 1.0, "b": 1.0}
    assert any("100% of the trunk's outputs for a are 0" in f.what for f in health_findings(health))


def test_a_watch_counts_a_unit_alive_when_any_batch_moves_it():
    watch = Watch()
    watch.add({}, {"a": torch.tensor([[0.0, 1.0]])})
    watch.add({}, {"a": torch.tensor([[0.0, 0.0]])})
    assert watch.dead_units() == {"a": 0.5}


def _head(verdict, name="auc"):
    low, high = {"better": (0.01, 0.05), "worse": (-0.05, -0.01), "no evidence": (-0.02, 0.03)}[verdict]
    effect = Effect(
        metric=name, a=0.7, b=0.7 + (low + high) / 2, difference=(low + high) / 2, ci_low=low, ci_high=high,
        p_value=0.01, level=0.95, higher_is_better=True, users=50, rows=500, replicates=100,
    )  # fmt: skip
    return HeadTransfer(
        metric=name, alone=(0.7, 0.7), shared=(0.7, 0.7), effect=effect,
        evaluated_on="2026-01-30", train_first="2026-01-20", train_last="2026-01-28", train_labels=1000,
        train_positives=50,
    )  # fmt: skip


def _pairs(values):
    return [PairValue(first=a, second=b, mean=v, error=0.001, negative=0.5) for (a, b), v in values.items()]


def test_no_head_worse_shared_is_a_reason_to_share():
    advice = advise({"a": _head("better"), "b": _head("no evidence")}, [])
    assert advice.action == "share"
    assert advice.groups == (("a", "b"),)
    assert "a is better shared" in advice.headline
    advice = advise({"a": _head("no evidence"), "b": _head("no evidence")}, [])
    assert "none is better shared" in advice.headline
    assert any("costs less to run" in reason for reason in advice.reasons)
    advice = advise({"a": _head("better"), "b": _head("better")}, [])
    assert "a and b are better shared" in advice.headline


def test_two_heads_of_which_one_is_worse_shared_are_split():
    pairs = _pairs({("a", "b"): 0.1, ("b", "a"): 0.1})
    advice = advise({"a": _head("better"), "b": _head("worse")}, pairs)
    assert advice.action == "split"
    assert advice.groups == (("a",), ("b",))
    assert "b is worse when all heads share" in advice.headline
    assert any("a is better shared" in reason for reason in advice.reasons)
    assert any("of b by 10.000 %" in reason for reason in advice.reasons)


def test_groups_follow_the_affinities():
    """a and b lower each other's losses, c and d too; across, they raise them."""
    together = {("a", "b"), ("b", "a"), ("c", "d"), ("d", "c")}
    values = {(i, j): 0.02 if (i, j) in together else -0.01 for i in "abcd" for j in "abcd" if i != j}
    heads = {"a": _head("worse"), "b": _head("no evidence"), "c": _head("worse"), "d": _head("better")}
    advice = advise(heads, _pairs(values))
    assert advice.action == "group"
    assert advice.groups == (("a", "b"), ("c", "d"))


def test_a_worse_head_is_parted_from_those_whose_steps_raise_its_loss():
    """b and c gain from a more than b costs it: by the sum of effects alone, only the innocent d would go."""
    values = {(i, j): 0.01 for i in "abcd" for j in "abcd" if i != j}
    values |= {("b", "a"): -0.02, ("a", "b"): 0.3, ("a", "c"): 0.2, ("b", "c"): 0.2, ("c", "b"): 0.2}
    values |= {("d", "b"): -0.3, ("d", "c"): -0.3}
    heads = {n: _head("worse" if n == "a" else "better") for n in "abcd"}
    assert advise(heads, _pairs(values)).groups == (("a", "d"), ("b", "c"))


def test_a_worse_head_whose_loss_all_others_lower_stands_alone():
    values = {(i, j): 0.01 for i in "abc" for j in "abc" if i != j} | {("c", "b"): -0.2}
    heads = {n: _head("worse" if n == "a" else "better") for n in "abc"}
    assert ("a",) in advise(heads, _pairs(values)).groups


def test_of_groups_that_are_alike_the_fewest_models_are_taken():
    advice = advise({"a": _head("worse"), "b": _head("no evidence"), "c": _head("no evidence")}, [])
    assert len(advice.groups) == 2


def test_heads_that_all_raise_each_others_losses_are_split():
    values = {(i, j): -0.01 for i in "abc" for j in "abc" if i != j}
    advice = advise({n: _head("worse") for n in "abc"}, _pairs(values))
    assert advice.action == "split"
    assert advice.groups == (("a",), ("b",), ("c",))


def test_many_heads_set_the_worse_ones_apart():
    heads = {f"h{n}": _head("worse" if n == 4 else "better") for n in range(10)}
    advice = advise(heads, [])
    assert advice.action == "group"
    assert ("h4",) in advice.groups
    assert len(advice.groups) == 2


@pytest.mark.parametrize(("num", "bell"), [(1, 1), (3, 5), (4, 15), (5, 52)])
def test_there_are_as_many_partitions_as_bell_says(num, bell):
    found = list(partitions([f"t{n}" for n in range(num)]))
    assert len({frozenset(map(frozenset, groups)) for groups in found}) == len(found) == bell


def test_a_lasting_conflict_is_pointed_out():
    pairs = [
        PairValue(first="a", second="b", mean=-0.3, error=0.01, negative=0.9),
        PairValue(first="a", second="c", mean=-0.01, error=0.01, negative=0.7),
        PairValue(first="b", second="c", mean=0.3, error=0.01, negative=0.1),
    ]
    found = conflict_findings(pairs)
    assert len(found) == 1
    assert "a and b oppose each other on 90%" in found[0].what
    assert "upgrad" in found[0].remedy


def test_one_probe_has_no_error_and_its_report_is_read_again():
    one = Probe(step=1, cosine={("a", "b"): -0.5}, fall={("a", "b"): -0.01}, loss={"a": 1.0, "b": 0.5})
    for found in (mean_cosines([one]), affinities([one])):
        mean, error, negative = found["a", "b"]
        pair = PairValue(first="a", second="b", mean=mean, error=error, negative=negative)
        assert pair.error is None
        assert PairValue.model_validate_json(pair.model_dump_json()) == pair
    advice = advise({"a": _head("no evidence"), "b": _head("worse")}, [pair])
    assert "raises the loss of b by 2.000 % (one probe)." in " ".join(advice.reasons)


def test_a_model_of_several_members_says_whose_experts_are_shown():
    assert ensemble_findings(1) == []
    (finding,) = ensemble_findings(4)
    assert "ensemble of 4" in finding.what
    assert "ensemble_size = 1" in finding.remedy
