"""Curves of a fit: every number against one made by hand, and a fit that does not notice them."""

import math
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from recsys.errors import ConfigError
from training.curves import RunPlace, check_writers
from training.curves.probe import Gates
from training.curves.recorder import Curves, Recorder
from training.errors import DivergedError, RankError
from training.host_choice import HostChoice
from training.processes import rank
from training.train import train
from training.trainer.group import Group
from training.trainer.saver import Saver
from training.trainer.train_log import TrainLog, mean_losses
from training.trainer.watcher import Watcher

WRITE, PROBE = 4, 5
NAME = "2026-01-30/train.0123abcd"


def _curves(runs, *writers, write=WRITE, probe=PROBE):
    place = RunPlace(
        runs=Path(runs), name=NAME, about={"night": "2026-01-30", "training.learning_rate": 0.002}
    )
    return Curves(writers=writers, place=place, write_every=write, probe_every=probe)


def _train(chain, noisy, **options):
    return train(chain, {t.name: (0, 3) for t in noisy.tasks}, noisy, None, 1, **options)


@pytest.fixture(scope="session")
def read_events():
    """Give a reader of what TensorBoard would show: {curve: [(step, value)]}."""
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install '.[dev]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(runs):
        found = EventAccumulator(str(runs / "tensorboard" / NAME), size_guidance={"scalars": 0, "tensors": 0})
        found.Reload()
        return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}

    return read


class ByHand(Watcher):
    """Keeps what the fit showed, and works out gradients and gates without the code under test."""

    def __init__(self):
        self.losses, self.batches, self.looks, self.rates = [], [], {}, []

    def before_step(self, moment):
        self.rates.append(moment.dense.groups[0].learning_rate)
        if moment.step % PROBE:
            return
        state = torch.get_rng_state()
        seen = []
        trunk = moment.learner.trunk
        handle = trunk.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
        losses = moment.losses({n: r.detach() for n, r in moment.rows.items()})
        handle.remove()
        gradients = {}
        for name, loss in losses.items():
            found = torch.autograd.grad(loss, moment.parameters, retain_graph=True, allow_unused=True)
            gradients[name] = found
        num = len(moment.parameters)
        shared = [i for i in range(num) if sum(g[i] is not None for g in gradients.values()) > 1]
        flat = {
            name: np.concatenate(
                [(torch.zeros_like(moment.parameters[i]) if g[i] is None else g[i]).flatten() for i in shared]
            ).astype(np.float64)
            for name, g in gradients.items()
        }
        entropy = {}
        for task, gate in trunk.gates.items():
            share = np.exp((seen[0] @ gate.weight.T + gate.bias).detach().double().numpy())
            share /= share.sum(axis=1, keepdims=True)
            entropy[task] = -(share * np.log(share)).sum(axis=1).mean() / math.log(share.shape[1])
        self.looks[moment.step] = (flat, entropy)
        torch.set_rng_state(state)

    def on_losses(self, step, losses):
        self.losses.append(losses)

    def after_step(self, progress):
        batch, names = progress.batch, progress.batch.labels
        self.batches.append({n: (batch.labels[n], batch.observed[n], progress.logits[n]) for n in names})


@pytest.fixture(scope="module")
def noisy(make_config):
    return make_config(model={"dropout": 0.2})  # a look must leave the random state to the step


@pytest.fixture(scope="module")
def plain(shop_chain, noisy):
    """Give a fit without curves, and the random state that it leaves."""
    return _train(shop_chain, noisy), torch.get_rng_state()


@pytest.fixture(scope="module")
def fit(shop_chain, noisy, tmp_path_factory, read_events):
    runs, hand, said = tmp_path_factory.mktemp("runs"), ByHand(), []
    with Recorder(_curves(runs, "tensorboard"), noisy.tasks, said.append) as recorder:
        trained = _train(shop_chain, noisy, watchers=[hand, recorder])
    state = torch.get_rng_state()
    assert not said
    return trained, hand, read_events(runs), state


def _spans(steps):
    ends = [*range(WRITE - 1, steps, WRITE)]
    return [(end - WRITE + 1, end) for end in ends] + (
        [(ends[-1] + 1, steps - 1)] if ends[-1] < steps - 1 else []
    )


