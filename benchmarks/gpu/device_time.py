"""Time on a device: what it does is done before a clock is read."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice

import torch
from torch import Tensor

from recsys.batch import Batch


def wait_for(device: torch.device) -> None:
    """Wait until a device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_each(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Give the median time of a call among rounds of several, which take about so many seconds together."""
    began = time.perf_counter()
    call()
    wait_for(device)
    first = time.perf_counter() - began
    num = max(1, min(50, int(seconds / 6 / max(first, 1e-6))))
    rounds = []
    for _ in range(6):
        began = time.perf_counter()
        for _ in range(num):
            call()
        wait_for(device)
        rounds.append((time.perf_counter() - began) / num)
    return statistics.median(rounds[1:])


def latency_ms(calls: Iterator[Callable[[], object]], device: torch.device) -> dict[str, float]:
    """Time each call alone, from its start to the end of its work; the first tenth is not counted."""
    found = []
    for call in calls:
        began = time.perf_counter()
        call()
        wait_for(device)
        found.append(1e3 * (time.perf_counter() - began))
    found = sorted(found[len(found) // 10 :])
    return {f"p{q}_ms": found[min(len(found) - 1, len(found) * q // 100)] for q in (50, 99)}


def around(batches: Sequence[Batch], num: int) -> Iterator[Batch]:
    """Give so many batches, going through them again and again."""
    return islice(cycle(batches), num)


def bytes_of(tensors: Sequence[Tensor]) -> int:
    """Count the bytes of tensors."""
    return sum(t.numel() * t.element_size() for t in tensors)
