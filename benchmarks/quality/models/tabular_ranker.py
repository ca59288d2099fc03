"""A table without users and items: categorical columns and numbers -> the same trunks and heads.

All columns share one table of embeddings, each with its own stretch of numbers, and one narrow table of the
linear ("wide") part, which enters the heads as their bias. An ensemble is of whole models, tables included,
that are trained on the same batches and read as their mean (Lakshminarayanan et al., NeurIPS 2017).

Shape letters: B examples, C columns, D embedding, F numbers, I inputs, K tasks, M models, U rows of a table.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from recsys.batch import Batch, HistoryIndex
from recsys.config import TrunkConfig
from recsys.model.embeddings import TableSpec
from recsys.model.heads import Heads
from recsys.model.trunks import build_trunk
from recsys.tasks import TaskSpec

COLUMNS = "columns"
WIDE = "wide"


class TabularRanker(nn.Module):
    """Columns and numbers -> logits per task; trains with `training.trainer.fit.fit` as the ranker does."""

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
        ensemble_size: int = 1,
    ) -> None:
        """Build all parts from their sizes."""
        super().__init__()
        self.specs = tuple(tasks)
        self.models = nn.ModuleList(
            _OneModel(tasks, num_columns * dim, num_numbers, trunk, head_hidden, dropout)
            for _ in range(ensemble_size)
        )

    def parameter_groups(self) -> dict[float, list[nn.Parameter]]:
        """Group the parameters by their multiple of the learning rate: one group."""
        return {1.0: list(self.parameters())}

    def forward(self, batch: Batch, rows: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], None, None]:
        """Give logits [M · B] per task, one model's behind the other's; there are no sides for retrieval."""
        found = self._each(batch, rows)
        return {t.name: torch.cat([m[t.name] for m in found]) for t in self.specs}, None, None

    def logits(self, batch: Batch, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give the mean of the models' logits, [B] per task."""
        found = self._each(batch, rows)
        return {t.name: torch.stack([m[t.name] for m in found]).mean(dim=0) for t in self.specs}

    def _each(self, batch: Batch, rows: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """Ask every model, which has its own stretch of both tables."""
        stretches = zip(*(rows[name].chunk(len(self.models)) for name in (COLUMNS, WIDE)), strict=True)
        return [
            model(batch.index[COLUMNS], batch.context_numbers_BF, columns_UD, wide_UK)
            for model, (columns_UD, wide_UK) in zip(self.models, stretches, strict=True)
        ]


class _OneModel(nn.Module):
    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        num_embedded: int,
        num_numbers: int,
        trunk: TrunkConfig,
        head_hidden: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.specs = tuple(tasks)
        num_in = num_embedded + num_numbers
        self.norm = nn.LayerNorm(num_in)
        self.trunk = build_trunk(trunk, num_in, [t.name for t in tasks], dropout)
        self.heads = Heads(tasks, self.trunk.num_out, head_hidden)
        self.wide_numbers = nn.Linear(num_numbers, len(self.specs))

    def forward(
        self, index_BC: Tensor, numbers_BF: Tensor, columns_UD: Tensor, wide_UK: Tensor
    ) -> dict[str, Tensor]:
        x_BI = self.norm(torch.cat([columns_UD[index_BC].flatten(1), numbers_BF], dim=1))
        wide_BK = wide_UK[index_BC].sum(dim=1) + self.wide_numbers(numbers_BF)
        bias = {t.name: wide_BK[:, k] for k, t in enumerate(self.specs)}
        logits: dict[str, Tensor] = self.heads(self.trunk(x_BI), bias)
        return logits


def tabular_specs(size: int, dim: int, num_tasks: int, ensemble_size: int = 1) -> tuple[TableSpec, TableSpec]:
    """Give the two tables of a `TabularRanker` over so many numbers, a stretch for each model."""
    size *= ensemble_size
    return TableSpec(name=COLUMNS, size=size, dim=dim), TableSpec(name=WIDE, size=size, dim=num_tasks)


def tabular_batch(index_BC: Tensor, numbers_BF: Tensor, labels: Mapping[str, Tensor], size: int) -> Batch:
    """Build a batch without user, item or history; a label that is NaN is not observed.

    Args: index_BC: numbers into the columns' shared table of `size` rows; all rows are looked up.
    """
    num = index_BC.shape[0]
    none_BF = torch.zeros(num, 0)
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
        history=HistoryIndex.empty(num),
        position_B=torch.zeros(num, dtype=torch.long),
        labels={task: label_B.nan_to_num() for task, label_B in labels.items()},
        observed={task: ~label_B.isnan() for task, label_B in labels.items()},
    )
