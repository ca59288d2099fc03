"""Each balancing method has the property that defines it, on losses whose gradients are known."""

import json
import math

import numpy as np
import pytest
import torch

from recsys.config import BalancerConfig
from recsys.errors import ConfigError
from training.balancing import BALANCERS, build_balancer
from training.balancing.gradients import task_gradients


class Linear:
    """K losses g_k · (p, x) + 10 of a shared parameter p and a boundary x: gradients are what we choose."""

    def __init__(self, gradients):
        self.gradients = torch.as_tensor(gradients, dtype=torch.float32)
        size = self.gradients.shape[1]
        self.p = torch.zeros(size - 1, requires_grad=True)
        self.x = torch.zeros(1, requires_grad=True)

    def losses(self):
        return {f"t{k}": g @ torch.cat([self.p, self.x]) + 10 for k, g in enumerate(self.gradients)}

    def update(self, balancer):
        self.p.grad = self.x.grad = None
        report = balancer.backward(self.losses(), [self.p], [self.x])
        return torch.cat([self.p.grad, self.x.grad]), report


def _random(num, size, seed):
    """Gradients that conflict: their mean is no descent direction for all."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(num, size)) - 0.3 * rng.normal(size=size)


def _balancer(name, weights=None, **options):
    return build_balancer(name, weights or {}, BalancerConfig(**options))


class Pair:
    """Two quadratics that want different points of one shared vector; `unit` is the second's unit."""

    def __init__(self, unit=1.0):
        self.unit = unit
        self.p = torch.tensor([1.0, -2.0, 0.5], requires_grad=True)

    def losses(self):
        a = (self.p - torch.tensor([0.0, 1.0, 2.0])).square().sum() + 0.1
        b = (self.p * torch.tensor([3.0, 1.0, 0.1]) - 1).square().sum() + 0.1
        return {"a": a, "b": self.unit * b}

    def train(self, balancer, steps=60):
        path, weights = [], []
        optimiser = torch.optim.SGD([self.p], lr=0.02)
        for _ in range(steps):
            optimiser.zero_grad()
            losses = self.losses()
            weights.append(balancer.backward(losses, [self.p], []).weights)
            optimiser.step()
            path.append(self.p.detach().clone())
        return torch.stack(path), weights


@pytest.mark.parametrize("unit", [1e-3, 1e4])
def test_uncertainty_does_not_see_the_unit_of_a_loss(unit):
    plain, plain_weights = Pair().train(_balancer("uncertainty"))
    scaled, scaled_weights = Pair(unit).train(_balancer("uncertainty"))
    torch.testing.assert_close(scaled, plain, rtol=1e-4, atol=1e-5)
    assert scaled_weights[-1]["a"] == pytest.approx(plain_weights[-1]["a"], rel=1e-4)
    assert scaled_weights[-1]["b"] * unit == pytest.approx(plain_weights[-1]["b"], rel=1e-4)
    fixed, _ = Pair(unit).train(_balancer("fixed", {"b": 1 / unit}))
    assert (fixed - plain).abs().max() > 1e-3, "the variances did nothing"


def test_uncertaintys_variance_becomes_the_loss():
    """At its optimum the weight is w / (2 · loss), the derivative of log(loss) / 2."""
    balancer = _balancer("uncertainty", {"a": 3.0}, learning_rate=0.5)
    p = torch.zeros(1, requires_grad=True)
    for step in range(40):
        level = 5.0 if step == 0 else 0.2
        weights = balancer.backward({"a": p.sum() + level, "b": p.sum() + 7.0}, [p], []).weights
    assert weights["a"] == pytest.approx(3.0 / (2 * 0.2), rel=1e-3)
    assert weights["b"] == pytest.approx(1 / (2 * 7.0), rel=1e-6)


