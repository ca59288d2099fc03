"""Scoring one request's candidates, as the server's scorer does it, on the device and on the CPU."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.device_time import latency_ms
from benchmarks.gpu.inputs import ProductInputs
from benchmarks.gpu.settings import Settings
from recsys.batch import Batch
from recsys.device import CPU
from recsys.model.ranker import ItemSide

CANDIDATES = 500
REQUESTS, SMALL_REQUESTS = 400, 4
COMPARED = 8
TOLERANCE = 1e-3


def measure_scoring(settings: Settings) -> dict[str, Any]:
    """Time a request from its inputs in host memory to its logits in host memory; compare the logits."""
    num = SMALL_REQUESTS if settings.small else REQUESTS
    on_cpu = _Requests(settings.inputs, CPU)
    here = _Requests(settings.inputs, settings.device)
    with torch.no_grad():
        apart = max(float((here.score(n) - on_cpu.score(n)).abs().max()) for n in range(min(num, COMPARED)))
        found = latency_ms(here.calls(num), settings.device)
        cpu = latency_ms(on_cpu.calls(num // 4), CPU)
    return {
        **found,
        "candidates": CANDIDATES,
        "requests": num,
        "on_cpu": cpu,
        "cpu_threads": torch.get_num_threads(),
        "largest_difference_of_logits": apart,
        "agree": apart < TOLERANCE,
        "line": f"{CANDIDATES} candidates: p50 {found['p50_ms']:.2f} ms, p99 {found['p99_ms']:.2f} ms "
        f"(CPU p50 {cpu['p50_ms']:.2f} ms); logits differ by at most {apart:.1e}",
    }


class _Requests:
    """The file's requests, and a catalogue whose items are encoded already, as a server holds it."""

    def __init__(self, inputs: ProductInputs, device: torch.device) -> None:
        self.inputs, self.device = inputs, device
        self.ranker, self.tables = inputs.model(device)
        self.ranker.eval()
        batch = inputs.catalogue.to(device)
        items = batch.negatives
        assert items is not None, "the catalogue is written with its items"
        with torch.no_grad():
            rows = self.tables.lookup(batch.rows)
            looked_up = self.ranker.looked_up(items, rows, "item")
            self.items: ItemSide = self.ranker.item_side(looked_up, items.numbers_MF, items.text_MT)
        self.num_items = items.item_M.numel()

    def calls(self, num: int) -> Iterator[Callable[[], object]]:
        """Give so many requests."""
        for n in range(num):
            yield lambda n=n: self.score(n)  # type: ignore[misc]

    def score(self, n: int) -> Tensor:
        """Give the logits [K, N] of request n, in host memory."""
        request = self.inputs.requests[n % len(self.inputs.requests)]
        drawn = torch.randint(self.num_items, (CANDIDATES,), generator=torch.Generator().manual_seed(n))
        found = self._logits(_moved(request, self.device), drawn.to(self.device))
        return torch.stack([values.reshape(CANDIDATES, -1).mean(dim=1) for values in found.values()]).cpu()

    def _logits(self, request: Batch, candidates: Tensor) -> dict[str, Tensor]:
        rows = self.tables.lookup(request.rows)
        user = self.ranker.user_side(request, rows).one(0)
        context = self.ranker.context(
            self.ranker.looked_up(request, rows, "context"), request.context_numbers_BF
        )
        cross = request.cross_numbers_BF.expand(candidates.numel(), -1)
        return self.ranker.logits(user, self.items.take(candidates), context, cross)


def _moved(request: Batch, device: torch.device) -> Batch:
    """Give a request on a device: nothing of it is there yet, even where the device is the CPU."""
    return replace(request, negatives=None).to(device)
