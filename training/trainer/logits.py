"""Logits of many batches: what calibration and evaluation read."""

from collections.abc import Iterable

import numpy as np
import torch

from recsys.batch import Batch
from recsys.model.embeddings import Tables
from recsys.model.ranker import Ranker
from training.trainer.prefetch import batches_ahead


@torch.no_grad()
def predict_cosines(ranker: Ranker, tables: Tables, batches: Iterable[Batch]) -> np.ndarray:
    """Give the cosine of user and item, float32 [N]: what retrieval scores."""
    ranker.eval()
    found = [torch.zeros(0, device=tables.device)]
    for batch in batches_ahead(batches, tables.device):
        rows = tables.lookup(batch.rows)
        user = ranker.user_side(batch, rows)
        ids = ranker.looked_up(batch, rows, "item")
        item = ranker.item_side(ids, batch.item_numbers_BF, batch.item_text_BT)
        found.append((user.embedding_BD * item.embedding_BD).sum(dim=1))
    cosines: np.ndarray = torch.cat(found).cpu().numpy()
    return cosines


@torch.no_grad()
def predict_logits(ranker: Ranker, tables: Tables, batches: Iterable[Batch]) -> dict[str, np.ndarray]:
    """Give logits float32 per task, [N] or (ordinal) [N, C], position bias off.

    Ranker and tables are on one device; the logits leave it at the end.
    """
    ranker.eval()
    # Starts with none, so that no batch at all gives logits of the right width too.
    none = torch.zeros(0, device=tables.device)
    found = {t.name: [ranker.heads.links[t.name](none)] for t in ranker.specs}
    for batch in batches_ahead(batches, tables.device):
        rows = tables.lookup(batch.rows)
        user = ranker.user_side(batch, rows)
        item = ranker.item_side(
            ranker.looked_up(batch, rows, "item"), batch.item_numbers_BF, batch.item_text_BT
        )
        context = ranker.context(ranker.looked_up(batch, rows, "context"), batch.context_numbers_BF)
        for task, values in ranker.logits(user, item, context, batch.cross_numbers_BF).items():
            found[task].append(values)
    return {task: torch.cat(parts).cpu().numpy() for task, parts in found.items()}