def test_dwa_follows_its_formula():
    """Windows of two steps, temperature 2: rates are means of steps 3-4 over those of steps 1-2."""
    series = {"a": [4.0, 2.0, 2.0, 1.0, 9.0, 9.0, 1.0], "b": [1.0, 3.0, 2.0, 6.0, 0.0, 0.0, 1.0]}
    balancer = _balancer("dwa", {"a": 2.0}, temperature=2.0, window=2)
    p = torch.zeros(1, requires_grad=True)
    seen = [
        balancer.backward({n: p.sum() + v[step] for n, v in series.items()}, [p], []).weights
        for step in range(7)
    ]
    assert all(s == pytest.approx({"a": 2.0, "b": 1.0}) for s in seen[:4]), "two windows are not full yet"
    up = {"a": math.exp(1.5 / 3.0 / 2), "b": math.exp(4.0 / 2.0 / 2)}
    expected = {n: 2 * v / (up["a"] + up["b"]) for n, v in up.items()}
    for step in (4, 5):
        assert seen[step] == pytest.approx({"a": 2 * expected["a"], "b": expected["b"]})
    up = {"a": math.exp(9.0 / 1.5 / 2), "b": math.exp(1 / 2)}  # b was never seen in steps 5-6: rate 1
    assert seen[6]["b"] == pytest.approx(2 * up["b"] / (up["a"] + up["b"]))


def test_dwa_at_a_low_temperature_gives_all_weight_to_the_slowest():
    balancer = _balancer("dwa", {}, temperature=0.001, window=1)
    p = torch.zeros(1, requires_grad=True)
    for a in (1.0, 900.0, 1.0):
        weights = balancer.backward({"a": p.sum() + a, "b": p.sum() + 1.0}, [p], []).weights
    assert weights == {"a": 2.0, "b": 0.0}


def _train_gradnorm(toy, balancer, steps=600):
    for _ in range(steps):
        toy.update(balancer)
    weights = toy.update(balancer)[1].weights
    return {n: w * toy.gradients[k].norm().item() for k, (n, w) in enumerate(weights.items())}, weights


def test_gradnorm_equalises_gradients_that_are_a_hundred_times_apart():
    toy = Linear([[10.0, 0, 0], [0, 0.1, 0], [0, 0, 1.0]])
    reached, weights = _train_gradnorm(toy, _balancer("gradnorm", alpha=0.0))
    assert max(reached.values()) < 1.12 * min(reached.values())
    assert sum(weights.values()) == pytest.approx(3.0)


def test_gradnorm_pulls_the_task_that_learns_slowly():
    """One task's loss stays, the other's falls to a tenth: norms stand in the ratio of these rates."""
    p = torch.zeros(2, requires_grad=True)
    balancer = _balancer("gradnorm", alpha=0.5)
    for step in range(600):
        p.grad = None
        low = 1.0 if step == 0 else 0.1
        losses = {"slow": p[0] * 2 + 1.0, "fast": p[1] * 5 + low}
        weights = balancer.backward(losses, [p], []).weights
    assert weights["slow"] * 2 / (weights["fast"] * 5) == pytest.approx(10**0.5, rel=0.1)


def test_gradnorms_priorities_are_the_configs_weights():
    toy = Linear([[10.0, 0, 0], [0, 0.1, 0]])
    reached, _ = _train_gradnorm(toy, _balancer("gradnorm", {"t0": 1.0, "t1": 0.5}, alpha=0.0))
    assert reached["t0"] / reached["t1"] == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num", [2, 4])
def test_mgda_gives_the_shortest_point_of_the_hull(num, seed):
    """v is the hull's min-norm point just when v · g >= |v|² for every gradient g."""
    toy = Linear(_random(num, 12, seed))
    update, report = toy.update(_balancer("mgda"))
    weights = torch.tensor(list(report.weights.values()))
    assert weights.min() >= 0
    assert weights.sum().item() == pytest.approx(1.0, rel=1e-5)
    torch.testing.assert_close(update, weights @ toy.gradients)
    assert (toy.gradients @ update).min() >= 0.9999 * update.square().sum()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("name", "num"), [("pcgrad", 2), ("upgrad", 2), ("upgrad", 5), ("dual_proj", 5)])
