"""Logits, labels, observed -> one loss per task, and the two towers' retrieval loss."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from recsys.batch import Batch
from recsys.model.head_functions import head_loss
from recsys.model.ranker import ItemSide, Ranker, UserSide
from recsys.tasks import TaskSpec

MAX_IPS_WEIGHT = 10.0
"""Inverse-propensity weights are clipped to [1 / this, this] times the mean weight."""


def task_losses(logits: Mapping[str, Tensor], batch: Batch, tasks: Sequence[TaskSpec]) -> dict[str, Tensor]:
    """Average each task's loss over its observed examples; a task observed nowhere gives 0.

    Args: logits: per task, and per debiased task those of being observed (`TaskSpec.observation`). Of M
    members each row counts once per member: a task's logits are [M · B], and its loss the members' mean.
    """
    losses: dict[str, Tensor] = {}
    for task in tasks:
        members = logits[task.name].shape[0] // batch.size
        observed, label = batch.observed[task.name].repeat(members), batch.labels[task.name].repeat(members)
        loss_B = head_loss(logits[task.name], label, task)
        if task.debias == "ips":
            losses[task.name] = ips_mean(loss_B, observed, logits[task.observation].repeat(members))
        else:
            losses[task.name] = torch.where(observed, loss_B, 0.0).sum() / observed.sum().clamp(min=1)
    return losses


def ips_mean(loss_B: Tensor, observed_B: Tensor, observation_B: Tensor) -> Tensor:
    """Average observed losses by inverse propensity: for labels that are missing not at random.

    The value is the average alone; its gradient also teaches the propensities p = sigmoid(observation) to be
    the share of examples observed. Weights are mean(p) / p, clipped, so relative to an average example, and
    self-normalised. A batch in which nothing is observed has no gradient: its labels are not due yet.

    Args: loss_B, observed_B (bool), observation_B: [B].
    Source: Schnabel et al., ICML 2016; self-normalised: Swaminathan & Joachims, NeurIPS 2015.
    """
    log_p_B = functional.logsigmoid(observation_B.detach())
    weight_B = (log_p_B.exp().mean().log() - log_p_B).exp().clamp(1 / MAX_IPS_WEIGHT, MAX_IPS_WEIGHT)
    weight_B = torch.where(observed_B, weight_B, 0.0)
    mean = torch.where(observed_B, weight_B * loss_B, 0.0).sum() / weight_B.sum().clamp(min=1e-6)
    fitting = functional.binary_cross_entropy_with_logits(observation_B, observed_B.to(observation_B.dtype))
    fitting = fitting * observed_B.any()
    return mean + (fitting - fitting.detach())


def retrieval_loss(
    ranker: Ranker,
    batch: Batch,
    rows: Mapping[str, Tensor],
    user: UserSide,
    item: ItemSide,
    task: str,
    temperature: float,
) -> Tensor:
    """Sampled softmax of each positive against the step's other positives and uniform catalogue items.

    Logits are s / τ - log(expected copies in the candidate set); duplicates of the positive and the user's
    other positives are masked. Source: Yi et al., RecSys 2019; mixed negatives: Yang et al., WWW 2020.
    """
    negatives = batch.negatives
    positive = (batch.observed[task] & (batch.labels[task] > 0.5)).nonzero().squeeze(1)
    if negatives is None or positive.numel() == 0:
        return user.embedding_BD.new_zeros((), dtype=torch.float32)
    drawn = ranker.item_side(
        ranker.looked_up(negatives, rows, "item"),
        negatives.numbers_MF,
        negatives.text_MT,
    )
    candidates_CD = torch.cat([item.embedding_BD[positive].float(), drawn.embedding_BD])
    share_C = torch.cat([negatives.share_B[positive], negatives.share_M])
    correction_C = torch.log(share_C * positive.numel() + negatives.uniform)
    logits_PC = user.embedding_BD[positive].float() @ candidates_CD.T / temperature - correction_C
    item_P, user_P = negatives.item_B[positive], negatives.user_B[positive]
    same_item = item_P[:, None] == torch.cat([item_P, negatives.item_M])[None, :]
    other_positive = functional.pad(user_P[:, None] == user_P[None, :], (0, negatives.item_M.numel()))
    own = torch.eye(*logits_PC.shape, dtype=torch.bool, device=logits_PC.device)
    logits_PC = logits_PC.masked_fill((same_item | other_positive) & ~own, -torch.inf)
    return functional.cross_entropy(logits_PC, torch.arange(positive.numel(), device=logits_PC.device))
