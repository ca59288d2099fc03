"""Where embedding tables have room: on the device of a fit, in host memory, as copies in processes."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from recsys.device import CPU
from recsys.model.embeddings import LocalTables, Tables, TableSpec
from recsys.model.ranker import Ranker
from training.processes.free_memory import total_memory
from training.progress import say

SHARE = 0.7
"""Of the device's free memory, for tables; the rest is for activations, gradients and the optimiser."""
COPIES_SHARE = 0.5
"""Of a process's memory, for its copy of the tables: as much again is held while a checkpoint is written."""
BYTES = 4


@contextmanager
def on_device(ranker: Ranker, tables: Tables, device: torch.device) -> Iterator[None]:
    """Have ranker and tables on a device until the block ends; they come back to the processor's memory.

    Tables that ranks share stay where their plan has put them.
    """
    ranker.to(device)
    own = tables if isinstance(tables, LocalTables) else None
    if own is not None:
        own.to(device, tables_for_host(own.specs.values(), device))
    try:
        yield
    finally:
        ranker.to(CPU)
        if own is not None:
            own.to(CPU)


def tables_for_host(specs: Iterable[TableSpec], device: torch.device) -> frozenset[str]:
    """Name the tables that a device has no room for, and say so; a processor has room for all."""
    if device.type != "cuda":
        return frozenset()
    free, _ = torch.cuda.mem_get_info(device)
    # What torch keeps for itself and does not use counts as taken there.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    kept = too_large(specs, int(SHARE * free))
    for spec in kept:
        say(
            f"table {spec.name} ({table_bytes(spec) / 2**30:.1f} GiB) stays in host memory: {SHARE:.0%} of "
            f"the {free / 2**30:.1f} GiB free on {device} are for tables; steps that read it are slower"
        )
    return frozenset(spec.name for spec in kept)


def too_large(specs: Iterable[TableSpec], budget: int) -> list[TableSpec]:
    """Give the tables that do not fit into so many bytes when the smallest are taken first.

    A step reads about as many rows of a small table as of a large one: small ones save most per byte.
    """
    kept = []
    for spec in sorted(specs, key=table_bytes):
        budget -= table_bytes(spec)
        if budget < 0:
            kept.append(spec)
    return kept


def table_bytes(spec: TableSpec) -> int:
    """Count the bytes of a table's weights and of its optimiser's state."""
    return spec.capacity * (spec.dim + 1) * BYTES


def copies_fit(specs: Iterable[TableSpec], device: torch.device, processes: int) -> bool:
    """Tell whether each of several processes has room for its copy of tables and optimiser's state."""
    return sum(map(table_bytes, specs)) <= COPIES_SHARE * process_bytes(device, processes)


def process_bytes(device: torch.device, processes: int) -> int:
    """Give the memory of one of several processes: its GPU's, or an equal part of the host's.

    It is what is built in, not what is free now: the answer is the same tomorrow.
    """
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return total_memory() // processes
