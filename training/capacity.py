"""Users, items, GPUs -> how TorchRec's planner would spread the embedding tables, without the hardware.

Tables are built on the meta device, which allocates nothing. What a GPU holds is weights (4 bytes a value),
the accumulators of row-wise Adagrad (4 bytes a row), and what the planner estimates for a step's ids, rows
and gradients. A share of each GPU is left to all else: dense parameters, their optimiser, activations.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from recsys.errors import ConfigError
from training.sharding.plan import IN_GPU_MEMORY, WHOLE_ROWS, Collections, Room, TableUse, make_planner, quiet

GB = 1_000_000_000
VALUE_BYTES = 4
MAX_DIM = 2048
MAX_GPUS = 16_384


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


def _tables(workload: Workload) -> dict[str, TableUse]:
    """Give each table, and how many of its rows an example looks up."""
    return {
        "user_id": TableUse(rows=workload.users, dim=workload.dim),
        "item_id": TableUse(rows=workload.items, dim=workload.dim, per_example=1.0 + workload.history_length),
    }


def _plan(workload: Workload, fleet: Fleet) -> Sequence[Any] | None:
    """Ask the planner; None when it finds no plan within the memory."""
    from torchrec.distributed.embedding import EmbeddingCollectionSharder
    from torchrec.distributed.planner.types import PlannerError

    tables = _tables(workload)
    room = Room(
        ranks=fleet.gpus,
        local_ranks=next(n for n in range(min(8, fleet.gpus), 0, -1) if fleet.gpus % n == 0),
        device="cuda",
        gpu_bytes=fleet.hbm_bytes,
        reserved_share=fleet.reserved_share,
    )
    planner = make_planner(
        tables, room, workload.batch_size, dict.fromkeys(tables, WHOLE_ROWS), IN_GPU_MEMORY
    )
    with quiet():
        try:
            planner.plan(Collections(tables, learning_rate=0.1), [EmbeddingCollectionSharder()])
        except PlannerError:
            return None
    found: Sequence[Any] = planner._best_plan
    return found


def _describe(
    workload: Workload, found: Sequence[Any] | None
) -> tuple[tuple[TablePlan, ...], tuple[RankPlan, ...]]:
    """Read tables and ranks from the planner's options."""
    options = {option.name: option for option in found or ()}
    held: dict[int, list[int]] = {}
    tables = []
    for name, use in _tables(workload).items():
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
                rows=use.rows,
                dim=workload.dim,
                weight_bytes=VALUE_BYTES * use.rows * workload.dim,
                state_bytes=VALUE_BYTES * use.rows,
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
