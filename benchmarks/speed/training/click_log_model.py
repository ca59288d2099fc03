"""Our model of the click log, an MMoE as the peers build it, and its batches.

All columns share one table, each with its own stretch of rows, so that a step makes one gather.

Shape letters: B examples, C columns, D embedding, F numbers, I inputs, N rows of a chunk, U distinct rows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.speed.plain_shapes import PlainHead, PlainTrunk
from benchmarks.speed.training.click_log import CHUNK, COLUMN_SIZES, NUM_NUMBERS, TASKS, read_chunk
from recsys.batch import Batch, HistoryIndex
from recsys.model.embeddings import TableSpec
from recsys.model.heads import Heads
from recsys.model.trunks import build_trunk

COLUMNS: Final = "columns"
DIM: Final = 16
TRUNK: Final = PlainTrunk(name="mmoe", num_experts=8, hidden=(256, 128))
HEAD_HIDDEN: Final = 64
TABLE: Final = TableSpec(name=COLUMNS, size=1 + sum(COLUMN_SIZES), dim=DIM)
"""Row 0 is the one of an unknown id, as in every table; no row of this log has one."""
FIRST_ROW: Final = np.cumsum([1, *COLUMN_SIZES[:-1]]).astype(np.int32)
SPECS: Final = tuple(PlainHead.binary(task) for task in TASKS)
"""Two heads side by side, as the peers have them: purchase is no product with click."""


class ClickLogModel(nn.Module):
    """Ten embedded columns and four numbers -> trunk -> heads."""

    def __init__(self) -> None:
        """Build the trunk and the heads."""
        super().__init__()
        num_in = len(COLUMN_SIZES) * DIM + NUM_NUMBERS
        self.trunk = build_trunk(TRUNK, num_in, list(TASKS), dropout=0.0)
        self.heads = Heads(SPECS, self.trunk.num_out, HEAD_HIDDEN)

    def parameter_groups(self) -> dict[float, list[nn.Parameter]]:
        """Group the parameters by their multiple of the learning rate: one group."""
        return {1.0: list(self.parameters())}

    def forward(self, batch: Batch, rows: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], None, None]:
        """Give logits [B] per task; there are no sides for retrieval."""
        index_BC, numbers_BF = batch.index[COLUMNS], batch.context_numbers_BF
        x_BI = torch.cat([rows[COLUMNS][index_BC].flatten(1), numbers_BF], dim=1)
        none_B = numbers_BF.new_zeros(len(index_BC))
        return self.heads(self.trunk(x_BI), dict.fromkeys(TASKS, none_B)), None, None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClickLogBatches:
    """One pass over a part, shuffled across its chunks and inside each; memory is bounded by a chunk."""

    folder: Path
    part: str
    rows: int
    batch_size: int
    seed: int
    shuffle_labels: bool = False
    """Give every row another row's labels: what learns from these must score no better than chance."""
    rank: int = 0
    ranks: int = 1
    """Each rank gets its slice of every batch."""

    @property
    def steps(self) -> int:
        """Count the batches."""
        sizes = (min(CHUNK, self.rows - begin) for begin in range(0, self.rows, CHUNK))
        return sum(-(-size // self.batch_size) for size in sizes)

    def __iter__(self) -> Iterator[Batch]:
        """Give batches of near-equal size."""
        rng = np.random.default_rng(self.seed)
        slot = np.zeros(TABLE.size, np.int64)
        for begin in CHUNK * rng.permutation(-(-self.rows // CHUNK)):
            chunk = read_chunk(self.folder, self.part, begin, min(self.rows, begin + CHUNK))
            ids_NC = chunk.ids_NC + FIRST_ROW
            labels_NK = rng.permutation(chunk.labels_NK) if self.shuffle_labels else chunk.labels_NK
            order = rng.permutation(len(ids_NC))
            for whole in np.array_split(order, -(-order.size // self.batch_size)):
                picked = np.array_split(whole, self.ranks)[self.rank]
                yield _batch(ids_NC[picked], chunk.numbers_NF[picked], labels_NK[picked], slot)


def click_log_batch(ids_BC: np.ndarray, numbers_BF: np.ndarray, labels_BK: np.ndarray) -> Batch:
    """Build one batch from rows of the log. Args: ids_BC: each column from 0."""
    return _batch(ids_BC + FIRST_ROW, numbers_BF, labels_BK, np.zeros(TABLE.size, np.int64))


def _batch(ids_BC: np.ndarray, numbers_BF: np.ndarray, labels_BK: np.ndarray, slot: np.ndarray) -> Batch:
    """Build a batch. Args: slot: zeros, one per row of the table; left as they were."""
    slot[ids_BC] = 1
    distinct_U = np.flatnonzero(slot)
    slot[distinct_U] = np.arange(distinct_U.size)
    index_BC = slot[ids_BC]
    slot[distinct_U] = 0
    num = len(ids_BC)
    none_BF = torch.zeros(num, 0)
    return Batch(
        rows={COLUMNS: torch.from_numpy(distinct_U)},
        index={COLUMNS: torch.from_numpy(index_BC)},
        item_text_UT=torch.zeros(0, 0),
        user_numbers_BF=none_BF,
        item_numbers_BF=none_BF,
        context_numbers_BF=torch.from_numpy(numbers_BF),
        cross_numbers_BF=none_BF,
        item_text_BT=none_BF,
        history=HistoryIndex.empty(num),
        position_B=torch.zeros(num, dtype=torch.long),
        labels={task: torch.from_numpy(labels_BK[:, k].copy()) for k, task in enumerate(TASKS)},
        observed=dict.fromkeys(TASKS, torch.ones(num, dtype=torch.bool)),
    )
