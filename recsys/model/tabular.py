"""A table without users and items: categorical columns and numbers -> the same trunks and heads.

All columns share one table of embeddings, each with its own stretch of numbers, and one narrow table of the
linear ("wide") part, which enters the heads as their bias. Cross layers stand beside the trunk's plain input.

Shape letters: B examples, C columns, D embedding, F numbers, I inputs, K tasks, U rows of a table.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from recsys.batch import Batch
from recsys.config import TrunkConfig
from recsys.model.embeddings import TableSpec
from recsys.model.heads import Heads
from recsys.model.trunks import build_trunk
from recsys.tasks import TaskSpec

COLUMNS = "columns"
WIDE = "wide"


class TabularRanker(nn.Module):
    """Columns and numbers -> logits per task; trains with `training.trainer.fit` as the ranker does."""

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        *,
        num_columns: int,
        num_numbers: int,
        dim: int,
        trunk: TrunkConfig,
        head_hidden: int,
        dropout: float,
        num_crosses: int = 0,
    ) -> None:
        """Build all parts from their sizes; `num_crosses` cross layers, 0 for none."""
        super().__init__()
        self.specs = tuple(tasks)
        self.num_trunk_in = num_columns * dim + num_numbers
        self.norm = nn.LayerNorm(self.num_trunk_in)
        self.crosses = nn.ModuleList(
            nn.Linear(self.num_trunk_in, self.num_trunk_in) for _ in range(num_crosses)
        )
        self.trunk = build_trunk(trunk, self.num_trunk_in, [t.name for t in tasks], dropout)
        self.heads = Heads(tasks, self.trunk.num_out, head_hidden)
        self.wide_numbers = nn.Linear(num_numbers, len(self.specs))

    def parameter_groups(self) -> dict[float, list[nn.Parameter]]:
        """Group the parameters by their multiple of the learning rate: one group."""
        return {1.0: list(self.parameters())}

    def forward(self, batch: Batch, rows: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], None, None]:
        """Give logits per task; there are no sides for a retrieval loss."""
        index_BC = batch.index[COLUMNS]
        numbers_BF = batch.context_numbers_BF
        x_BI = torch.cat([rows[COLUMNS][index_BC].flatten(1), numbers_BF], dim=1)
        x_BI = self.norm(x_BI)
        wide_BK = rows[WIDE][index_BC].sum(dim=1) + self.wide_numbers(numbers_BF)
        crossed_BI = x_BI
        for layer in self.crosses:
            crossed_BI = x_BI * layer(crossed_BI) + crossed_BI
        hidden = self.trunk(crossed_BI)
        logits: dict[str, Tensor] = self.heads(
            hidden, {t.name: wide_BK[:, k] for k, t in enumerate(self.specs)}
        )
        return logits, None, None


def tabular_specs(size: int, dim: int, num_tasks: int) -> tuple[TableSpec, TableSpec]:
    """Give the two tables of a `TabularRanker` over so many numbers."""
    return TableSpec(name=COLUMNS, size=size, dim=dim), TableSpec(name=WIDE, size=size, dim=num_tasks)


def tabular_batch(index_BC: Tensor, numbers_BF: Tensor, labels: Mapping[str, Tensor], size: int) -> Batch:
    """Build a batch without user, item or history; a label that is NaN is not observed.

    Args: index_BC: numbers into the columns' shared table of `size` rows; all rows are looked up.
    """
    num = index_BC.shape[0]
    none_BF, none_BL = torch.zeros(num, 0), torch.zeros(num, 0, dtype=torch.long)
    every_U = torch.arange(size)
    return Batch(
        rows={COLUMNS: every_U, WIDE: every_U},
        index={COLUMNS: index_BC},
        item_text_UT=torch.zeros(0, 0),
        user_numbers_BF=none_BF,
        item_numbers_BF=none_BF,
        context_numbers_BF=numbers_BF,
        cross_numbers_BF=none_BF,
        item_text_BT=none_BF,
        history_index_BL=none_BL,
        history_kind_BL=none_BL,
        history_age_BL=none_BL,
        position_B=torch.zeros(num, dtype=torch.long),
        labels={task: label_B.nan_to_num() for task, label_B in labels.items()},
        observed={task: ~label_B.isnan() for task, label_B in labels.items()},
    )
