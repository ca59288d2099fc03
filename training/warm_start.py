"""A bundle's weights -> a model of another config: by name, whatever has come, gone or moved in between.

Tables and their accumulators go by vocabulary, parameters by name. Where a dimension is made of features, of
kinds of feedback or of tasks (`recsys.model.layout`), its parts go by their own names. A column for a new
input is 0: before the first step, the heads that were there predict what they did before. What a new head has
alone starts as in a cold start.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from torch import Tensor

from features.definitions import define_features, past_names
from features.lineage import still_fitted
from recsys.bundle import Bundle
from recsys.config import ModelConfig, RunConfig
from recsys.encoding import EncoderState
from recsys.model.embeddings import LocalTables
from recsys.model.input_sizes import Inputs
from recsys.model.layout import SHARED_GATE, TEXT, Axes, Layout, layouts
from recsys.model.ranker import Ranker
from recsys.model.scorer import parse_inputs
from recsys.tasks import TaskSpec, new_heads
from training.new_parts import NewInputs, Places
from training.start import start_new_rows

CLOSED = -30.0
"""A gate's bias for an expert that is not to be read: its share is about 1e-13."""
SHOWN = 3
"""Names that a sentence lists of each kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """What a warm start did not take over as it was; names, in order."""

    new_heads: tuple[str, ...]
    dropped_heads: tuple[str, ...]
    new_inputs: tuple[str, ...]
    dropped_inputs: tuple[str, ...]
    fresh: tuple[str, ...]
    """Tables and parameters that the bundle has in another shape, or not at all."""
    came: NewInputs = field(default_factory=NewInputs, repr=False)
    """What reads the new inputs."""

    def sentence(self) -> str:
        """Say it in one line."""
        parts = [
            f"{what} {_listed(names)}"
            for what, names in (
                ("new heads", self.new_heads),
                ("dropped heads", self.dropped_heads),
                ("new inputs", self.new_inputs),
                ("dropped inputs", self.dropped_inputs),
                ("from the start", self.fresh),
            )
            if names
        ]
        return "; ".join(parts) or "everything carried over"


@dataclass(frozen=True, slots=True, kw_only=True)
class Previous:
    """Weights that a training may go on from, and what they are weights of."""

    weights: Mapping[str, np.ndarray]
    """As `TrainedModel.weights` names them."""
    fitted: EncoderState
    """All that their encoder has fitted."""
    inputs: Inputs
    tasks: tuple[TaskSpec, ...]
    model: ModelConfig
    state: EncoderState
    """Of `fitted`, what the config still asks for in the same form."""

    @classmethod
    def of(cls, bundle: Bundle, config: RunConfig) -> Self:
        """Compare a bundle with a config."""
        return cls(
            weights=bundle.weights,
            fitted=bundle.encoder,
            inputs=parse_inputs(bundle.manifest.inputs),
            tasks=bundle.config.tasks,
            model=bundle.config.model,
            state=still_fitted(bundle.encoder, bundle.config, config),
        )

    @classmethod
    def same(
        cls, weights: Mapping[str, np.ndarray], ranker: Ranker, state: EncoderState, config: RunConfig
    ) -> Self:
        """Go on from weights of the same config."""
        return cls(
            weights=weights,
            fitted=state,
            inputs=ranker.inputs,
            tasks=_built(ranker, config),
            model=config.model,
            state=state,
        )


def carry_over(
    ranker: Ranker,
    tables: LocalTables,
    state: EncoderState,
    config: RunConfig,
    previous: Previous,
    text_VT: Tensor | None,
) -> Carried:
    """Fill a model that was built for a cold start; say what of it stayed so.

    Args: state: what the model's encoder has fitted; text_VT: as in `start_new_rows`.
    """
    given = {name: torch.from_numpy(array) for name, array in previous.weights.items()}
    new_tables = _carry_tables(tables, state, previous, given, text_VT)
    fresh = [f"table {name}" for name in new_tables]
    before = layouts(previous.inputs, previous.tasks, previous.model)
    tasks = _built(ranker, config)
    now = layouts(ranker.inputs, tasks, config.model)
    changed, heads = _changed_inputs(previous), new_heads(tasks, previous.tasks)
    own = {name for task in heads for name in ranker.own_parameters(task)}
    read, was_read = _inputs(now), _inputs(before)
    places: dict[str, Places] = {}
    with torch.no_grad():
        for name, parameter in ranker.named_parameters():
            if name in own:
                continue
            axes, old = now.get(name, {}), given.get(f"ranker.{name}")
            old_axes = before.get(name, {})
            for axis, layout in axes.items():
                if came := _new_places(layout, old_axes.get(axis, ()), changed):
                    places[name] = axis, came
            if old is not None and _carry(parameter, old, axes, old_axes, {*changed, *heads}):
                if SHARED_GATE in name and 0 in axes:
                    _close_new(parameter, axes[0], old_axes[0], heads)
                continue
            if old is None and 1 in axes and was_read.isdisjoint(part for part, _ in axes[1]):
                parameter.zero_()  # reads nothing but what is new
            else:
                fresh.append(name)
    built = {task.name for task in tasks}
    return Carried(
        new_heads=heads,
        dropped_heads=tuple(t.name for t in previous.tasks if t.name not in built),
        new_inputs=tuple(sorted(_plain(read - was_read | changed & read))),
        dropped_inputs=tuple(sorted(_plain(was_read - read))),
        fresh=tuple(fresh),
        came=NewInputs(places=places, tables=tuple(new_tables)),
    )


def _built(ranker: Ranker, config: RunConfig) -> tuple[TaskSpec, ...]:
    """Give the tasks of the config that the model has heads of."""
    names = {head.name for head in ranker.specs}
    return tuple(task for task in config.tasks if task.name in names)


def _carry_tables(
    tables: LocalTables,
    state: EncoderState,
    previous: Previous,
    given: Mapping[str, Tensor],
    text_VT: Tensor | None,
) -> list[str]:
    """Fill the tables whose vocabularies go on; give the names of those that do not."""
    kept = {}
    for name in tables.specs:
        weight = given.get(f"table.{name}.weight")
        if (
            name in previous.state.vocabularies
            and weight is not None
            and weight.shape[1] == tables.specs[name].dim
        ):
            kept[f"{name}.weight"], kept[f"{name}.state"] = weight, given[f"table.{name}.state"]
    tables.load(kept)
    start_new_rows(tables, state, previous.state, text_VT)
    return [name for name in tables.specs if f"{name}.weight" not in kept]


def new_inputs(previous: Previous, config: RunConfig) -> tuple[str, ...]:
    """Name the inputs of a config that the weights do not have, or have in another form."""
    features = define_features(config)
    crosses = (number for cross in features.crosses for number in cross.numbers)
    read = {
        *(f"row:{feature.name}" for feature in features.looked_up),
        *(f"number:{feature.name}" for feature in (*features.numbers, *crosses)),
        *(f"number:{name}" for name in past_names(config)),
        *(f"kind:{kind.name}" for kind in features.history),
        *([TEXT] if config.features.text_dim else []),
    }
    was = previous.inputs
    known = {
        *(f"row:{name}" for entity in ("user", "item", "context") for name, *_ in was.tables(entity)),
        *(f"number:{name}" for numbers in _numbers_of(was) for name, _ in numbers),
        *(f"kind:{kind}" for kind, _ in was.history_kinds),
        *([TEXT] if was.text_dim else []),
    }
    return tuple(sorted(_plain(read - (known - _changed_inputs(previous)))))


def _numbers_of(inputs: Inputs) -> tuple[tuple[tuple[str, int], ...], ...]:
    return inputs.user_numbers, inputs.item_numbers, inputs.context_numbers, inputs.pair_numbers


def _changed_inputs(previous: Previous) -> set[str]:
    """Name, as layouts do, the inputs that are read in another form than they were."""
    numbers = {f"number:{name}" for name in previous.fitted.numbers if name not in previous.state.numbers}
    tables = (table for entity in ("user", "item", "context") for table in previous.inputs.tables(entity))
    rows = {f"row:{name}" for name, vocabulary, _ in tables if vocabulary not in previous.state.vocabularies}
    kinds = {f"kind:{kind}" for kind in previous.fitted.history if kind not in previous.state.history}
    return numbers | rows | kinds | (set() if previous.state.text is previous.fitted.text else {TEXT})


def _carry(new: Tensor, old: Tensor, axes: Axes, old_axes: Axes, forgotten: Collection[str]) -> bool:
    """Copy what both tensors have, in place; False, and nothing done, where a size without names differs."""
    if old.dim() != new.dim():
        return False
    places = []
    for dim, (size, old_size) in enumerate(zip(new.shape, old.shape, strict=True)):
        if dim in axes and dim in old_axes:
            places.append(_matches(axes[dim], old_axes[dim], forgotten))
        elif size == old_size:
            places.append((np.arange(size), np.arange(size)))
        else:
            return False
    into, out_of = ([torch.from_numpy(pair[k]) for pair in places] for k in (0, 1))
    if 1 in axes:
        new[_grid([into[0], torch.arange(new.shape[1]), *into[2:]])] = 0.0
    new[_grid(into)] = old[_grid(out_of)]
    return True


def _new_places(new: Layout, old: Layout, changed: Collection[str]) -> tuple[int, ...]:
    """List the places of inputs, along a dimension, that the old one does not have in this form."""
    known = {(name, width) for name, width in old if name not in changed}
    found, place = list[int](), 0
    for name, width in new:
        if ":" in name and (name, width) not in known:
            found += range(place, place + width)
        place += width
    return tuple(found)


def _close_new(gate: Tensor, experts: Layout, old: Layout, heads: Collection[str]) -> None:
    """Keep a new head's experts out of what the other heads read, until a cold start.

    Args: gate: weight [E, I] or bias [E] of a gate's experts.
    """
    new = torch.ones(gate.shape[0], dtype=torch.bool)
    new[torch.from_numpy(_matches(experts, old, heads)[0])] = False
    gate[new] = 0.0 if gate.dim() > 1 else CLOSED


def _grid(places: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(torch.meshgrid(*places, indexing="ij"))


def _matches(new: Layout, old: Layout, forgotten: Collection[str]) -> tuple[np.ndarray, np.ndarray]:
    """Find the parts of equal name and width: where they are in the new dimension, and in the old one."""
    place, known = 0, {}
    for name, width in old:
        if name not in forgotten:
            known[name] = np.arange(place, place + width)
        place += width
    into, out_of, place = [], [], 0
    for name, width in new:
        if name in known and known[name].size == width:
            into.append(np.arange(place, place + width))
            out_of.append(known[name])
        place += width
    nothing = [np.zeros(0, np.int64)]
    return np.concatenate(into or nothing), np.concatenate(out_of or nothing)


def _inputs(found: Mapping[str, Axes]) -> set[str]:
    """Name all features that first layers read, and kinds of the history, as parts of layouts."""
    parts = (part for axes in found.values() for axis in axes.values() for part, _ in axis)
    return {part for part in parts if ":" in part}


def _plain(parts: Collection[str]) -> set[str]:
    return {part.split(":", 1)[1] for part in parts}


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
