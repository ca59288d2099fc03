"""Two sides without time or history: columns of a user, columns of an item -> the same trunks and heads.

A side's vector is the sum of its columns' embeddings; the product of both enters the trunk, and its sum the
heads' bias beside the columns' own linear terms: the trunk starts from matrix factorisation with biases.
A user's other items, where a batch has them, are part of the user's vector: implicit feedback as in SVD++
(Koren, KDD 2008), and without a column for the user alone, FISM (Kabbur et al., KDD 2013).

Shape letters: B examples, C columns, D embedding, F known numbers (none or one), K tasks, V distinct users of
a batch, U rows of a table.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.quality.models.tabular_ranker import COLUMNS, WIDE
from recsys.batch import BagIndex, Batch
from recsys.config import TrunkConfig
from recsys.model.heads import Heads
from recsys.model.layers import TaskModules
from recsys.model.trunks import build_trunk
from recsys.tasks import TaskSpec

OTHERS = "others"
"""The table and the bags of users' other items; `Batch.index` says whose bag an example's is [B]."""


class PairRanker(nn.Module):
    """User columns and item columns -> logits per task; trains with `training.trainer.fit.fit`."""

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        *,
        num_user_columns: int,
        dim: int,
        trunk: TrunkConfig,
        head_hidden: int,
        dropout: float,
        row_dropout: float,
        weigh_product: bool = False,
        estimates: bool = True,
    ) -> None:
        """Build all parts; the first `num_user_columns` columns are the user's.

        Args: row_dropout: on the sides' vectors, which holds their lengths back as a penalty on them would.
        weigh_product: let each task weigh the product's dimensions by itself. estimates: how likely a pair
        is to be observed, for debiased tasks; False: their training batches say so.
        """
        super().__init__()
        self.specs, self.num_user_columns = tuple(tasks), num_user_columns
        self.row_dropout = nn.Dropout(row_dropout)
        self.norm = nn.LayerNorm(3 * dim)
        self.trunk = build_trunk(trunk, 3 * dim, [t.name for t in tasks], dropout)
        self.heads = Heads(tasks, self.trunk.num_out, head_hidden)
        # One weight a task, or one a task and dimension.
        self.product = nn.Parameter(torch.ones(dim if weigh_product else 1, len(self.specs)))
        # Built last, and only where asked for, so that it moves no other part's start.
        observing = [t for t in tasks if t.debias and estimates]
        self.observing = TaskModules({t.name: nn.Linear(3 * dim, 1) for t in observing})

    def parameter_groups(self) -> dict[float, list[nn.Parameter]]:
        """Group the parameters by their multiple of the learning rate: one group."""
        return {1.0: list(self.parameters())}

    def forward(self, batch: Batch, rows: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], None, None]:
        """Give logits per task; there are no sides for a retrieval loss.

        A debiased task has the logits of being observed too, under `TaskSpec.observation`: the batch's one
        context number where it has one (the propensity is known), else, if estimated, a logistic regression
        on the trunk's input, of no gradient to it.
        """
        index_BC = batch.index[COLUMNS]
        cut = self.num_user_columns
        user_BD = _summed(rows[COLUMNS], index_BC[:, :cut])
        if OTHERS in batch.bags:
            user_BD = user_BD + _pooled(rows[OTHERS], batch.bags[OTHERS])[batch.index[OTHERS]]
        user_BD = self.row_dropout(user_BD)
        item_BD = self.row_dropout(_summed(rows[COLUMNS], index_BC[:, cut:]))
        product_BD = user_BD * item_BD
        bias_BK = _summed(rows[WIDE], index_BC) + self._match(product_BD)
        x_BI = self.norm(torch.cat([user_BD, item_BD, product_BD], dim=1))
        hidden = self.trunk(x_BI)
        logits: dict[str, Tensor] = self.heads(
            hidden, {t.name: bias_BK[:, k] for k, t in enumerate(self.specs)}
        )
        known_BF = batch.context_numbers_BF
        for task in self.specs:
            if not task.debias:
                continue
            if known_BF.shape[1]:
                logits[task.observation] = known_BF[:, 0]
            elif task.name in self.observing:
                logits[task.observation] = self.observing[task.name](x_BI.detach())[:, 0]
        return logits, None, None

    def _match(self, product_BD: Tensor) -> Tensor:
        """Give how well both sides match, per task [B, K]."""
        if self.product.shape[0] == 1:
            return product_BD.sum(dim=1, keepdim=True) * self.product
        return product_BD @ self.product


def _summed(rows_UD: Tensor, index_BC: Tensor) -> Tensor:
    """Add up the columns' rows [B, D]."""
    summed: Tensor = functional.embedding_bag(index_BC, rows_UD, mode="sum")
    return summed


def _pooled(rows_UD: Tensor, bag: BagIndex) -> Tensor:
    """Add up each bag's rows, divided by the root of their number: [V, D]; an empty bag gives zeros."""
    sizes_V = torch.cat([bag.starts, torch.tensor([bag.values.numel()])]).diff()
    summed_VD: Tensor = functional.embedding_bag(bag.values, rows_UD, bag.starts, mode="sum")
    return summed_VD / sizes_V.clamp(min=1).sqrt()[:, None]
