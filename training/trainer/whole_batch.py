"""What the ranks tell each other of a step's batch before it: one message."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from recsys.batch import Batch, Negatives
from recsys.shapes import HeadSpec
from training.trainer.group import ALONE, Group

TABLE_SHIFT = 40
"""A number and its table in one int64; tables have fewer rows than 2 to this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeBatch:
    """A step's batch as each of the ranks knows it that have a slice of it."""

    group: Group
    rows: int
    observed: Tensor
    """How many rows each task is observed in, float [K]."""
    candidates: Sequence[Tensor]
    """Rank -> what masks its candidates [P + M, 3]: item row, user, whether it is a positive of that user.
    None without negatives."""
    numbers: Mapping[str, Tensor]
    """Table -> distinct numbers that are looked up [U], ascending; of all ranks where tables are copies."""


def whole_batch(
    batch: Batch,
    tasks: Sequence[HeadSpec],
    group: Group = ALONE,
    *,
    union: bool = True,
) -> WholeBatch:
    """Tell the other ranks of this rank's slice, and hear of theirs; alone, of the batch itself.

    Args: union: whether every rank looks up the rows of all, as ranks with copies of the tables do.
    """
    device = batch.device
    observed = torch.stack([batch.observed[t.name].sum() for t in tasks]) if tasks else _none(device)
    candidates = _none(device, 3) if batch.negatives is None else _candidates(batch.negatives)
    if group.size == 1:
        return WholeBatch(
            group=group,
            rows=batch.num_shown,
            observed=observed.float(),
            candidates=[candidates],
            numbers=batch.rows,
        )
    counts = torch.cat([torch.tensor([batch.num_shown], device=device), observed])
    coded = _coded(batch.rows) if union else _none(device)
    said = group.exchange([counts, candidates, coded])
    totals = torch.stack([of_rank[0] for of_rank in said]).sum(dim=0)
    return WholeBatch(
        group=group,
        rows=int(totals[0]),
        observed=totals[1:].float(),
        candidates=[of_rank[1] for of_rank in said],
        numbers=_merged(list(batch.rows), [of_rank[2] for of_rank in said]) if union else batch.rows,
    )


def _candidates(negatives: Negatives) -> Tensor:
    positive = negatives.positive_P
    item_C = torch.cat([negatives.item_B[positive], negatives.item_M])
    user_C = functional.pad(negatives.user_B[positive], (0, negatives.item_M.numel()))
    is_positive_C = torch.arange(item_C.numel(), device=item_C.device) < positive.numel()
    return torch.stack([item_C, user_C, is_positive_C.to(item_C.dtype)], dim=1)


def _coded(rows: Mapping[str, Tensor]) -> Tensor:
    """Write the numbers of all tables as one list."""
    return torch.cat([numbers + (i << TABLE_SHIFT) for i, numbers in enumerate(rows.values())])


def _merged(tables: Sequence[str], coded: Sequence[Tensor]) -> dict[str, Tensor]:
    """Give each table's distinct numbers of all ranks, ascending; all ranks name the same tables.

    Each rank's are ascending: numpy's stable sort merges such runs, ten times as fast as torch.unique.
    """
    every, device = np.concatenate([of_rank.cpu().numpy() for of_rank in coded]), coded[0].device
    every.sort(kind="stable")
    first = np.ones(every.size, bool)
    np.not_equal(every[1:], every[:-1], out=first[1:])
    every = every[first]
    cuts = np.searchsorted(every, np.arange(len(tables) + 1) << TABLE_SHIFT)
    return {
        name: torch.from_numpy(every[cuts[i] : cuts[i + 1]] - (i << TABLE_SHIFT)).to(device)
        for i, name in enumerate(tables)
    }


def _none(device: torch.device, *further: int) -> Tensor:
    return torch.zeros((0, *further), dtype=torch.int64, device=device)