def test_the_update_conflicts_with_no_task(name, num, seed):
    """PCGrad promises this for two tasks; with more, its projections may undo one another."""
    rows = _random(num, 12, seed)
    rows[1] = -0.1 * rows.sum(axis=0) + 0.01 * rows[1]
    toy = Linear(rows)
    assert (toy.gradients @ toy.gradients.mean(dim=0)).min() < 0, "nothing conflicts in this draw"
    update, _ = toy.update(_balancer(name))
    assert update.norm() > 1e-3
    assert (toy.gradients @ update).min() >= -1e-4 * update.norm() * toy.gradients.norm()


@pytest.mark.parametrize(("name", "scale"), [("pcgrad", 1.0), ("upgrad", 1 / 3), ("dual_proj", 1 / 3)])
def test_without_a_conflict_the_update_is_the_plain_one(name, scale):
    toy = Linear([[1.0, 0.2, 0], [0.1, 2.0, 0.3], [0, 0, 0.5]])
    update, _ = toy.update(_balancer(name))
    torch.testing.assert_close(update, scale * toy.gradients.sum(dim=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["mgda", "pcgrad", "upgrad", "dual_proj", "imtl_g", "aligned_mtl", "cagrad"])
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_an_aggregators_weights_are_those_of_the_directions_whatever_the_gradients_lengths(name, scale):
    """A loss near its minimum has tiny gradients, and the libraries' thresholds are absolute."""
    gradients = torch.tensor(_random(3, 8, 2))

    def weights(factor):
        torch.manual_seed(0)
        return Linear(factor * gradients).update(_balancer(name))[1].weights

    assert weights(scale) == pytest.approx(weights(1.0), rel=1e-2, abs=1e-3)


def test_imtl_gs_update_is_equally_far_along_every_gradient():
    toy = Linear([[1.0, 0.2, 0, 0], [0.1, 2.0, 0.3, 0], [0, -1.0, 0.5, 3.0]])
    update, _ = toy.update(_balancer("imtl_g"))
    along = toy.gradients @ update / toy.gradients.norm(dim=1)
    torch.testing.assert_close(along, along.mean().expand(3), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num", [2, 4])
def test_cagrads_update_is_the_best_for_the_worst_off_task_near_the_mean(num, seed):
    """max over |d - g| <= c |g| of min_k g_k · d, certified by its dual: both reach the same value."""
    toy, c = Linear(_random(num, 12, seed)), 0.4
    mean = toy.gradients.mean(dim=0)
    update, report = toy.update(_balancer("cagrad", c=c))
    assert (update - mean).norm().item() == pytest.approx(c * mean.norm().item(), rel=1e-3)
    share = torch.tensor(list(report.weights.values())) - 1 / num
    assert share.min() >= -1e-5
    worst = share / share.sum() @ toy.gradients
    dual = worst @ mean + c * mean.norm() * worst.norm()
    assert (toy.gradients @ update).min().item() == pytest.approx(dual.item(), rel=1e-3, abs=1e-3)


def test_cagrad_without_its_solver_names_what_to_install(monkeypatch):
    def refuse(**_options):
        raise ImportError("CAGradWeighting requires ['cvxpy', 'clarabel']")

    monkeypatch.setattr("torchjd.aggregation.CAGrad", refuse)
    with pytest.raises(ConfigError, match=r"'cagrad'.*pip install 'recsys-mtl\[cagrad\]'"):
        _balancer("cagrad")


def test_cagrad_without_a_radius_is_the_mean():
    toy = Linear(_random(3, 12, 0))
    update, _ = toy.update(_balancer("cagrad", c=0.0))
    torch.testing.assert_close(update, toy.gradients.mean(dim=0), rtol=1e-4, atol=1e-5)


def test_aggregators_count_a_loss_as_often_as_the_config_says():
    toy = Linear([[1.0, 0, 0], [0, 1.0, 0]])
    update, report = toy.update(_balancer("pcgrad", {"t0": 3.0}))
    assert update.tolist() == pytest.approx([3.0, 1.0, 0.0])
    assert report.weights == pytest.approx({"t0": 3.0, "t1": 1.0})


@pytest.mark.parametrize("name", ["mgda", "upgrad", "imtl_g", "aligned_mtl"])
def test_a_task_that_says_nothing_does_not_stop_the_others(name):
    """A batch without a single label of a task gives it a gradient of zero, which lies in every hull."""
    toy = Linear([[1.0, 2.0, 0.5], [0.0, 0.0, 0.0]])
    update, report = toy.update(_balancer(name))
    torch.testing.assert_close(update, toy.gradients[0])
    assert report.weights["t1"] == 0


@pytest.mark.parametrize("name", ["mgda", "upgrad", "pcgrad"])
def test_a_tasks_own_parameters_get_its_plain_gradient(name):
    shared = torch.ones(2, requires_grad=True)
    heads = {n: torch.full((2,), 0.5, requires_grad=True) for n in "ab"}
    losses = {n: (4.0 if n == "a" else -1.0) * (head @ shared) for n, head in heads.items()}
    _balancer(name).backward(losses, [shared, *heads.values()], [])
    assert heads["a"].grad.tolist() == [4.0, 4.0]
    assert heads["b"].grad.tolist() == [-1.0, -1.0]
    gradients = torch.tensor([[2.0, 2.0], [-0.5, -0.5]])
    assert (gradients @ shared.grad).min() >= -1e-5
    assert not torch.allclose(shared.grad, gradients.sum(dim=0))


def test_what_several_losses_reach_is_shared():
    shared, own, row = (torch.ones(2, requires_grad=True) for _ in range(3))
    losses = {"a": (shared * own * row).sum(), "b": shared.sum(), "none": torch.zeros(())}
    found = task_gradients(losses, [shared, own], [row])
    assert found.shared == (True, False, True), "the boundary is shared though one loss alone reaches it"
    assert list(found.by_task) == ["a", "b"]
    assert found.gramian().tolist() == [[4.0, 2.0], [2.0, 2.0]]


def test_an_option_that_the_method_does_not_read_is_refused():
    with pytest.raises(ConfigError, match=r"window = 7: balancing = 'gradnorm' does not read it.*alpha"):
        build_balancer("gradnorm", {}, BalancerConfig(window=7))


def test_options_come_from_the_config(make_config):
    training = make_config(training={"balancing": "dwa", "balancer": {"window": 3}}).training
    assert build_balancer(training.balancing, {}, training.balancer).window == 3
    with pytest.raises(ConfigError, match=r"training\.balancer\.windows: unknown key; known here: alpha"):
        make_config(training={"balancer": {"windows": 3}})
    with pytest.raises(ConfigError, match=r"training\.balancer\.temperature = 0"):
        make_config(training={"balancer": {"temperature": 0}})


@pytest.mark.parametrize("name", sorted(BALANCERS))
def test_a_balancer_goes_on_from_its_state_as_if_it_had_never_stopped(name):
    """The state goes through JSON, as it does in a checkpoint."""
    options = {"window": 3} if name == "dwa" else {}
    known, others = Pair(), Pair()
    balancer, again = _balancer(name, **options), _balancer(name, **options)
    known.train(balancer, 8)
    again.load_state(json.loads(json.dumps(balancer.state())))
    others.p.data.copy_(known.p.data)
    random = torch.get_rng_state()
    path, weights = known.train(balancer, 8)
    torch.set_rng_state(random)
    path_again, weights_again = others.train(again, 8)
    assert weights_again == weights
    np.testing.assert_array_equal(np.asarray(path_again), np.asarray(path))
