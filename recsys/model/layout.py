"""What a model's parameters are indexed by, by name: a warm start maps weights with it.

A column of a first layer belongs to a feature, a row of the history's kinds to a kind of feedback, a column
of the position bias to a task. `layouts` lists such dimensions; all others have the sizes of `[model]`.
"""

from collections.abc import Sequence

from recsys.model.input_sizes import Inputs
from recsys.shapes import HeadSpec, ModelShape, reads_sequences

Layout = tuple[tuple[str, int], ...]
"""(name, width) in order, along one dimension; names are unique."""
Axes = dict[int, Layout]
"""Dimension of a parameter -> its layout. Dimension 1 is always what the layer reads."""

TEXT = "text:item"
"""The part of a layout that the item's text is."""
SHARED_GATE = "shared_gate"
"""A parameter with this in its name says how much of each expert, a task's own ones too, every task reads."""


def layouts(inputs: Inputs, tasks: Sequence[HeadSpec], config: ModelShape) -> dict[str, Axes]:
    """Give the layouts of a `Ranker`'s parameters, by the parameters' names."""
    from recsys.model.trunks import TRUNKS

    names = [task.name for task in tasks]
    a, item_dim = config.attention_dim, inputs.item_tables[0][2]
    user = (*_rows(inputs.tables("user")), *_numbers(inputs.user_numbers), ("history", a))
    item = (*_rows(inputs.tables("item")), *_numbers(inputs.item_numbers))
    joined = (
        *user,
        *item,
        *_rows(inputs.context_tables),
        *_numbers(inputs.context_numbers),
        *_numbers(inputs.pair_numbers),
        ("attended", a),
        ("attended * query", a),
        ("embeddings", config.embedding_dim),
        ("ids", item_dim),
        ("sums", 3),
    )
    own_id = tuple(part for part in user[:1] if part[0] == "row:user_id")
    trunk = TRUNKS[config.trunk.name].layouts(joined, names, config.trunk)
    members = ("", *(f"others.{m}." for m in range(config.ensemble_size - 1)))
    kinds: Axes = {0: (("(none)", 1), *((f"kind:{k}", n) for k, n in inputs.history_kinds))}
    return {
        "user_tower.0.0.weight": {1: user},
        "item_tower.0.0.weight": {1: item},
        "user_factor.weight": {1: (*own_id, ("history", a))},
        "project_text.weight": {1: ((TEXT, inputs.text_dim),)} if inputs.text_dim else {},
        "history.kind.weight": kinds,
        **({"history.event_kind.weight": kinds} if reads_sequences(config.history) else {}),
        "position.weight": {1: tuple((name, 1) for name in names)},
        **{f"observing.{task.name}.weight": {1: joined} for task in tasks if task.debias},
        **{f"{member}trunk.{name}": axes for member in members for name, axes in trunk.items()},
    }


def _rows(tables: Sequence[tuple[str, str, int]]) -> Layout:
    return tuple((f"row:{feature}", dim) for feature, _, dim in tables)


def _numbers(numbers: Layout) -> Layout:
    return tuple((f"number:{feature}", width) for feature, width in numbers)
