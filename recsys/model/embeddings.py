"""Embedding tables: distinct numbers of a step -> rows; one gradient step per looked-up row.

The graph is cut at the looked-up rows: `lookup` gives leaves, the losses put gradients on them, `step`
applies row-wise Adagrad once. `LocalTables` is plain torch for one process; `TorchRecTables` is TorchRec's
`EmbeddingCollection` under `DistributedModelParallel` (gloo or NCCL) with the fused optimiser: same numbers,
sharded. Measured on CPU in docs/decisions.md.

Source: row-wise Adagrad as in FBGEMM (one accumulator per row, the mean of its squared gradients).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

EPS = 1e-8
INIT_STD = 0.01
TABLE_STEP = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSpec:
    """One table: as many rows as its vocabulary has numbers, built at capacity."""

    name: str
    size: int
    dim: int

    @property
    def capacity(self) -> int:
        """Round the size up: powers of two until 65,536, then multiples of it: nights rarely resize."""
        if self.size >= TABLE_STEP:
            return -(-self.size // TABLE_STEP) * TABLE_STEP
        return 1 << max(4, (self.size - 1).bit_length())


class Tables(Protocol):
    """What the trainer needs of embedding tables."""

    def lookup(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the rows of each table as leaves [U, D] that collect gradients."""

    def step(self, rows: Mapping[str, Tensor], leaves: Mapping[str, Tensor]) -> None:
        """Apply the leaves' gradients to the tables, once."""

    def export(self) -> dict[str, Tensor]:
        """Give canonical weights: `<table>.weight` [size, D] and `<table>.state` [size]."""


class LocalTables:
    """Tables in this process's memory."""

    def __init__(self, specs: tuple[TableSpec, ...], learning_rate: float, seed: int) -> None:
        """Fill every table from its own seeded stream: its start does not depend on the others."""
        self.specs = {spec.name: spec for spec in specs}
        self.learning_rate = learning_rate
        self.weight = {s.name: initial_rows(s.name, 0, s.capacity, s.dim, seed) for s in specs}
        self.state = {s.name: torch.zeros(s.capacity) for s in specs}

    def lookup(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the rows of each table as leaves [U, D] that collect gradients."""
        return {name: self.weight[name][numbers].requires_grad_() for name, numbers in rows.items()}

    def step(self, rows: Mapping[str, Tensor], leaves: Mapping[str, Tensor]) -> None:
        """Apply the leaves' gradients to the tables, once."""
        for name, numbers in rows.items():
            gradient = leaves[name].grad
            if gradient is None:
                continue
            accumulated = self.state[name][numbers] + gradient.square().mean(dim=1)
            self.state[name][numbers] = accumulated
            scale = -self.learning_rate / (accumulated.sqrt() + EPS)
            self.weight[name].index_add_(0, numbers, gradient * scale[:, None])

    def export(self) -> dict[str, Tensor]:
        """Give canonical weights: `<table>.weight` [size, D] and `<table>.state` [size]."""
        found = {f"{s.name}.weight": self.weight[s.name][: s.size].clone() for s in self.specs.values()}
        found |= {f"{s.name}.state": self.state[s.name][: s.size].clone() for s in self.specs.values()}
        return found

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Copy canonical weights in; tables and rows they do not have keep their start values."""
        for name in self.specs:
            for part, own in (("weight", self.weight[name]), ("state", self.state[name])):
                given = weights.get(f"{name}.{part}")
                if given is not None and given.shape[1:] == own.shape[1:]:
                    own[: given.shape[0]] = given


class TorchRecTables:
    """The same tables as a TorchRec EmbeddingCollection, sharded over the process group."""

    def __init__(
        self, specs: tuple[TableSpec, ...], learning_rate: float, weights: Mapping[str, Tensor]
    ) -> None:
        """Shard the tables over the current process group and fill them.

        Args: weights: `<table>.weight` [rows, D] start values (a `LocalTables.export` or `initial_rows`).
        """
        from torch.distributed.optim.apply_optimizer_in_backward import (
            _apply_optimizer_in_backward as apply_optimizer_in_backward,
        )
        from torchrec import EmbeddingCollection, EmbeddingConfig
        from torchrec.distributed import DistributedModelParallel
        from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

        self.specs = {spec.name: spec for spec in specs}
        configs = [
            EmbeddingConfig(
                name=s.name, embedding_dim=s.dim, num_embeddings=s.capacity, feature_names=[s.name]
            )
            for s in specs
        ]
        collection = EmbeddingCollection(tables=configs, device=torch.device("meta"))
        apply_optimizer_in_backward(
            RowWiseAdagrad, collection.parameters(), {"lr": learning_rate, "eps": EPS}
        )
        self.sharded: Any = DistributedModelParallel(collection, device=torch.device("cpu"))
        self.rows: dict[str, Tensor] = {}
        self._fill(weights)

    def lookup(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the rows of each table as leaves [U, D] that collect gradients."""
        from torchrec import KeyedJaggedTensor

        keys = list(self.specs)
        values = torch.cat([rows[k] for k in keys])
        # One bag a key: the whole list of distinct numbers belongs to a batch of size one.
        lengths = torch.tensor([rows[k].numel() for k in keys], dtype=torch.int32)
        found = self.sharded(KeyedJaggedTensor(keys=keys, values=values, lengths=lengths))
        # Columns are taken by name: TorchRec returns them in table order.
        self.rows = {k: found[k].values() for k in keys}
        return {k: x.detach().requires_grad_() for k, x in self.rows.items()}

    def step(self, rows: Mapping[str, Tensor], leaves: Mapping[str, Tensor]) -> None:
        """Run the one backward into the tables; the fused optimiser steps inside it."""
        used = [k for k in rows if leaves[k].grad is not None]
        torch.autograd.backward([self.rows[k] for k in used], [leaves[k].grad for k in used])

    def export(self) -> dict[str, Tensor]:
        """Give canonical weights: `<table>.weight` [size, D] and `<table>.state` [size]."""
        found: dict[str, Tensor] = {}
        state = self.sharded.fused_optimizer.state_dict()["state"]
        for key, value in self.sharded.state_dict().items():
            name = key.split(".")[-2]
            size = self.specs[name].size
            found[f"{name}.weight"] = _gather(value)[:size].clone()
            momentum = next(v for k, v in state[key].items() if k.endswith("momentum1"))
            found[f"{name}.state"] = _gather(momentum).reshape(-1)[:size].clone()
        return found

    def _fill(self, weights: Mapping[str, Tensor]) -> None:
        for key, value in self.sharded.state_dict().items():
            given = weights[f"{key.split('.')[-2]}.weight"]
            for shard in value.local_shards():
                offset, length = shard.metadata.shard_offsets[0], shard.tensor.shape[0]
                part = given[offset : offset + length]
                shard.tensor[: part.shape[0]].copy_(part)


def initial_rows(table: str, start: int, stop: int, dim: int, seed: int) -> Tensor:
    """Draw start values for rows [start, stop): small, and zero for the unknown number 0."""
    entropy = [seed, start, *table.encode()]
    rows = torch.from_numpy(np.random.default_rng(entropy).normal(0.0, INIT_STD, (stop - start, dim)))
    rows = rows.to(torch.float32)
    if start == 0:
        rows[0] = 0.0
    return rows


def _gather(value: Any) -> Tensor:
    from torch.distributed import get_rank

    if not hasattr(value, "local_shards"):
        tensor: Tensor = value
        return tensor
    full = torch.zeros(value.size())
    value.gather(dst=0, out=full if get_rank() == 0 else None)
    return full
