"""How a night's weights are trained on this host: precision and number of processes, measured once, kept.

A night of fewer than MIN_STEPS steps measures nothing: it is over before a measurement pays, and a small log
then gives the same version on every host.
"""

import os
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch

from recsys.config import TrainingConfig
from recsys.device import CPU, has_fast_bf16, resolve_device
from recsys.errors import ConfigError
from recsys.model.embeddings import LocalTables, TableSpec
from recsys.model.ranker import Ranker
from training.errors import DivergedError, RankError
from training.fit_inputs import FitInputs
from training.processes.free_memory import free_memory
from training.processes.parent import fit_in_processes
from training.progress import say
from training.sharding.plan import check_sharding
from training.table_placement import copies_fit, on_device, table_bytes
from training.trainer.train_log import TrainLog

Precision = Literal["fp32", "bf16"]
TablesForm = Literal["replicated", "sharded"]
MIN_STEPS = 1000
TIMED_STEPS = 20
WARM_UP = 5
"""First steps that are not counted: memory is new, and products choose their kernels."""
MIN_GAIN = 1.1
"""What is faster by less is noise; of two the simpler one is taken, float32 and one process."""
RANK_BYTES = 500 << 20
"""Of a rank beside its tables and parameters: libraries, a few batches, activations (the bench: 510 MB)."""
MIN_SLICE = 256
"""Rows of a batch that a process has at least; below, exchanging gradients costs more than it brings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostChoice:
    """What `auto` stands for; an input of the learning stages, so that a night run again reads it."""

    precision: Precision = "fp32"
    processes: int = 1
    tables: TablesForm = "replicated"

    @classmethod
    def unmeasured(cls, training: TrainingConfig) -> "HostChoice":
        """Take what the config says; where it says `auto`, what is the same on every host: fp32, one process,
        replicated tables.

        For trainings that are compared with each other, and for nights too short to measure anything.
        """
        return cls(
            precision="fp32" if training.precision == "auto" else training.precision,
            processes=1 if training.processes == "auto" else training.processes,
            tables="replicated" if training.tables == "auto" else training.tables,
        )

    def with_tables(self, training: TrainingConfig, specs: Iterable[TableSpec]) -> Self:
        """Settle what `tables = "auto"` is for so many processes: copies where each has room for its own."""
        if training.tables != "auto":
            return replace(self, tables=training.tables)
        device = resolve_device(training.device)
        alone = self.processes == 1 or copies_fit(specs, device, self.processes)
        return replace(self, tables="replicated" if alone else "sharded")

    @property
    def in_ranks(self) -> bool:
        """Tell whether ranks are started for a fit: several, or one whose tables TorchRec places."""
        return self.processes > 1 or self.tables == "sharded"

    def __str__(self) -> str:
        """Say it in words."""
        said = f"{self.precision}, {self.processes} process{'es' if self.processes > 1 else ''}"
        return f"{said}, sharded tables" if self.tables == "sharded" else said


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A few real steps of a night's own model, on its last days; nothing is kept of them."""

    inputs: FitInputs
    ranker: Ranker
    tables: LocalTables

    @classmethod
    def of(cls, inputs: FitInputs, ranker: Ranker, tables: LocalTables) -> Self:
        """Take as many of the last days as have the steps."""
        days, limit = list(inputs.days.items()), WARM_UP + TIMED_STEPS
        first = len(days) - 1
        while first and replace(inputs, days=dict(days[first:]), epochs=1).num_steps < limit:
            first -= 1
        some = replace(inputs, days=dict(days[first:]), epochs=1, limit=limit)
        return cls(inputs=some, ranker=ranker, tables=tables)

    @property
    def specs(self) -> list[TableSpec]:
        """List the tables."""
        return list(self.tables.specs.values())

    def rows_per_second(self, choice: HostChoice) -> float:
        """Time the steps as they would be made; the median step counts. 0: not possible here."""
        if choice.in_ranks:
            need, free = self._memory(choice), free_memory()
            if free is not None and need > free:
                needs = f"it needs about {need / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free"
                say(f"{choice}: not tried: {needs}")
                return 0.0
        try:
            log = self._made(choice)
        except DivergedError as error:  # the stage that keeps its weights saves the step that is bad
            say(f"{choice}: not measured: {error}")
            return 0.0
        except (RankError, ConfigError) as error:  # no memory, as a rule, or tables that cannot be shared
            say(f"{choice}: not possible here: {error}")
            return 0.0
        steps = [b - a for a, b in zip(log.ends, log.ends[1:], strict=False)]
        return log.rows / log.steps / statistics.median(steps[min(WARM_UP, len(steps) - 1) :])

    def _made(self, choice: HostChoice) -> TrainLog:
        settings = replace(self.inputs.settings, bf16=choice.precision == "bf16")
        inputs = replace(self.inputs, settings=settings)
        if choice.in_ranks:
            sharded = choice.tables == "sharded"
            if sharded:
                check_sharding(inputs.config.training, self.specs)
            return fit_in_processes(inputs, self.ranker, self.tables, choice.processes, sharded=sharded)
        with on_device(self.ranker, self.tables, resolve_device(inputs.config.training.device)):
            return inputs.fit(self.ranker, self.tables)

    def _memory(self, choice: HostChoice) -> int:
        """Estimate the bytes that ranks need: each reads the parent's tables, or its share, into its own."""
        tables = sum(map(table_bytes, self.specs))
        dense = sum(4 * p.numel() * p.element_size() for p in self.ranker.parameters())
        copies = 1 if choice.tables == "sharded" else choice.processes
        return choice.processes * (RANK_BYTES + dense) + 2 * copies * tables


def measure_choice(training: TrainingConfig, trial: Trial) -> tuple[HostChoice, dict[str, float]]:
    """Choose precision, in one process, then the number of processes; give the rows a second of each."""
    best, device = HostChoice.unmeasured(training), resolve_device(training.device)
    best = best.with_tables(training, trial.specs)
    measured: dict[str, float] = {}

    def faster(other: HostChoice, than: HostChoice) -> HostChoice:
        for choice in (than, other):
            if str(choice) not in measured:
                measured[str(choice)] = round(trial.rows_per_second(choice), 1)
        return other if measured[str(other)] > MIN_GAIN * measured[str(than)] else than

    if training.precision == "auto" and has_fast_bf16(device):
        alone = replace(best, processes=1).with_tables(training, trial.specs)
        best = replace(best, precision=faster(replace(alone, precision="bf16"), alone).precision)
    if training.processes == "auto" and (several := num_processes(training.batch_size, device)) > 1:
        best = faster(replace(best, processes=several).with_tables(training, trial.specs), best)
    return best, measured


def is_open(training: TrainingConfig) -> bool:
    """Tell whether there is anything to measure: a key that says `auto`, and a host that leaves a choice."""
    device = resolve_device(training.device)
    precision = training.precision == "auto" and has_fast_bf16(device)
    processes = training.processes == "auto" and num_processes(training.batch_size, device) > 1
    return precision or processes


def num_processes(batch_size: int, device: torch.device = CPU) -> int:
    """Give how many processes are tried beside one: one per processor or GPU, with rows enough for each."""
    if device.type == "cuda":
        return max(1, min(torch.cuda.device_count(), batch_size // MIN_SLICE))
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(processors, batch_size // MIN_SLICE)
