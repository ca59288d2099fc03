"""A model goes to the device for a fit; embedding tables that it has no room for stay in host memory."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from recsys.device import CPU
from recsys.model.embeddings import LocalTables, TableSpec
from recsys.model.ranker import Ranker
from training.progress import CONSOLE

SHARE = 0.7
"""Of the device's free memory, for tables; the rest is for activations, gradients and the optimiser."""
BYTES = 4


@contextmanager
def on_device(ranker: Ranker, tables: LocalTables, device: torch.device) -> Iterator[None]:
    """Have ranker and tables on a device until the block ends; they come back to the processor's memory."""
    ranker.to(device)
    tables.to(device, tables_for_host(tables.specs.values(), device))
    try:
        yield
    finally:
        ranker.to(CPU)
        tables.to(CPU)


def tables_for_host(specs: Iterable[TableSpec], device: torch.device) -> frozenset[str]:
    """Name the tables that a device has no room for, and say so; a processor has room for all."""
    if device.type != "cuda":
        return frozenset()
    free, _ = torch.cuda.mem_get_info(device)
    # What torch keeps for itself and does not use counts as taken there.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    kept = too_large(specs, int(SHARE * free))
    for spec in kept:
        CONSOLE.print(
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
