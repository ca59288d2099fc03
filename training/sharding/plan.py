"""Tables and memory -> which rank holds what, by TorchRec's planner, with or without the hardware.

A table lies on one rank (table-wise), or is cut by rows or by columns. Left alone, the planner cuts no table
by columns: row-wise Adagrad then keeps one accumulator per row *and block of columns*, another rule than
that of plain tables. On GPUs, tables lie in GPU memory; where they are too large, in host memory (FBGEMM's
`fused_uvm`), where there is room behind a cache in GPU memory (`fused_uvm_caching`).
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from recsys.config import TrainingConfig
from recsys.errors import ConfigError
from recsys.model.embeddings import EPS, TableSpec
from training.balancing import BALANCERS

KINDS = ("table_wise", "row_wise", "column_wise")
WHOLE_ROWS = KINDS[:2]
"""Kinds with the optimiser's rule of plain tables."""
IN_GPU_MEMORY = ("fused",)
ANYWHERE = ("fused", "fused_uvm_caching", "fused_uvm")
WIDTH_STEP = 4
"""FBGEMM's tables have widths in multiples of this."""
CACHED_SHARE = 0.1
"""Of the rows of a table in host memory, how many its cache in GPU memory holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableUse:
    """One table, as far as a plan depends on it."""

    rows: int
    dim: int
    per_example: float = 1.0
    """Rows that an example looks up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What the ranks have for tables and a step's rows of them."""

    ranks: int
    local_ranks: int
    """Of one host."""
    device: str
    """cpu or cuda."""
    gpu_bytes: int = 0
    """Of each rank's GPU."""
    host_bytes: int | None = None
    """Of host memory, for each rank; None: as TorchRec assumes of a GPU's host."""
    reserved_share: float = 0.15
    """Share of it that the tables may not have."""


class Collections(nn.Module):
    """One EmbeddingCollection per width: TorchRec requires equal widths in one collection.

    They are on the meta device, which allocates nothing, and have row-wise Adagrad in their backward.
    """

    def __init__(self, tables: Mapping[str, TableUse], learning_rate: float) -> None:
        """Build the collections; sharding allocates their memory."""
        from torch.distributed.optim.apply_optimizer_in_backward import (
            _apply_optimizer_in_backward as apply_optimizer_in_backward,
        )
        from torchrec import EmbeddingCollection, EmbeddingConfig
        from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

        super().__init__()
        self.names: dict[str, list[str]] = {}
        for name, table in tables.items():
            self.names.setdefault(str(table.dim), []).append(name)
        self.by_dim = nn.ModuleDict()
        for dim, names in self.names.items():
            configs = [
                EmbeddingConfig(
                    name=n, embedding_dim=int(dim), num_embeddings=tables[n].rows, feature_names=[n]
                )
                for n in names
            ]
            self.by_dim[dim] = EmbeddingCollection(tables=configs, device=torch.device("meta"))
        apply_optimizer_in_backward(RowWiseAdagrad, self.parameters(), {"lr": learning_rate, "eps": EPS})

    def forward(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Look up the rows of all widths."""
        return {dim: collection(asked[dim]) for dim, collection in self.by_dim.items()}


def make_planner(
    tables: Mapping[str, TableUse],
    room: Room,
    batch_size: int,
    kinds: Mapping[str, Sequence[str]],
    kernels: Sequence[str],
) -> Any:
    """Make the planner of these tables.

    Args: batch_size: examples of a rank's step; kinds: table -> the kinds of sharding that it may have;
    kernels: where tables may lie.
    """
    from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
    from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
    from torchrec.distributed.types import CacheParams

    cached = CacheParams(load_factor=CACHED_SHARE) if room.device == "cuda" and len(kernels) > 1 else None
    constraints = {
        name: ParameterConstraints(
            sharding_types=list(kinds[name]),
            compute_kernels=list(kernels),
            pooling_factors=[table.per_example],
            min_partition=_block(table.dim, room.ranks),
            cache_params=cached,
        )
        for name, table in tables.items()
    }
    with quiet():
        topology = Topology(
            world_size=room.ranks,
            local_world_size=room.local_ranks,
            compute_device=room.device,
            hbm_cap=room.gpu_bytes,
            ddr_cap=room.host_bytes,
        )
        return EmbeddingShardingPlanner(
            topology=topology,
            batch_size=batch_size,
            constraints=constraints,
            storage_reservation=FixedPercentageStorageReservation(room.reserved_share),
            debug=False,
        )


def allowed_kinds(tables: Mapping[str, TableUse], wanted: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Give the kinds that each table may have: the one that the config names, or those with whole rows.

    Raises: ConfigError for a table that is not there, and for a width that FBGEMM has no kernel for.
    """
    unknown = sorted(set(wanted) - set(tables))
    if unknown:
        raise ConfigError(
            f"[training.sharding] {', '.join(unknown)}: no such table; the model has {', '.join(tables)}"
        )
    for name, table in tables.items():
        if table.dim % WIDTH_STEP:
            raise ConfigError(
                f"table {name} is {table.dim} wide: tables that ranks share have widths in multiples of "
                f'{WIDTH_STEP} (FBGEMM); change its width, or take [training] tables = "replicated"'
            )
    return {name: (wanted[name],) if name in wanted else WHOLE_ROWS for name in tables}


def check_sharding(training: TrainingConfig, specs: Iterable[TableSpec]) -> None:
    """Refuse what sharded tables cannot do, before ranks are started.

    Raises: ConfigError, as `allowed_kinds`, and for a balancer that looks at gradients of rows.
    """
    allowed_kinds({s.name: TableUse(rows=s.capacity, dim=s.dim) for s in specs}, training.sharding)
    if BALANCERS[training.balancing].reads_rows:
        able = ", ".join(name for name, entry in BALANCERS.items() if not entry.reads_rows)
        raise ConfigError(
            f"[training] balancing = {training.balancing!r} looks at the gradients of rows, and no rank has "
            f'them whole where tables are sharded; take one of {able}, or tables = "replicated"'
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the planner's remarks on hardware that it does not find out of the output."""
    logger = logging.getLogger("torchrec")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _block(dim: int, ranks: int) -> int:
    """Give the width of a column-wise shard: as many shards as ranks where the width allows it."""
    return -(-dim // ranks // WIDTH_STEP) * WIDTH_STEP if ranks > 1 else dim
