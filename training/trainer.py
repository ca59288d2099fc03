"""fit(ranker, tables, batches) -> TrainLog. Reads no file, parses no flag; one process or many."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from queue import Queue
from threading import Thread
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from recsys.batch import Batch
from recsys.model.embeddings import Tables
from recsys.model.ranker import ItemSide, Ranker, UserSide
from recsys.tasks import RETRIEVAL, TaskSpec
from training.balancing import Balancer
from training.errors import DivergedError
from training.objective import retrieval_loss, task_losses

T = TypeVar("T")


class Learner(Protocol):
    """What `fit` needs of a model: the ranker, or one of a table without users and items."""

    def train(self) -> Any:
        """Turn dropout on."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Give the dense parameters."""

    def parameter_groups(self) -> dict[float, list[nn.Parameter]]:
        """Group them by their multiple of the learning rate."""

    def __call__(
        self, batch: Batch, rows: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], UserSide | None, ItemSide | None]:
        """Give logits per task and, where there is retrieval to learn, both sides."""


@dataclass(slots=True)
class TrainLog:
    """What a fit did: mean loss per task and part of the run, rows and seconds."""

    losses: list[dict[str, float]] = field(default_factory=list)
    steps: int = 0
    rows: int = 0
    seconds: float = 0.0
    """Wall time."""
    cpu_seconds: float = 0.0
    """Processor time of the process; other processes on the machine change it least."""

    def mean_losses(self, last: int = 50) -> dict[str, float]:
        """Average the last steps' losses."""
        tail = self.losses[-last:]
        return {k: float(np.mean([step[k] for step in tail])) for k in tail[0]} if tail else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """Learning rates and the retrieval loss."""

    learning_rate: float
    weight_decay: float
    retrieval_task: str | None
    temperature: float
    total_steps: int
    warmup_steps: int = 0
    constant: bool = False
    """Keep the learning rate as it is: weights that are continued are near their optimum already."""
    bf16: bool = False
    """Multiply matrices in bfloat16 (weights, losses and optimisers stay in float32)."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A step that is about to be made, for observers of the training."""

    step: int
    ranker: Ranker
    losses: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    """Looked-up rows -> the batch's losses in float32; draws dropout anew at each call."""
    parameters: Sequence[Tensor]
    dense: torch.optim.AdamW
    numbers: Mapping[str, Tensor]
    """Table -> distinct numbers [U] of the batch."""
    rows: Mapping[str, Tensor]
    """Table -> the looked-up rows [U, D]."""
    tables: Tables


Observer = Callable[[Moment], None]
"""Looks at a moment and leaves everything as it was, the random state included."""


def fit(
    ranker: Learner,
    tables: Tables,
    batches: Iterable[Batch],
    balancer: Balancer,
    tasks: Sequence[TaskSpec],
    settings: FitSettings,
    on_step: Callable[[int], None] = lambda _rows: None,
    observer: Observer | None = None,
) -> TrainLog:
    """Make one optimiser step per batch.

    The graph is cut at the looked-up rows: one backward fills their gradients and the dense parameters', then
    the tables step once. An observer sees every step before it is made.
    Raises: DivergedError when a loss, or what a balancer makes of the gradients, is not finite.
    """
    ranker.train()
    parameters = list(ranker.parameters())
    groups = [{"params": group, "scale": scale} for scale, group in ranker.parameter_groups().items()]
    dense = torch.optim.AdamW(
        groups, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    log, began, began_cpu = TrainLog(), time.perf_counter(), time.process_time()
    for batch in ahead(batches):
        for group in dense.param_groups:
            group["lr"] = settings.learning_rate * group["scale"] * _schedule(log.steps, settings)
        rows = tables.lookup(batch.rows)
        if observer is not None:
            assert isinstance(ranker, Ranker), "only rankers are watched"
            losses_of = partial(all_losses, ranker, batch, tasks, replace(settings, bf16=False))
            observer(Moment(log.steps, ranker, losses_of, parameters, dense, batch.rows, rows, tables))
        losses = all_losses(ranker, batch, tasks, settings, rows)
        values = {k: float(v.detach()) for k, v in losses.items()}
        if not all(math.isfinite(v) for v in values.values()):
            raise DivergedError(
                f"loss is not finite at step {log.steps}: {values}; lower [training] learning_rate"
            )
        dense.zero_grad()
        balancer.backward(losses, parameters, list(rows.values()))
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        dense.step()
        tables.step(batch.rows, rows)
        log.losses.append(values)
        log.steps += 1
        log.rows += batch.size
        on_step(batch.size)
    log.seconds, log.cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    return log


def all_losses(
    ranker: Learner,
    batch: Batch,
    tasks: Sequence[TaskSpec],
    settings: FitSettings,
    rows: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Give the heads' losses and the retrieval loss of a batch and its looked-up rows."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.bf16):
        logits, user, item = ranker(batch, rows)
    losses = task_losses({k: v.float() for k, v in logits.items()}, batch, tasks)
    if settings.retrieval_task is not None:
        assert isinstance(ranker, Ranker)
        assert user is not None
        assert item is not None
        losses[RETRIEVAL] = retrieval_loss(
            ranker, batch, rows, user, item, settings.retrieval_task, settings.temperature
        )
    return losses


@torch.no_grad()
def predict_logits(ranker: Ranker, tables: Tables, batches: Iterable[Batch]) -> dict[str, np.ndarray]:
    """Give logits float32 per task, [N] or (ordinal) [N, C], position bias off."""
    ranker.eval()
    # Starts with none, so that no batch at all gives logits of the right width too.
    found = {t.name: [ranker.heads.links[t.name](torch.zeros(0)).numpy()] for t in ranker.specs}
    for batch in ahead(batches):
        rows = tables.lookup(batch.rows)
        user = ranker.user_side(batch, rows)
        item = ranker.item_side(
            ranker.looked_up(batch, rows, "item"), batch.item_numbers_BF, batch.item_text_BT
        )
        context = ranker.context(ranker.looked_up(batch, rows, "context"), batch.context_numbers_BF)
        for task, values in ranker.logits(user, item, context, batch.cross_numbers_BF).items():
            found[task].append(values.numpy())
    return {task: np.concatenate(parts) for task, parts in found.items()}


def has_fast_bf16() -> bool:
    """Tell whether this processor multiplies bfloat16 matrices natively."""
    return (
        bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
    )


def ahead(items: Iterable[T], depth: int = 4) -> Iterator[T]:
    """Produce items in a background thread, a few ahead of their use; the producer's error is raised here."""
    queue: Queue[tuple[str, object]] = Queue(maxsize=depth)
    stopped = False

    def produce() -> None:
        try:
            for item in items:
                if stopped:
                    return
                queue.put(("item", item))
            queue.put(("end", None))
        except BaseException as error:
            queue.put(("error", error))

    thread = Thread(target=produce, daemon=True)
    thread.start()
    try:
        while True:
            what, value = queue.get()
            if what == "end":
                return
            if what == "error":
                raise value  # type: ignore[misc]
            yield value  # type: ignore[misc]
    finally:
        stopped = True
        while thread.is_alive() and not queue.empty():
            queue.get_nowait()
        thread.join(timeout=5)


def _schedule(step: int, settings: FitSettings) -> float:
    """Warm up linearly, then decay linearly to a tenth; a continuation stays at its one small rate."""
    if settings.constant:
        return 1.0
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.total_steps - settings.warmup_steps)
    return 1.0 - 0.9 * min(done, 1.0)
