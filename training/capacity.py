"""Users, items, GPUs -> how TorchRec's planner would spread the embedding tables, without the hardware.

Tables are built on the meta device, which allocates nothing. What a GPU holds is weights (4 bytes a value),
the accumulators of row-wise Adagrad (4 bytes a row), and what the planner estimates for a step's ids, rows
and gradients. A share of each GPU is left to all else: dense parameters, their optimiser, activations.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, ConfigDict

from recsys.errors import ConfigError

GB = 1_000_000_000
VALUE_BYTES = 4
MAX_DIM = 2048
MAX_GPUS = 16_384
SHARDINGS = ("table_wise", "column_wise", "row_wise")


class Fleet(BaseModel):
    """GPUs of one kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpus: int
    hbm_bytes: int
    """Memory of each."""
    reserved_share: float
    """Share of it that the tables may not have."""

    @property
    def usable_bytes(self) -> int:
        """Give what the tables may have of one GPU."""
        return round(self.hbm_bytes * (1 - self.reserved_share))


class Workload(BaseModel):
    """What is looked up."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    users: int
    items: int
    dim: int
    batch_size: int
    """Rows a step and GPU."""
    history_length: int
    """Items looked up for a row, beside the candidate."""


class TablePlan(BaseModel):
    """One table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    rows: int
    dim: int
    weight_bytes: int
    state_bytes: int
    sharding: str | None
    """row_wise, column_wise or table_wise; None without a plan."""
    ranks: tuple[int, ...]


class RankPlan(BaseModel):
    """What one GPU holds, in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int
    weight_bytes: int
    state_bytes: int
    step_bytes: int
    """The planner's estimate of a step's ids, looked-up rows and their gradients."""
    total_bytes: int


class CapacityPlan(BaseModel):
    """A plan, or what does not fit and what would make it fit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fleet: Fleet
    workload: Workload
    fits: bool
    tables: tuple[TablePlan, ...]
    ranks: tuple[RankPlan, ...]
    missing: str | None
    remedies: tuple[str, ...]


def plan_capacity(workload: Workload, fleet: Fleet) -> CapacityPlan:
    """Plan the tables; where they do not fit, find the GPUs, the width or the memory with which they do.

    Raises: ConfigError for sizes that make no sense.
    """
    _check(workload, fleet)
    found = _plan(workload, fleet)
    tables, ranks = _describe(workload, found)
    if found is not None:
        return CapacityPlan(
            fleet=fleet, workload=workload, fits=True, tables=tables, ranks=ranks, missing=None, remedies=()
        )
    needed = sum(t.weight_bytes + t.state_bytes for t in tables)
    missing = (
        f"the tables need {needed / GB:.1f} GB and a step's rows; {fleet.gpus} GPUs leave them "
        f"{fleet.gpus * fleet.usable_bytes / GB:.1f} GB"
    )
    return CapacityPlan(
        fleet=fleet,
        workload=workload,
        fits=False,
        tables=tables,
        ranks=(),
        missing=missing,
        remedies=tuple(_remedies(workload, fleet, needed)),
    )


def _check(workload: Workload, fleet: Fleet) -> None:
    whole = {
        "--users": (workload.users, 10**12),
        "--items": (workload.items, 10**12),
        "--dim": (workload.dim, MAX_DIM),
        "--gpus": (fleet.gpus, MAX_GPUS),
        "--batch-size": (workload.batch_size, 10**7),
    }
    for option, (value, most) in whole.items():
        if not 1 <= value <= most:
            raise ConfigError(f"{option} {value}: give a whole number from 1 to {most:,}")
    if workload.dim % 4:
        raise ConfigError(f"--dim {workload.dim}: FBGEMM's tables have widths in multiples of 4")
    if not 0 <= workload.history_length <= 10_000:
        raise ConfigError(f"--history {workload.history_length}: give a whole number from 0 to 10,000")
    if not GB / 1000 <= fleet.hbm_bytes <= 10_000 * GB:
        raise ConfigError(f"--hbm {fleet.hbm_bytes / GB:g}: give a GPU's memory in GB, from .001 to 10,000")
    if not 0 <= fleet.reserved_share < 1:
        raise ConfigError(f"--reserve {fleet.reserved_share:g}: give a share from 0 to below 1")


def _tables(workload: Workload) -> dict[str, tuple[int, float]]:
    """Give each table's rows, and how many of them an example looks up."""
    return {"user_id": (workload.users, 1.0), "item_id": (workload.items, 1.0 + workload.history_length)}


