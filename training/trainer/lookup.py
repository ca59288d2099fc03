"""What a step looks up: its own rows, or, where tables are copies on every rank, the rows of all ranks.

With copies every rank looks up the union of what the ranks need, and steps it with the summed gradient:
copies stay equal to the bit, and whatever looks at gradients of rows sees those of the whole step.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.model.embeddings import Tables
from training.trainer.group import Group

TABLE_SHIFT = 40
"""A number and its table in one int64; tables have fewer rows than 2 to this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """The rows of one step."""

    numbers: Mapping[str, Tensor]
    """Table -> distinct numbers [U], ascending; of all ranks where tables are copies."""
    leaves: Mapping[str, Tensor]
    """Table -> their rows [U, D], which collect gradients."""
    rows: Mapping[str, Tensor]
    """Table -> the rows of this rank's own numbers, in the order of its batch."""


def look_up(tables: Tables, own: Mapping[str, Tensor], group: Group) -> Lookup:
    """Look up a batch's numbers, once per step."""
    if group.size == 1 or not tables.copied:
        leaves = tables.lookup(own)
        return Lookup(numbers=own, leaves=leaves, rows=leaves)
    numbers = union(own, group)
    leaves = tables.lookup(numbers)
    # Both are ascending and distinct.
    rows = {name: leaves[name].index_select(0, torch.searchsorted(numbers[name], own[name])) for name in own}
    return Lookup(numbers=numbers, leaves=leaves, rows=rows)


def union(own: Mapping[str, Tensor], group: Group) -> dict[str, Tensor]:
    """Give each table's distinct numbers of all ranks, ascending; all ranks name the same tables."""
    coded = torch.cat([numbers + (i << TABLE_SHIFT) for i, numbers in enumerate(own.values())])
    every = torch.unique(torch.cat(group.parts(coded)))
    ends = torch.arange(len(own) + 1, device=every.device) << TABLE_SHIFT
    cuts = torch.searchsorted(every, ends).tolist()
    return {name: every[cuts[i] : cuts[i + 1]] - (i << TABLE_SHIFT) for i, name in enumerate(own)}