def test_weights_and_random_state_are_those_of_a_fit_without_curves(fit, noisy, plain):
    made, *_, state = fit
    assert noisy.model.dropout
    for name, value in plain[0].weights().items():
        np.testing.assert_array_equal(made.weights()[name], value, err_msg=name)
    assert made.log.losses == plain[0].log.losses
    torch.testing.assert_close(plain[1], state, rtol=0, atol=0)


def test_losses_are_the_means_of_the_steps_that_saw_a_label(fit):
    trained, hand, curves, _ = fit
    for name in ("click", "purchase", "rating", "retrieval"):
        expected = []
        for first, last in _spans(trained.log.steps):
            seen = [step[name] for step in hand.losses[first : last + 1] if step[name]]
            if seen:
                expected.append((last, pytest.approx(np.mean(seen), rel=1e-6)))
        assert curves[f"loss/{name}"] == expected, name


def test_auc_and_rmse_are_of_the_rows_since_the_last_point(fit, noisy):
    trained, hand, curves, _ = fit
    for task in noisy.tasks:
        expected = []
        for first, last in _spans(trained.log.steps):
            rows = [b[task.name] for b in hand.batches[first : last + 1]]
            label, logit = (np.concatenate([r[i][r[1]].numpy() for r in rows]) for i in (0, 2))
            if task.head == "binary" and 0 < label.sum() < label.size:
                expected.append((last, pytest.approx(roc_auc_score(label, logit), rel=1e-6)))
            elif task.head == "regression" and label.size:
                error = 3 + logit - label  # 1 to 5 stars: logit 0 is 3, two units reach an end
                expected.append((last, pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5)))
        assert curves[f"{'auc' if task.head == 'binary' else 'rmse'}_train/{task.name}"] == expected, (
            task.name
        )


def test_gradients_and_gates_are_those_of_the_step_itself(fit):
    _, hand, curves, _ = fit
    assert len(hand.looks) > 1
    for step, (flat, entropy) in hand.looks.items():
        length = {name: np.linalg.norm(g) for name, g in flat.items()}
        for name, norm in length.items():
            got = dict(curves[f"gradient_norm/{name}"])
            assert got.get(step, 0.0) == pytest.approx(norm, rel=1e-4), name
        for a, b in combinations(flat, 2):
            if length[a] and length[b]:
                cosine = flat[a] @ flat[b] / length[a] / length[b]
                assert dict(curves[f"gradient_cosine/{a}-{b}"])[step] == pytest.approx(cosine, abs=1e-4)
        for task, value in entropy.items():
            assert dict(curves[f"gate_entropy/{task}"])[step] == pytest.approx(value, rel=1e-4)


def test_rate_speed_and_norms_are_written_at_every_point(fit):
    trained, hand, curves, _ = fit
    ends = [last for _, last in _spans(trained.log.steps)]
    assert curves["learning_rate/dense"] == [(e, pytest.approx(hand.rates[e])) for e in ends]
    for name in ("speed/rows_per_second", "weight_norm/dense", "gradient_norm/all-losses"):
        assert [step for step, value in curves[name] if value > 0] == ends
    norm = math.sqrt(sum(float((p.detach().double() ** 2).sum()) for p in trained.ranker.parameters()))
    assert curves["weight_norm/dense"][-1][1] == pytest.approx(norm, rel=1e-4)


class _StoppedError(Exception):
    """Ends a training as a kill does, in this process."""


class _StopAt(Watcher):
    """Saves a checkpoint after one step, and stops some steps later."""

    def __init__(self, saver, save_at, stop_at):
        self.saver, self.save_at, self.stop_at = saver, save_at, stop_at

    def after_step(self, progress):
        if progress.step == self.save_at:
            self.saver.save(progress.checkpoint())
        if progress.step == self.stop_at:
            raise _StoppedError


