"""Logits, labels, observed -> one loss per task, and the two towers' retrieval loss."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from recsys.batch import Batch, ListPairs
from recsys.model.head_functions import head_loss
from recsys.model.history import Histories
from recsys.model.layers import unit_length
from recsys.model.ranker import ItemSide, Ranker, UserSide
from recsys.shapes import HeadSpec
from training.sampled_softmax import sampled_softmax
from training.trainer.group import ALONE, Group, gathered
from training.trainer.whole_batch import WholeBatch, whole_batch

MAX_IPS_WEIGHT = 10.0
"""Inverse-propensity weights are clipped to [1 / this, this] times the mean weight."""


def task_losses(
    logits: Mapping[str, Tensor], batch: Batch, tasks: Sequence[HeadSpec], whole: WholeBatch | None = None
) -> dict[str, Tensor]:
    """Average each task's loss over its observed examples; a task observed nowhere gives 0.

    The order inside lists, where it has a weight, is added to a task's loss, per observed example too.

    Args: logits: per task, and per debiased task those of being observed (`HeadSpec.observation`). Of M
    members each row counts once per member: a task's logits are [M · B], and its loss the members' mean.
    whole: the batch of which this is a rank's slice, default this one; each rank gives its share of the mean
    over the examples of all.
    """
    losses: dict[str, Tensor] = {}
    whole = whole or whole_batch(batch, tasks)
    for task, count in zip(tasks, whole.observed, strict=True):
        members = logits[task.name].shape[0] // max(1, batch.size)
        observed, label = batch.observed[task.name], batch.labels[task.name]
        if members > 1:
            observed, label = observed.repeat(members), label.repeat(members)
        loss_B = head_loss(logits[task.name], label, task)
        if task.debias == "ips":
            observation_B = logits[task.observation].repeat(members)
            losses[task.name] = ips_mean(loss_B, observed, observation_B, whole.group)
        else:
            losses[task.name] = torch.where(observed, loss_B, 0.0).sum() / (members * count).clamp(min=1)
        pairs = batch.pairs.get(task.name) if task.list_weight else None
        if pairs is not None and pairs.weight_P.numel():
            order = list_loss(logits[task.name].view(members, -1), pairs) / count.clamp(min=1)
            losses[task.name] = losses[task.name] + task.list_weight * order
    return losses


def list_loss(logits_MB: Tensor, pairs: ListPairs) -> Tensor:
    """Add up -log σ(logit of the positive - logit of the negative), by weight; the mean of M members.

    Of two rows with one positive, the positive is the first by σ(difference of their true log-odds). So where
    the log loss is least this is least, too: one logit learns the order and stays calibrated. With every
    misordered pair counted as 1 it is 1 - AUC, list by list.

    Args: logits_MB: of a member each.
    Source: conditional likelihood of matched cases, Breslow & Day 1980; RankNet, Burges et al., ICML 2005;
    beside a log loss: Sheng et al., KDD 2023; Bai et al., 2022.
    """
    ahead_MP = logits_MB[:, pairs.positive_P] - logits_MB[:, pairs.negative_P]
    return (functional.softplus(-ahead_MP) * pairs.weight_P).sum() / logits_MB.shape[0]


def ips_mean(loss_B: Tensor, observed_B: Tensor, observation_B: Tensor, group: Group = ALONE) -> Tensor:
    """Average observed losses by inverse propensity: for labels that are missing not at random.

    The value is the average alone; its gradient also teaches the propensities p = sigmoid(observation) to be
    the share of examples observed. Weights are mean(p) / p, clipped, so relative to an average example, and
    self-normalised. A batch in which nothing is observed has no gradient: its labels are not due yet.

    Args: loss_B, observed_B (bool), observation_B: [B].
    Source: Schnabel et al., ICML 2016; self-normalised: Swaminathan & Joachims, NeurIPS 2015.
    """
    log_p_B = functional.logsigmoid(observation_B.detach())
    shown_B = observed_B.to(observation_B.dtype)
    sums = torch.stack([log_p_B.exp().sum(), shown_B.sum(), torch.ones_like(shown_B).sum()])
    sum_p, num_observed, num = group.total(sums)
    weight_B = ((sum_p / num).log() - log_p_B).exp().clamp(1 / MAX_IPS_WEIGHT, MAX_IPS_WEIGHT)
    weight_B = torch.where(observed_B, weight_B, 0.0)
    mean = torch.where(observed_B, weight_B * loss_B, 0.0).sum() / group.total(weight_B.sum()).clamp(min=1e-6)
    fitting = functional.binary_cross_entropy_with_logits(observation_B, shown_B, reduction="sum") / num
    fitting = fitting * (num_observed > 0)
    share: Tensor = mean + (fitting - fitting.detach())
    return share


def retrieval_loss(
    ranker: Ranker,
    batch: Batch,
    rows: Mapping[str, Tensor],
    user: UserSide,
    item: ItemSide,
    temperature: float,
    whole: WholeBatch | None = None,
) -> Tensor:
    """Sampled softmax of each positive against the step's other positives and uniform catalogue items.

    Logits are s / τ - log(expected copies in the candidate set); duplicates of the positive and the user's
    other positives are masked. Of several ranks each has its own positives and uniform items, and all are
    candidates of all. Source: Yi et al., RecSys 2019; mixed negatives: Yang et al., WWW 2020.
    """
    negatives = batch.negatives
    if negatives is None or negatives.num_positives == 0:
        return user.embedding_BD.new_zeros((), dtype=torch.float32)
    positive, count = negatives.positive_P, negatives.num_positives
    whole = whole or whole_batch(batch, ())
    group, known = whole.group, whole.candidates
    known_CK, before = torch.cat(list(known)), sum(len(part) for part in known[: group.rank])
    item_C, user_C, is_positive_C = known_CK[:, 0], known_CK[:, 1], known_CK[:, 2] > 0
    drawn = ranker.item_side(
        ranker.looked_up(negatives, rows, "item"),
        negatives.numbers_MF,
        negatives.text_MT,
    )
    vectors_CD = torch.cat([item.embedding_BD[positive].float(), drawn.embedding_BD.float()])
    share_C = torch.cat([negatives.share_B[positive], negatives.share_M])
    candidates_CD = gathered(torch.cat([vectors_CD, share_C[:, None]], dim=1), group)
    candidates_CD, share_C = candidates_CD[:, :-1], candidates_CD[:, -1].detach()
    correction_C = torch.log(share_C * count + negatives.uniform)
    place_P = before + torch.arange(positive.numel(), device=item_C.device)
    hidden_PC = item_C[place_P][:, None] == item_C
    hidden_PC |= (user_C[place_P][:, None] == user_C) & is_positive_C
    hidden_PC.scatter_(1, place_P[:, None], value=False)
    user_PD = user.embedding_BD[positive].float() / temperature
    return sampled_softmax(user_PD, candidates_CD, correction_C, hidden_PC, place_P) / count


def next_item_loss(
    ranker: Ranker,
    batch: Batch,
    rows: Mapping[str, Tensor],
    user: UserSide,
    temperature: float,
    whole: WholeBatch,
) -> Tensor:
    """Average the sampled softmax of what came next, over every event of the day that is learned.

    An event's state, as the newest, is compared with the step's other next items and the uniform catalogue
    items. Corrections are as in `retrieval_loss`. Each rank has its share, by its share of the examples, and
    candidates of its own: several ranks make another loss than one, if of the same softmax.
    Source: Kang & McAuley, ICDM 2018, with the softmax of `retrieval_loss`.
    """
    index, negatives = batch.history.sequences, batch.negatives
    if index is None or index.next_items is None or negatives is None:
        return user.embedding_BD.new_zeros((), dtype=torch.float32)
    of = index.next_items
    following = ranker.item_side(ranker.looked_up(of, rows, "item"), of.numbers_TF, of.text_TT)
    drawn = ranker.item_side(
        ranker.looked_up(negatives, rows, "item"), negatives.numbers_MF, negatives.text_MT
    )
    candidates_CD = torch.cat([following.embedding_BD.float(), drawn.embedding_BD.float()])
    share_C, num = torch.cat([of.share_T, negatives.share_M]), of.event_P.numel()
    # An item is there once for being a next item of any of the events, and as often as it is drawn.
    correction_C = torch.log(1 - (1 - share_C) ** num + negatives.uniform)
    item_C = torch.cat([of.item_T, negatives.item_M])
    hidden_PC = of.item_T[of.place_P][:, None] == item_C
    hidden_PC.scatter_(1, of.place_P[:, None], value=False)
    user_PD = _vectors_after(ranker, user, of.event_P) / temperature
    loss = sampled_softmax(user_PD, candidates_CD, correction_C, hidden_PC, of.place_P) / num
    return loss * (batch.num_shown / max(1, whole.rows))


def _vectors_after(ranker: Ranker, user: UserSide, event_P: Tensor) -> Tensor:
    """Give unit vectors [P, D]: what events, as the newest, add to their user's embedding."""
    assert isinstance(user.history, Histories), "a user alone is not trained on"
    assert user.history.newest_SA is not None, "histories are read as sequences"
    of_history = ranker.user_factor.weight[:, -ranker.history.query.out_features :]
    return unit_length(user.history.newest_SA.index_select(0, event_P).float() @ of_history.t())