def _plan(workload: Workload, fleet: Fleet) -> Sequence[Any] | None:
    """Ask the planner; None when it finds no plan within the memory."""
    from torch import device, nn
    from torch.distributed.optim.apply_optimizer_in_backward import (
        _apply_optimizer_in_backward as apply_optimizer_in_backward,
    )
    from torchrec import EmbeddingCollection, EmbeddingConfig
    from torchrec.distributed.embedding import EmbeddingCollectionSharder
    from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
    from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
    from torchrec.distributed.planner.types import PlannerError
    from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

    wanted = _tables(workload)
    tables = EmbeddingCollection(
        tables=[
            EmbeddingConfig(name=n, embedding_dim=workload.dim, num_embeddings=rows, feature_names=[n])
            for n, (rows, _) in wanted.items()
        ],
        device=device("meta"),
    )
    apply_optimizer_in_backward(RowWiseAdagrad, tables.parameters(), {"lr": 0.1})
    constraints = {
        name: ParameterConstraints(
            sharding_types=list(SHARDINGS), compute_kernels=["fused"], pooling_factors=[uses]
        )
        for name, (_, uses) in wanted.items()
    }
    with _quiet():
        planner = EmbeddingShardingPlanner(
            topology=Topology(
                world_size=fleet.gpus,
                compute_device="cuda",
                hbm_cap=fleet.hbm_bytes,
                local_world_size=next(n for n in range(min(8, fleet.gpus), 0, -1) if fleet.gpus % n == 0),
            ),
            batch_size=workload.batch_size,
            constraints=constraints,
            storage_reservation=FixedPercentageStorageReservation(fleet.reserved_share),
            debug=False,
        )
        try:
            planner.plan(nn.ModuleDict({"tables": tables}), [EmbeddingCollectionSharder()])
        except PlannerError:
            return None
    found: Sequence[Any] = planner._best_plan
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the planner's remarks on topologies without hardware out of the output."""
    logger = logging.getLogger("torchrec")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _describe(
    workload: Workload, found: Sequence[Any] | None
) -> tuple[tuple[TablePlan, ...], tuple[RankPlan, ...]]:
    """Read tables and ranks from the planner's options."""
    options = {option.name: option for option in found or ()}
    held: dict[int, list[int]] = {}
    tables = []
    for name, (rows, _) in _tables(workload).items():
        option = options.get(name)
        shards = option.shards if option is not None else ()
        for shard in shards:
            weights, state = VALUE_BYTES * shard.size[0] * shard.size[1], VALUE_BYTES * shard.size[0]
            parts = (weights, state, shard.storage.hbm - weights - state)
            before = held.get(shard.rank, [0, 0, 0])
            held[shard.rank] = [a + b for a, b in zip(before, parts, strict=True)]
        tables.append(
            TablePlan(
                name=name,
                rows=rows,
                dim=workload.dim,
                weight_bytes=VALUE_BYTES * rows * workload.dim,
                state_bytes=VALUE_BYTES * rows,
                sharding=option.sharding_type if option is not None else None,
                ranks=tuple(sorted({shard.rank for shard in shards})),
            )
        )
    ranks = (
        RankPlan(rank=rank, weight_bytes=w, state_bytes=s, step_bytes=a, total_bytes=w + s + a)
        for rank, (w, s, a) in sorted(held.items())
    )
    return tuple(tables), tuple(ranks)


def _remedies(workload: Workload, fleet: Fleet, needed: int) -> Iterator[str]:
    """Say what would fit; each is tried with the planner before it is said."""
    least = max(fleet.gpus + 1, -(-needed // max(1, fleet.usable_bytes)))
    # Rows do not divide evenly, and a step's rows need room too: a few more may be needed than the bytes say.
    for gpus in range(least, min(MAX_GPUS, least + max(8, least // 2)) + 1):
        if _plan(workload, fleet.model_copy(update={"gpus": gpus})) is not None:
            yield f"--gpus {gpus}"
            break
    per_dim = needed // (workload.dim + 1)
    widest = min(workload.dim - 4, int(fleet.gpus * fleet.usable_bytes / per_dim) - 1) // 4 * 4
    for dim in range(widest, 0, -4):
        if _plan(workload.model_copy(update={"dim": dim}), fleet) is not None:
            yield f"--dim {dim}"
            break
    for more in range(0, 100):
        share = needed / fleet.gpus * (1 + more / 100) / (1 - fleet.reserved_share)
        hbm = -(-round(share) // GB) * GB
        if hbm > fleet.hbm_bytes and _plan(workload, fleet.model_copy(update={"hbm_bytes": hbm})) is not None:
            yield f"--hbm {hbm // GB}"
            break


def show_capacity(plan: CapacityPlan) -> None:
    """Print tables, the fullest and the emptiest GPU, or what does not fit."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("table", "rows", "dim", "weights GB", "state GB", "sharding", "GPUs", box=None)
    for t in plan.tables:
        numbers = (f"{t.weight_bytes / GB:.1f}", f"{t.state_bytes / GB:.1f}")
        table.add_row(t.name, f"{t.rows:,}", str(t.dim), *numbers, t.sharding or "-", str(len(t.ranks)))
    console.print(table)
    if not plan.fits:
        console.print(f"does not fit: {plan.missing}")
        console.print(f"would fit: {', or '.join(plan.remedies) or 'nothing near'}")
        return
    rows = Table("GPU", "weights GB", "state GB", "step GB", "total GB", "of usable", box=None)
    by_total = sorted(plan.ranks, key=lambda rank: rank.total_bytes)
    for what, rank in (("fullest", by_total[-1]), ("emptiest", by_total[0])):
        parts = (rank.weight_bytes, rank.state_bytes, rank.step_bytes, rank.total_bytes)
        share = f"{rank.total_bytes / plan.fleet.usable_bytes:.1%}"
        rows.add_row(f"{what} ({rank.rank})", *(f"{part / GB:.3f}" for part in parts), share)
    console.print(rows)
