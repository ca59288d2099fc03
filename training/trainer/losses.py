"""All losses of one step."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from recsys.batch import Batch
from recsys.model.ranker import Ranker
from recsys.tasks import RETRIEVAL, TaskSpec
from training.objective import retrieval_loss, task_losses
from training.trainer.learner import Learner
from training.trainer.settings import FitSettings


def all_losses(
    learner: Learner,
    batch: Batch,
    tasks: Sequence[TaskSpec],
    settings: FitSettings,
    rows: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Give the heads' losses and the retrieval loss of a batch and its looked-up rows; and the logits."""
    with torch.autocast(batch.device.type, dtype=torch.bfloat16, enabled=settings.bf16):
        logits, user, item = learner(batch, rows)
    logits = {k: v.float() for k, v in logits.items()}
    losses = task_losses(logits, batch, tasks)
    if settings.retrieval_task is not None:
        assert isinstance(learner, Ranker)
        assert user is not None
        assert item is not None
        losses[RETRIEVAL] = retrieval_loss(
            learner, batch, rows, user, item, settings.retrieval_task, settings.temperature
        )
    return losses, logits
