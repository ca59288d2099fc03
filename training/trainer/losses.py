"""All losses of one step."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from recsys.batch import Batch
from recsys.model.ranker import Ranker
from recsys.shapes import RETRIEVAL, HeadSpec
from training.objective import next_item_loss, retrieval_loss, task_losses
from training.trainer.group import Group
from training.trainer.learner import Learner
from training.trainer.settings import FitSettings
from training.trainer.whole_batch import WholeBatch


def all_losses(
    learner: Learner,
    batch: Batch,
    tasks: Sequence[HeadSpec],
    settings: FitSettings,
    rows: Mapping[str, Tensor],
    whole: WholeBatch,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Give the heads' losses and the retrieval loss of a batch and its looked-up rows; and the logits.

    Of several ranks each has the losses of all as values, and the gradients of its own share of them.
    """
    with torch.autocast(batch.device.type, dtype=torch.bfloat16, enabled=settings.bf16):
        logits, user, item = learner(batch, rows)
    logits = {k: v.float() for k, v in logits.items()}
    losses = task_losses(logits, batch, tasks, whole)
    if settings.retrieval_task is not None:
        assert isinstance(learner, Ranker)
        assert user is not None
        assert item is not None
        losses[RETRIEVAL] = retrieval_loss(learner, batch, rows, user, item, settings.temperature, whole)
        if settings.next_item_weight and batch.history.sequences is not None:
            after = next_item_loss(learner, batch, rows, user, settings.temperature, whole)
            losses[RETRIEVAL] = losses[RETRIEVAL] + settings.next_item_weight * after
    return _with_all_values(losses, whole.group), logits


def _with_all_values(losses: Mapping[str, Tensor], group: Group) -> dict[str, Tensor]:
    """Give losses the sums of all ranks' shares as values; balancers and guards look at these."""
    if group.size == 1:
        return dict(losses)
    total = group.total(torch.stack([loss.detach() for loss in losses.values()]))
    # Exactly the sum, the same on every rank; added to the difference, it would be rounded.
    return {name: total[i] + (loss - loss.detach()) for i, (name, loss) in enumerate(losses.items())}
