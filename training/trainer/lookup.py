"""What a step looks up: its own rows, or, where tables are copies on every rank, the rows of all ranks.

With copies every rank looks up the union of what the ranks need, and steps it with the summed gradient:
copies stay equal to the bit, and whatever looks at gradients of rows sees those of the whole step.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys.model.embeddings import Tables
from training.trainer.whole_batch import WholeBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """The rows of one step."""

    leaves: Mapping[str, Tensor]
    """Table -> the rows [U, D] of `whole.numbers`, which collect gradients."""
    rows: Mapping[str, Tensor]
    """Table -> the rows of this rank's own numbers, in the order of its batch."""
    whole: WholeBatch


def look_up(tables: Tables, own: Mapping[str, Tensor], whole: WholeBatch) -> Lookup:
    """Look up the numbers of a batch, of which `own` are this rank's, once per step."""
    numbers = whole.numbers
    leaves = tables.lookup(numbers)
    if numbers is own:
        return Lookup(leaves=leaves, rows=leaves, whole=whole)
    # Both are ascending and distinct.
    rows = {name: leaves[name].index_select(0, _places(own[name], numbers[name])) for name in own}
    return Lookup(leaves=leaves, rows=rows, whole=whole)


def _places(some: Tensor, among: Tensor) -> Tensor:
    """Find numbers among others; on a processor numpy takes half the time that torch does."""
    if some.device.type != "cpu":
        return torch.searchsorted(among, some)
    return torch.from_numpy(np.searchsorted(among.numpy(), some.numpy()))
