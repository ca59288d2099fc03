"""Heads and inputs that came since the weights: they learn the days that the others know already.

    a new head     every other label is hidden, and what it has of its own moves: its layers, its gates (in
                   `ple`, its experts), its column of the position bias
    a new input    all losses speak, and what reads it moves: its columns of first layers, its rows of the
                   history's kinds, its table
    both           both at once, by all losses

All else stays as it is. The shared layers serve all heads, and a pass in which they moved would pull them
away, on rows that they have learned from before. On the new days everything learns together.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from recsys.batch import Batch
from recsys.model.embeddings import Tables
from recsys.model.ranker import Ranker
from recsys.shapes import HeadSpec
from training.balancing.weights import Fixed
from training.trainer.checkpoint import Checkpoint
from training.trainer.fit import fit
from training.trainer.group import ALONE, Group
from training.trainer.settings import FitSettings
from training.trainer.train_log import TrainLog
from training.trainer.watcher import Watcher

Places = tuple[int, tuple[int, ...]]
"""A dimension of a parameter, and places along it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInputs:
    """What of a model reads inputs that came since its weights."""

    places: Mapping[str, Places] = field(default_factory=dict)
    """By parameter."""
    tables: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether there is any."""
        return bool(self.places or self.tables)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewParts:
    """What moves while all else stays."""

    heads: tuple[str, ...] = ()
    inputs: NewInputs = field(default_factory=NewInputs)

    def __bool__(self) -> bool:
        """Tell whether there is any; without, everything moves."""
        return bool(self.heads or self.inputs)

    @classmethod
    def of_json(cls, said: Mapping[str, Any]) -> "NewParts":
        """Read what `dataclasses.asdict` gave, from JSON."""
        places = {name: (dim, tuple(among)) for name, (dim, among) in said["inputs"]["places"].items()}
        inputs = NewInputs(places=places, tables=tuple(said["inputs"]["tables"]))
        return cls(heads=tuple(said["heads"]), inputs=inputs)

    def losses_of(
        self, tasks: Sequence[HeadSpec], settings: FitSettings
    ) -> tuple[list[HeadSpec], FitSettings]:
        """Give the heads whose losses teach the parts, and the settings: heads alone need no retrieval."""
        if self.inputs:
            return [*tasks], settings
        return [task for task in tasks if task.name in self.heads], replace(settings, retrieval_task=None)


@dataclass(frozen=True, slots=True)
class FrozenTables:
    """Tables that are read and not trained, but for some."""

    tables: Tables
    learning: frozenset[str] = frozenset()

    @property
    def copied(self) -> bool:
        """Tell whether every rank has all rows."""
        return self.tables.copied

    @property
    def device(self) -> torch.device:
        """Tell where rows are looked up."""
        return self.tables.device

    def lookup(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the rows of each table [U, D], without a gradient but for those that learn."""
        found = self.tables.lookup(rows)
        return {name: leaf if name in self.learning else leaf.detach() for name, leaf in found.items()}

    def step(self, rows: Mapping[str, Tensor], leaves: Mapping[str, Tensor]) -> None:
        """Change the tables that learn."""
        if self.learning:  # others' leaves have no gradient, which changes nothing
            self.tables.step(rows, leaves)

    def export(self) -> dict[str, Tensor]:
        """Return the tables' canonical weights."""
        return self.tables.export()

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Load the tables' canonical weights."""
        self.tables.load(weights)


def fit_new_parts(
    ranker: Ranker,
    tables: Tables,
    batches: Iterable[Batch],
    parts: NewParts,
    weights: Mapping[str, float],
    settings: FitSettings,
    watchers: Sequence[Watcher] = (),
    start: Checkpoint | None = None,
    group: Group = ALONE,
) -> TrainLog:
    """Train some parts alone. After new heads every other head predicts what it did before.

    Args: weights: of every loss, as they stand, for balancing is for what losses share; settings: of a cold
        start, as these parts have learned nothing yet; start, group: as in `fit`.
    """
    tasks, settings = parts.losses_of(ranker.specs, settings)
    frozen = FrozenTables(tables, frozenset(parts.inputs.tables))
    with only_new(ranker, parts):
        return fit(ranker, frozen, batches, Fixed(weights), tasks, settings, watchers, start, group)


@contextmanager
def only_new(ranker: Ranker, parts: NewParts) -> Iterator[None]:
    """Let the parameters of some parts learn, and nothing else, until the block ends."""
    own = {name for task in parts.heads for name in ranker.own_parameters(task)}
    masks: dict[str, Tensor] = {}
    for name, parameter in ranker.named_parameters():
        if name in own:
            continue
        mask = _mask(parameter, parts.inputs.places.get(name, (0, ())))
        if parameter is ranker.position.weight:
            mask[:, [k for k, task in enumerate(ranker.specs) if task.name in parts.heads]] = True
        if mask.any():
            masks[name] = mask
    before = {name: ranker.get_parameter(name).detach().clone() for name in masks}
    ranker.requires_grad_(requires_grad=False)
    for name in (*own, *masks):
        ranker.get_parameter(name).requires_grad_()
    hooks = [
        ranker.get_parameter(name).register_hook(_Only(mask))  # type: ignore[no-untyped-call]
        for name, mask in masks.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        ranker.requires_grad_()
        with torch.no_grad():  # weight decay has touched what no gradient did
            for name, mask in masks.items():
                parameter = ranker.get_parameter(name)
                stays = ~mask.to(parameter.device)
                parameter[stays] = before[name].to(parameter.device)[stays]


def _mask(parameter: Tensor, places: Places) -> Tensor:
    """Mark values by their place along a dimension: bool, of the parameter's shape."""
    dimension, among = places
    mask = torch.zeros(parameter.shape, dtype=torch.bool)
    return mask.index_fill_(dimension, torch.tensor(among, dtype=torch.int64), value=True) if among else mask


@dataclass(frozen=True, slots=True)
class _Only:
    """Keeps a gradient where it may act: it is bounded by the length of what moves alone."""

    mask: Tensor

    def __call__(self, gradient: Tensor) -> Tensor:
        return gradient * self.mask.to(gradient.device)
