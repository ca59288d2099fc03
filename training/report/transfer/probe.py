"""Watch a shared training: do gradients agree, and what does one task's step do to another's loss?

At every n-th step, on its batch: the cosine of every two losses' gradients of what they share; and how much
each loss falls when task i alone makes its part of the step: its weighted gradient, scaled as AdamW and the
tables' Adagrad would, own heads kept. The affinity of i to j is that fall of j's loss over all the probes, as
a share of the loss (Fifty et al., NeurIPS 2021; a ratio of sums, because a batch's few labels can make its
loss tiny). Nothing is changed: weights are put back bit by bit, and so is the random state.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys.model.embeddings import LocalTables
from training.balancing.gradients import TaskGradients, task_gradients
from training.trainer.moment import Moment
from training.trainer.watcher import Watcher

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What was seen at one step; a loss without a gradient there is in no pair."""

    step: int
    cosine: dict[Pair, float]
    fall: dict[Pair, float]
    """(from, to) -> by how much the step of one lowers the loss of the other."""
    loss: dict[str, float]
    """The losses before any step."""


class GradientProbe(Watcher):
    """A watcher of `fit`."""

    def __init__(self, weights: Mapping[str, float], every: int) -> None:
        """Look at every n-th step; `weights` are the config's, by loss."""
        self.weights, self.every = dict(weights), every
        self.probes: list[Probe] = []

    def before_step(self, moment: Moment) -> None:
        """Look, when it is time to."""
        if moment.step % self.every == 0:
            with torch.random.fork_rng(devices=[]):
                self.probes.append(self._look(moment))

    def _look(self, moment: Moment) -> Probe:
        losses = _losses(moment, moment.rows)
        gradients = task_gradients(losses, moment.parameters, list(moment.rows.values()))
        names, gramian = list(gradients.by_task), gradients.gramian()
        length = gramian.diagonal().sqrt()
        active = [i for i in range(len(names)) if length[i] > 0]
        cosine = {
            (names[i], names[j]): float(gramian[i, j] / (length[i] * length[j]))
            for i in active
            for j in active
            if i < j
        }
        before = {name: float(losses[name].detach()) for name in names}
        fall: dict[Pair, float] = {}
        if moment.dense.has_stepped:  # the first step has no scale yet
            for i in active:
                after = self._after(moment, gradients, names[i])
                fall |= {(names[i], names[j]): before[names[j]] - after[names[j]] for j in active}
        return Probe(step=moment.step, cosine=cosine, fall=fall, loss=before)

    @torch.no_grad()
    def _after(self, moment: Moment, gradients: TaskGradients, task: str) -> dict[str, float]:
        """Give all losses after the step that one task's gradient alone would make."""
        weight = self.weights.get(task, 1.0)
        num_dense = len(moment.parameters)
        found = gradients.by_task[task]
        moves = _dense_moves(moment, weight, found[:num_dense], gradients.shared)
        assert isinstance(moment.tables, LocalTables), "the report trains in one process"
        rows = dict(moment.rows)
        for (name, leaf), gradient in zip(moment.rows.items(), found[num_dense:], strict=True):
            if gradient is not None:
                _, move = moment.tables.preview(name, moment.numbers[name], weight * gradient)
                rows[name] = leaf + move
        with _moved(moment.parameters, moves):
            return {name: float(loss) for name, loss in _losses(moment, rows).items()}


def mean_cosines(probes: Sequence[Probe]) -> dict[Pair, tuple[float, float, float]]:
    """Give each pair's mean over probes, its standard error, and the share of probes below 0."""
    seen: dict[Pair, list[float]] = {}
    for probe in probes:
        for pair, value in probe.cosine.items():
            seen.setdefault(pair, []).append(value)
    return {pair: _summary(np.array(values), np.ones(len(values))) for pair, values in seen.items()}


def affinities(probes: Sequence[Probe]) -> dict[Pair, tuple[float, float, float]]:
    """Give each pair's fall over loss, summed over probes, its standard error, and the share below 0."""
    seen: dict[Pair, list[tuple[float, float]]] = {}
    for probe in probes:
        for (first, second), fall in probe.fall.items():
            seen.setdefault((first, second), []).append((fall, probe.loss[second]))
    found = {}
    for pair, values in seen.items():
        fall_P, loss_P = np.array(values).T
        found[pair] = _summary(fall_P, loss_P)
    return found


def _summary(value_P: np.ndarray, base_P: np.ndarray) -> tuple[float, float, float]:
    """Give sum(value) / sum(base), its standard error (delta method), and the share of values below 0.

    The error of one value is not known: NaN.
    """
    ratio = float(value_P.sum() / base_P.sum())
    rest_P = (value_P - ratio * base_P) / base_P.mean()
    error = float(rest_P.std(ddof=1) / rest_P.size**0.5) if rest_P.size > 1 else float("nan")
    return ratio, error, float((value_P < 0).mean())


def _losses(moment: Moment, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Compute the losses with the same dropout at every call."""
    torch.manual_seed(moment.step)
    return moment.losses(rows)


def _dense_moves(
    moment: Moment, weight: float, gradients: Sequence[Tensor | None], shared: Sequence[bool]
) -> list[Tensor | None]:
    """Give what one gradient per parameter adds to AdamW's next step; None for a task's own parameters."""
    return [
        moment.dense.preview(parameter, weight * gradient) if gradient is not None and is_shared else None
        for parameter, gradient, is_shared in zip(moment.parameters, gradients, shared, strict=False)
    ]


@contextmanager
def _moved(parameters: Sequence[Tensor], moves: Sequence[Tensor | None]) -> Iterator[None]:
    """Move parameters, and put the very same numbers back."""
    before = [p.detach().clone() if m is not None else None for p, m in zip(parameters, moves, strict=True)]
    try:
        for parameter, move in zip(parameters, moves, strict=True):
            if move is not None:
                parameter += move
        yield
    finally:
        for parameter, old in zip(parameters, before, strict=True):
            if old is not None:
                parameter.copy_(old)
