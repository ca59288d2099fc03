"""Embedding tables: distinct numbers of a step -> rows; one gradient step per looked-up row.

The graph is cut at the looked-up rows: `lookup` gives leaves, the losses put gradients on them, `step`
applies row-wise Adagrad once. `LocalTables` is plain torch: the tables of one process, or a copy on each of
several. Tables that ranks share, each with a part of the rows, are in `training.sharding`. Measured on CPU:
records 2 and 36 of docs/decisions.md.

Source: row-wise Adagrad as in FBGEMM (one accumulator per row, the mean of its squared gradients).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

EPS = 1e-8
INIT_STD = 0.01
TABLE_STEP = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSpec:
    """One table: one row per number of its vocabulary, allocated at capacity."""

    name: str
    size: int
    dim: int

    @property
    def capacity(self) -> int:
        """Round the size up: to a power of two, above 65,536 to a multiple of it. Nights rarely resize."""
        if self.size >= TABLE_STEP:
            return -(-self.size // TABLE_STEP) * TABLE_STEP
        return 1 << max(4, (self.size - 1).bit_length())


class Tables(Protocol):
    """Embedding tables, as far as the trainer needs them."""

    @property
    def copied(self) -> bool:
        """Tell whether every rank has all rows, and looks up and steps the same ones, or ranks share them."""

    @property
    def device(self) -> torch.device:
        """Tell where numbers are given and looked-up rows are; the tables themselves may lie elsewhere."""

    def lookup(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the rows of each table as leaves [U, D] that collect gradients."""

    def step(self, rows: Mapping[str, Tensor], leaves: Mapping[str, Tensor]) -> None:
        """Apply the leaves' gradients to the tables, once."""

    def export(self) -> dict[str, Tensor]:
        """Return canonical weights: `<table>.weight` [size, D] and `<table>.state` [size].

        Where ranks share the tables, all of them call this, and rank 0 has the weights.
        """

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Load canonical weights; tables and rows that they lack stay as they are."""


class LocalTables:
    """Tables of this process: made in host memory, moved by `to`."""

    copied = True

    def __init__(self, specs: tuple[TableSpec, ...], learning_rate: float, seed: int | None) -> None:
        """Fill each table from a random stream of its own, so that it does not depend on the other tables.

        Args: seed: None: zeros, for weights that are loaded next; drawing takes three times a table's memory.
        """
        self.specs = {spec.name: spec for spec in specs}
        self.learning_rate = learning_rate
        self.device = torch.device("cpu")
        self.weight = {
            s.name: torch.zeros(s.capacity, s.dim)
            if seed is None
            else initial_rows(s.name, 0, s.capacity, s.dim, seed)
            for s in specs
        }
        self.state = {s.name: torch.zeros(s.capacity) for s in specs}

    def to(self, device: torch.device, in_host: Collection[str] = ()) -> "LocalTables":
        """Move the tables to a device, but for those that stay in host memory, and give rows there.

        A step that reads a table in host memory waits for the device twice: for the numbers and for the
        gradients.
        """
        self.device = device
        home = {name: torch.device("cpu") if name in in_host else device for name in self.specs}
        self.weight = {name: weight.to(home[name]) for name, weight in self.weight.items()}
        self.state = {name: state.to(home[name]) for name, state in self.state.items()}
        return self

    def lookup(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the rows of each table as leaves [U, D] that collect gradients."""
        found = {}
        for name, numbers in rows.items():
            weight = self.weight[name]
            found[name] = weight.index_select(0, numbers.to(weight.device)).to(self.device).requires_grad_()
        return found

    def step(self, rows: Mapping[str, Tensor], leaves: Mapping[str, Tensor]) -> None:
        """Apply the leaves' gradients to the tables, once."""
        for name, numbers in rows.items():
            gradient, home = leaves[name].grad, self.weight[name].device
            if gradient is not None:
                own = numbers.to(home)
                self.state[name][own], move = self.preview(name, own, gradient.to(home))
                self.weight[name].index_add_(0, own, move)

    def preview(self, name: str, numbers: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return the state [U] after a step with a gradient [U, D], and the change of the rows [U, D].

        Numbers and gradient must be where the table is.
        """
        accumulated = self.state[name].index_select(0, numbers) + gradient.square().mean(dim=1)
        scale = -self.learning_rate / (accumulated.sqrt() + EPS)
        return accumulated, gradient * scale[:, None]

    def export(self) -> dict[str, Tensor]:
        """Return canonical weights: `<table>.weight` [size, D] and `<table>.state` [size], in host memory."""
        kept = {"weight": self.weight, "state": self.state}
        return {
            f"{s.name}.{part}": held[s.name][: s.size].to("cpu", copy=True)
            for part, held in kept.items()
            for s in self.specs.values()
        }

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Load canonical weights; tables and rows that they lack stay as they are."""
        for name in self.specs:
            for part, own in (("weight", self.weight[name]), ("state", self.state[name])):
                given = weights.get(f"{name}.{part}")
                if given is not None and given.shape[1:] == own.shape[1:]:
                    own[: given.shape[0]] = given


def initial_rows(table: str, start: int, stop: int, dim: int, seed: int) -> Tensor:
    """Draw initial values for rows [start, stop): small, and zero for number 0 (unknown)."""
    entropy = [seed, start, *table.encode()]
    rows = torch.from_numpy(np.random.default_rng(entropy).normal(0.0, INIT_STD, (stop - start, dim)))
    rows = rows.to(torch.float32)
    if start == 0:
        rows[0] = 0.0
    return rows
