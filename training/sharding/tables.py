"""Embedding tables that ranks share: TorchRec's `DistributedModelParallel`, looked up once and stepped once.

The graph stays cut at the looked-up rows: leaves collect the gradients of all losses, and `step` feeds them
into the collections' outputs in one backward. The rows' owners add up what ranks say of a row and make one
step of row-wise Adagrad with the sum, inside that backward. Lookup and step are collective: all ranks make
them, whatever they look up.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed

from recsys.errors import ConfigError
from recsys.model.embeddings import TableSpec
from training.sharding.plan import (
    ANYWHERE,
    IN_GPU_MEMORY,
    Collections,
    Room,
    TableUse,
    allowed_kinds,
    make_planner,
    quiet,
)

PIECE_BYTES = 64 << 20
"""Shards go to rank 0 in pieces of this size at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableShard:
    """A rectangle of a table, and the accumulators of its rows."""

    rank: int
    row: int
    column: int
    rows: int
    columns: int
    weight: Tensor | None
    """[rows, columns], on the rank that holds it."""
    state: Tensor | None
    """[rows]"""


class ShardedTables:
    """Tables whose rows lie on the ranks of the default process group (gloo or NCCL)."""

    copied = False

    def __init__(
        self,
        specs: Sequence[TableSpec],
        learning_rate: float,
        room: Room,
        batch_size: int,
        wanted: Mapping[str, str],
        weights: Mapping[str, Tensor],
        folder: Path | None = None,
    ) -> None:
        """Plan, cut and fill the tables.

        Args:
            batch_size: examples of a rank's step.
            wanted: table -> kind of sharding, where the planner is not to choose.
            weights: `<table>.weight` [rows, D] and, where kept, `<table>.state` [rows], as `LocalTables`
                exports them; each rank reads its own shards.
            folder: where `export` keeps what it has gathered; one table may be all that fits into memory.

        Raises: ConfigError for tables that do not fit into the room.
        """
        from torchrec.distributed import DistributedModelParallel
        from torchrec.distributed.comm_ops import set_gradient_division
        from torchrec.distributed.embedding import EmbeddingCollectionSharder

        # A rank's loss is its share of the global one: gradients are added. It is TorchRec's switch for all.
        set_gradient_division(val=False)
        self.specs, self.folder = {spec.name: spec for spec in specs}, folder
        self.device = torch.device(room.device)
        if room.device == "cuda":
            self.device = torch.device("cuda", torch.cuda.current_device())
        uses = {s.name: TableUse(rows=s.capacity, dim=s.dim) for s in specs}
        collections = Collections(uses, learning_rate)
        sharders = [EmbeddingCollectionSharder()]
        kernels = ANYWHERE if room.device == "cuda" else IN_GPU_MEMORY
        planner = make_planner(uses, room, batch_size, allowed_kinds(uses, wanted), kernels)
        with quiet():
            plan = _plan(planner, collections, sharders, room)
            self.sharded: Any = DistributedModelParallel(
                collections, device=self.device, plan=plan, sharders=sharders, init_parameters=False
            )
        self.names = collections.names
        self.plan = plan
        self.rows: dict[str, Tensor] = {}
        self.load(weights)

    def lookup(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the rows of each table as leaves [U, D] that collect gradients."""
        from torchrec import KeyedJaggedTensor

        none = torch.zeros(0, dtype=torch.int64, device=self.device)
        asked = {}
        for dim, names in self.names.items():
            numbers = [rows.get(name, none) for name in names]
            # One bag per key: a table's distinct numbers are one batch of size one.
            lengths = torch.tensor([n.numel() for n in numbers], dtype=torch.int32, device=self.device)
            asked[dim] = KeyedJaggedTensor(keys=names, values=torch.cat(numbers), lengths=lengths)
        found = self.sharded(asked)
        # Rows are taken by name: TorchRec returns them in table order.
        self.rows = {n: found[dim][n].values() for dim, names in self.names.items() for n in names}
        return {name: self.rows[name].detach().requires_grad_() for name in rows}

    def step(self, rows: Mapping[str, Tensor], leaves: Mapping[str, Tensor]) -> None:
        """Run the one backward pass into the tables; the fused optimiser makes its step in it."""
        gradients = [leaves[name].grad if name in leaves else None for name in self.rows]
        looked_up = list(self.rows.values())
        # What has no gradient here may have one on another rank; zeros change nothing.
        given = [torch.zeros_like(x) if g is None else g for x, g in zip(looked_up, gradients, strict=True)]
        torch.autograd.backward(looked_up, given)
        self.rows = {}

    def export(self) -> dict[str, Tensor]:
        """Return canonical weights on rank 0, in host memory, table by table; nothing on other ranks.

        An accumulator of a table that is cut by columns is the mean of its blocks', weighted by width: what
        plain row-wise Adagrad would have from the same gradients.
        Raises: OSError on rank 0 where the folder has no room; all ranks have then done their part.
        """
        found: dict[str, Tensor] = {}
        failed: OSError | None = None
        for place, (name, shards) in enumerate(self._shards()):
            whole = self._gathered(name, shards)
            if whole and self.folder is not None and failed is None:
                try:
                    whole = _kept(whole, self.folder / f"table-{place}.safetensors")
                except OSError as error:
                    failed = error
            found |= whole if failed is None else {}
        if failed is not None:
            raise failed
        return found

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Load this rank's shards of canonical weights; tables and rows that they lack stay as they are."""
        for name, shards in self._shards():
            weight, state = weights.get(f"{name}.weight"), weights.get(f"{name}.state")
            for shard in shards:
                if shard.weight is None or shard.state is None:
                    continue
                rows, columns = slice(shard.row, shard.row + shard.rows), shard.column + shard.columns
                if weight is not None and weight.shape[1] == self.specs[name].dim:
                    own = weight[rows, shard.column : columns]
                    shard.weight[: own.shape[0]].copy_(own)
                if state is not None:
                    own = state[rows]
                    shard.state.view(-1)[: own.shape[0]].copy_(own)

    def _gathered(self, name: str, shards: Sequence[TableShard]) -> dict[str, Tensor]:
        """Bring a table's shards to rank 0 in pieces."""
        spec, first = self.specs[name], distributed.get_rank() == 0
        weight, state = (torch.zeros(spec.size, spec.dim), torch.zeros(spec.size)) if first else (None, None)
        for shard in shards:
            rows = max(1, PIECE_BYTES // (4 * shard.columns))
            stop = min(shard.rows, spec.size - shard.row)
            for begin in range(0, stop, rows):
                end = min(begin + rows, stop)
                values = self._sent(shard.weight, shard.rank, begin, end, (end - begin, shard.columns))
                moments = self._sent(shard.state, shard.rank, begin, end, (end - begin,))
                if weight is None or state is None:
                    continue
                place = slice(shard.row + begin, shard.row + end)
                weight[place, shard.column : shard.column + shard.columns] = values
                state[place] += moments * (shard.columns / spec.dim)
        if weight is None or state is None:
            return {}
        return {f"{name}.weight": weight, f"{name}.state": state}

    def _sent(self, held: Tensor | None, owner: int, begin: int, end: int, shape: tuple[int, ...]) -> Tensor:
        """Send rows of a shard from its owner to rank 0, which gets them in host memory."""
        if held is not None:
            piece = held[begin:end].reshape(shape).to(self.device).contiguous()
            if owner:
                distributed.send(piece, 0)
        elif distributed.get_rank() == 0:
            piece = torch.empty(shape, device=self.device)
            distributed.recv(piece, owner)
        else:
            return torch.zeros(())
        return piece.cpu()

    def _shards(self) -> Iterator[tuple[str, list[TableShard]]]:
        """Give each table's name and shards, in the same order on every rank."""
        states = self.sharded.fused_optimizer.state_dict()["state"]
        weights, rank = self.sharded.state_dict(), distributed.get_rank()
        moments = {
            key.split(".")[-2]: next(v for k, v in named.items() if k.endswith("momentum1"))
            for key, named in states.items()
        }
        for key in sorted(weights):
            name = key.split(".")[-2]
            yield name, list(_shards_of(weights[key], moments.get(name), rank))


def _shards_of(weight: Any, state: Any, rank: int) -> Iterator[TableShard]:
    """Join the shards of a weight with those of its accumulators, which come in the same order."""
    own = {tuple(s.metadata.shard_offsets): s.tensor for s in weight.local_shards()}
    own_states = [s.tensor for s in state.local_shards()] if state is not None else []
    for meta in weight.metadata().shards_metadata:
        (row, column), (rows, columns) = meta.shard_offsets, meta.shard_sizes
        mine = meta.placement.rank() == rank
        yield TableShard(
            rank=meta.placement.rank(),
            row=row,
            column=column,
            rows=rows,
            columns=columns,
            weight=own[row, column] if mine else None,
            state=own_states.pop(0) if mine else None,
        )


def _plan(planner: Any, collections: Collections, sharders: Sequence[Any], room: Room) -> Any:
    """Have rank 0 plan, for all ranks."""
    from torchrec.distributed.planner.types import PlannerError

    try:
        return planner.collective_plan(collections, sharders, distributed.group.WORLD)
    except PlannerError as error:
        raise ConfigError(
            f"the embedding tables do not fit: {room.ranks} ranks leave them {1 - room.reserved_share:.0%} "
            f"of {_gib(room.gpu_bytes)} of a GPU's memory and {_gib(room.host_bytes or 0)} of host memory "
            "each; take more ranks, or smaller tables ([features] dimensions, min_count, hash_buckets)"
        ) from error


def _kept(tensors: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Write tensors, and give them as pages of the file, which goes when they do."""
    try:
        save_file(tensors, file)
        return load_file(file)
    finally:
        file.unlink(missing_ok=True)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
