"""Start vectors of users and items: the truncated singular value decomposition of who met what in training.

Rows are divided by their length, so that a heavy user does not draw a direction alone. The products of the
vectors then rank as PureSVD does, and the heads are trained from there.
Source: Cremonesi, Koren & Turrin, RecSys 2010; as a start of deep rankers: spectral initialisation.

Shapes: U users, I items, D embedding.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.quality.models.pair_model import PairModel
from benchmarks.quality.models.tabular_ranker import COLUMNS


@dataclass(frozen=True, slots=True)
class SpectralStart:
    """Vectors of users [U, D] and items [I, D], float32."""

    users: np.ndarray
    items: np.ndarray

    def put(self, model: PairModel, head: str) -> None:
        """Make them the rows of users and items; other columns and the heads' own layers start at nothing.

        Args: head: whose logits their products are.
        """
        rows, sides = model.tables.weight[COLUMNS], model.sides
        rows.zero_()
        rows[torch.from_numpy(sides.user_ids[:, 0])] = torch.from_numpy(self.users)
        rows[torch.from_numpy(sides.item_ids[:, 0])] = torch.from_numpy(self.items)
        for k, task in enumerate(model.tasks):
            if task.name != head:
                torch.nn.init.zeros_(model.ranker.product[:, k])
            torch.nn.init.zeros_(model.ranker.heads.heads[task.name][-1].weight)  # type: ignore[index]


def spectral_start(train: Any, dim: int, scale: float) -> SpectralStart:
    """Decompose the sparse 0/1 matrix [U, I] of training pairs.

    Args: dim: below users and items; scale: of the products, which are parts of logits.
    """
    from scipy.sparse import diags
    from scipy.sparse.linalg import svds

    length = np.sqrt(np.asarray(train.sum(axis=1)).ravel()).clip(min=1)
    left, values, right = svds((diags(1 / length) @ train).astype(np.float64), k=dim, random_state=0)
    half = np.sqrt(scale * values)
    return SpectralStart((left * half).astype(np.float32), (right.T * half).astype(np.float32))
