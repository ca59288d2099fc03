"""Logits of many batches: what calibration and evaluation read."""

from collections.abc import Iterable

import numpy as np
import torch

from recsys.batch import Batch
from recsys.model.embeddings import Tables
from recsys.model.ranker import Ranker
from training.trainer.prefetch import ahead


@torch.no_grad()
def predict_logits(ranker: Ranker, tables: Tables, batches: Iterable[Batch]) -> dict[str, np.ndarray]:
    """Give logits float32 per task, [N] or (ordinal) [N, C], position bias off."""
    ranker.eval()
    # Starts with none, so that no batch at all gives logits of the right width too.
    found = {t.name: [ranker.heads.links[t.name](torch.zeros(0)).numpy()] for t in ranker.specs}
    for batch in ahead(batches):
        rows = tables.lookup(batch.rows)
        user = ranker.user_side(batch, rows)
        item = ranker.item_side(
            ranker.looked_up(batch, rows, "item"), batch.item_numbers_BF, batch.item_text_BT
        )
        context = ranker.context(ranker.looked_up(batch, rows, "context"), batch.context_numbers_BF)
        for task, values in ranker.logits(user, item, context, batch.cross_numbers_BF).items():
            found[task].append(values.numpy())
    return {task: np.concatenate(parts) for task, parts in found.items()}
