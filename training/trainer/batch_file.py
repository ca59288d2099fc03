"""A batch as named tensors, and back: `rows/item_id`, `negatives/bags/tags/values`."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

import torch
from torch import Tensor

from recsys.batch import Batch


def batch_tensors(batch: Batch) -> dict[str, Tensor]:
    """Give every tensor of a batch by its path."""
    return dict(_leaves("", batch))


def read_batch(tensors: Mapping[str, Tensor]) -> Batch:
    """Build the batch that `batch_tensors` took apart."""
    tree: dict[str, Any] = {}
    for path, tensor in tensors.items():
        *folders, name = path.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = tensor
    batch: Batch = _built(Batch, tree)
    return batch


def _leaves(path: str, value: Any) -> list[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        return [(path, value)]
    if isinstance(value, int | float):
        return [(path, torch.tensor(value, dtype=torch.float64))]
    if is_dataclass(value):
        parts = {f.name: getattr(value, f.name) for f in fields(value)}
    else:
        parts = value or {}
    prefix = f"{path}/" if path else ""
    return [leaf for name, part in parts.items() for leaf in _leaves(f"{prefix}{name}", part)]


def _built(kind: Any, tree: Any) -> Any:
    """Build a value of a type: a tensor, a number, a dataclass, a dict of them, or one that may be absent."""
    inner = [a for a in get_args(kind) if a is not type(None)]
    if not isinstance(tree, dict):
        return kind(tree) if kind in (int, float) else tree
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        given = {f.name: tree.get(f.name) for f in fields(kind)}
        return kind(**{name: _part(hints[name], part) for name, part in given.items()})  # type: ignore[operator]
    if getattr(kind, "__origin__", None) is dict:
        return {name: _built(inner[-1], part) for name, part in tree.items()}
    return _built(inner[0], tree)


def _part(kind: Any, tree: Any) -> Any:
    if tree is None:
        return {} if getattr(kind, "__origin__", None) is dict else None
    return _built(kind, tree)
