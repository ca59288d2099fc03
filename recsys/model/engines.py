"""Ways to compute a candidate network on this host: the fastest of those that are right is taken.

    eager      torch, operation by operation, in float32: the reference
    bfloat16   the same with the first layer's product, the largest, in bfloat16, where the processor
               multiplies it
    bfloat16_trunks  all products of the trunks in bfloat16; gates, heads and sums stay float32

Shape letters: N candidates, C logits.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from recsys.model.candidate_network import CandidateInputs, CandidateNetwork, UserWeights
from recsys.model.ranker import UserSide

EAGER, BFLOAT16, BFLOAT16_TRUNKS = "eager", "bfloat16", "bfloat16_trunks"
FLOAT32_TOLERANCE = 1e-5
"""Largest difference of a logit from eager's, beside as large a share of it."""
BFLOAT16_TOLERANCE = 5e-3
"""Largest difference of a calibrated prediction, as a share of its range."""
TOP, MIN_OVERLAP = 50, 0.98
"""Of the best so many candidates by each task, this share is the same in bfloat16."""
NEAR = 2e-3
"""Of the standard deviation of a list's predictions: one so little below the last of the best is as good."""
REPEATS = 20


@dataclass(frozen=True, slots=True)
class Engine:
    """One way to compute logits [C, N] of a request; called with the tensors of `CandidateInputs`."""

    name: str
    run: Callable[..., Tensor]
    exact: bool = True
    """Whether it adds up in float32, so that its logits are eager's."""
    user_weights: Callable[[UserSide], UserWeights] | None = None
    """Gives what of a user `run` reads, in the type that it multiplies in; None: the network's own."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A request that engines are compared on."""

    inputs: CandidateInputs
    shares: Callable[[np.ndarray], Mapping[str, np.ndarray]]
    """Logits [C, N] -> each task's predictions [N] as a share of their range."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine that answers, and why."""

    engine: Engine
    milliseconds: dict[str, float] = field(default_factory=dict)
    """Median processor time of a sample with each engine that is right."""
    refused: dict[str, str] = field(default_factory=dict)
    """Engine -> how it is wrong."""


def eager(network: CandidateNetwork) -> Engine:
    """Compute with torch, in float32."""
    return Engine(EAGER, network)


def bfloat16(network: CandidateNetwork) -> Engine:
    """Compute with torch, the first layer's product in bfloat16."""
    rounded = network.with_first_layer_in(torch.bfloat16)
    return Engine(BFLOAT16, rounded, exact=False, user_weights=rounded.of_user)


def bfloat16_trunks(network: CandidateNetwork) -> Engine | None:
    """Compute with torch, the trunks' products in bfloat16; None where a trunk has no such form."""
    rounded = network.with_trunks_in(torch.bfloat16)
    if rounded is None:
        return None
    return Engine(BFLOAT16_TRUNKS, rounded, exact=False, user_weights=rounded.of_user)


@torch.inference_mode()
def choose(reference: Engine, others: Sequence[Engine], samples: Sequence[Sample]) -> Choice:
    """Take the fastest engine of those whose answers are the reference's, by the median of the samples."""
    right, refused = [reference], {}
    for engine in others:
        why = next(filter(None, (difference(engine, reference, sample) for sample in samples)), None)
        if why is None:
            right.append(engine)
        else:
            refused[engine.name] = why
    times = _measured(right, samples)
    fastest = min(right, key=lambda engine: times[engine.name])
    return Choice(fastest, times, refused)


def difference(engine: Engine, reference: Engine, sample: Sample) -> str | None:
    """Say how an engine's answer to a sample differs from the reference's; None: it does not."""
    try:
        found, wanted = (e.run(*sample.inputs.tensors).cpu().numpy() for e in (engine, reference))
    except RuntimeError as error:
        return f"it fails: {str(error).splitlines()[0]}"
    if found.shape != wanted.shape or not np.isfinite(found).all():
        return f"logits of the shape {found.shape}, not {wanted.shape}, or not finite"
    if engine.exact:
        apart = np.abs(found - wanted) / (1 + np.abs(wanted))
        worst = float(apart.max(initial=0.0))
        return f"logits differ by {worst:.1e}" if worst > FLOAT32_TOLERANCE else None
    return _prediction_difference(sample.shares(found), sample.shares(wanted))


def _prediction_difference(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> str | None:
    for task, values in wanted.items():
        worst = float(np.abs(found[task] - values).max(initial=0.0))
        if worst > BFLOAT16_TOLERANCE:
            return f"predictions of {task} differ by {worst:.1e} of their range"
        best, own = (np.argsort(-v, kind="stable")[:TOP] for v in (values, found[task]))
        same = np.count_nonzero(values[own] >= values[best[-1:]] - NEAR * values.std())
        if same < MIN_OVERLAP * best.size:
            return f"{same} of the best {best.size} by {task} are the same"
    return None


def _measured(engines: Sequence[Engine], samples: Sequence[Sample]) -> dict[str, float]:
    """Time engines in turns, so that a busy neighbour meets all of them."""
    times: dict[str, list[float]] = {engine.name: [] for engine in engines}
    for number in range(REPEATS):
        tensors = samples[number % len(samples)].inputs.tensors
        for engine in engines:
            start = time.thread_time()
            engine.run(*tensors)
            times[engine.name].append(time.thread_time() - start)
    return {name: 1000 * statistics.median(values) for name, values in times.items()}