def test_a_fit_that_goes_on_has_each_step_once(fit, shop_chain, noisy, tmp_path, read_events):
    whole = fit[2]
    saver = Saver(tmp_path / ".a.unfinished", 0, print)
    recorder = Recorder(_curves(tmp_path, "tensorboard"), noisy.tasks, print)
    with pytest.raises(_StoppedError), recorder:
        _train(shop_chain, noisy, watchers=[recorder, _StopAt(saver, 2 * WRITE - 1, 3 * WRITE)])
    cut = read_events(tmp_path)
    assert cut["loss/click"][-1][0] == 3 * WRITE, "what the last steps lost is there after an error too"
    with Recorder(_curves(tmp_path, "tensorboard"), noisy.tasks, print) as recorder:
        _train(shop_chain, noisy, watchers=[recorder], start=saver.read())
    again = read_events(tmp_path)
    again.pop("speed/rows_per_second")
    assert again == {name: whole[name] for name in again}
    assert len(again) == len(whole) - 1


def test_a_writer_that_fails_is_named_once_and_the_fit_goes_on(shop_chain, noisy, plain, tmp_path):
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    said = []
    with Recorder(_curves(tmp_path, "tensorboard"), noisy.tasks, said.append) as recorder:
        made = _train(shop_chain, noisy, watchers=[recorder])
    assert made.log.losses == plain[0].log.losses
    (line,) = said
    assert line.startswith("tensorboard: NotADirectoryError") or line.startswith(
        "tensorboard: FileExistsError"
    )
    assert line.endswith(f"the training goes on, and the curves of {NAME} end before step 0")


@pytest.mark.usefixtures("quick_ranks")
def test_two_processes_write_what_one_does(shop_chain, config, tmp_path, read_events):
    found = []
    for processes in (1, 2):
        runs = tmp_path / f"{processes}"
        with Recorder(_curves(runs, "tensorboard"), config.tasks, print) as recorder:
            train(
                shop_chain, {t.name: (0, 0) for t in config.tasks}, config, None, 1,
                watchers=[recorder], folder=tmp_path / "days", choice=HostChoice(processes=processes),
            )  # fmt: skip
        found.append(read_events(runs))
        found[-1].pop("speed/rows_per_second")
    one, two = found
    assert one.keys() == two.keys()
    for name, points in one.items():
        assert two[name] == [(step, pytest.approx(value, rel=2e-3, abs=1e-4)) for step, value in points], name
    assert len(list((tmp_path / "2" / "tensorboard" / NAME).iterdir())) == 1, "rank 0 alone writes"


class _Meets(Group):
    """Keeps which writers were closed when the ranks met."""

    def __init__(self, closed):
        self.closed, self.met = closed, []

    def sum_(self, tensors):
        self.met.append(list(self.closed))


def test_ranks_that_diverge_end_when_rank_0_has_closed_its_writers(tmp_path, monkeypatch):
    """The first rank that ends takes the others with it; MLflow may need a minute for its last points."""
    closed = []
    job, inputs = SimpleNamespace(curves=lambda: _curves(tmp_path)), SimpleNamespace(tasks=())
    monkeypatch.setattr(Recorder, "__exit__", lambda *_given: closed.append("all"))
    for error, met in ((DivergedError("bad"), [["all"]]), (RankError("another one's gone"), [])):
        group = _Meets(closed)
        with pytest.raises(type(error)), rank._recorded(job, inputs, group, ()):
            raise error
        assert group.met == met
        closed.clear()


def test_a_step_without_a_label_does_not_lower_the_mean_loss():
    """Neither in the curves nor in the losses that a training ends with."""
    steps = [{"a": 0.0, "b": 0.0}, {"a": 2.0, "b": 0.0}]
    assert mean_losses(steps) == TrainLog(losses=steps).mean_losses() == {"a": 2.0}


def test_entropy_is_over_the_experts_that_a_gate_reaches():
    gates = Gates()
    gates.add(
        {"a": torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]), "one": torch.tensor([[1.0, 0.0, 0.0]] * 2)}
    )
    gates.add({"a": torch.tensor([[0.5, 0.5, 0.0]]), "one": torch.tensor([[1.0, 0.0, 0.0]])})
    assert gates.values() == {"gate_entropy/a": pytest.approx(2 / 3)}
    assert Gates().values() == {}


def test_an_unknown_writer_and_an_absent_package_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match="'wandb' is unknown; known: tensorboard, mlflow"):
        check_writers(["wandb"])
    monkeypatch.setattr("training.curves.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'pip install "recsys-mtl\[mlflow\]", or take mlflow out'):
        check_writers(["mlflow"])
