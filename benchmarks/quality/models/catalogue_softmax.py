"""Start vectors from a softmax over the whole catalogue: which of all items does a user have besides these?

A part of a user's items is the bag, the others are to be told from all the rest: one matrix product scores a
whole catalogue, so a pass over the users costs a second where the heads' pairs with negatives cost a minute.
Source: multinomial likelihood of Liang et al., WWW 2018; hidden items as in Wu et al., WSDM 2016.

Shape letters: V users of a batch, I items, D embedding.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.quality.models.pair_data import Pairs
from benchmarks.quality.models.pair_model import PairModel
from benchmarks.quality.models.pair_ranker import OTHERS
from benchmarks.quality.models.tabular_ranker import COLUMNS, WIDE


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftmaxSetting:
    """How the start is trained."""

    epochs: int = 50
    users: int = 256
    """Of a batch."""
    hidden: float = 0.2
    dropout: float = 0.2
    learning_rate: float = 0.01
    penalty: float = 0.003
    """On the mean squared lengths of the users' and the items' vectors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Vectors of items as candidates and as parts of a bag [I, D], and the candidates' biases [I]."""

    items: Tensor
    others: Tensor
    biases: Tensor
    level: float
    """Mean over users of log Σ exp(score): what turns scores into log-probabilities."""

    def put(self, model: PairModel, task: str, num_negatives: int) -> None:
        """Make a new model's ranking by one task the softmax's own: other columns say nothing yet."""
        weight, items = model.tables.weight, torch.from_numpy(model.sides.item_ids[:, 0])
        weight[COLUMNS].zero_()
        weight[COLUMNS][items] = self.items
        weight[OTHERS].zero_()
        weight[OTHERS][: items.numel()] = self.others
        own = [t.name for t in model.tasks].index(task)
        weight[WIDE].zero_()
        weight[WIDE][items, own] = self.biases
        model.ranker.product.data.zero_()
        model.ranker.product.data[:, own] = 1.0
        for name in (t.name for t in model.tasks):
            torch.nn.init.zeros_(model.ranker.heads.heads[name][-1].weight)  # type: ignore[index]
            torch.nn.init.zeros_(model.ranker.heads.heads[name][-1].bias)  # type: ignore[index]
        # Beside m uniform negatives a positive, the best logit is log p(item | user) + log(items / m).
        offset = math.log(items.numel() / num_negatives) - self.level
        torch.nn.init.constant_(model.ranker.heads.heads[task][-1].bias, offset)  # type: ignore[index]


def softmax_start(
    positives: Pairs, shape: tuple[int, int], dim: int, setting: SoftmaxSetting, seed: int
) -> Start:
    """Learn the start; args: positives: users' items; shape: users, items."""
    generator = torch.Generator().manual_seed(seed)
    matrix_UI = torch.zeros(shape)
    matrix_UI[torch.from_numpy(positives.user), torch.from_numpy(positives.item)] = 1.0
    popular_I = torch.log(matrix_UI.sum(dim=0) + 1)
    item_ID, other_ID = (0.1 * torch.randn(shape[1], dim, generator=generator) for _ in range(2))
    parameters = [p.requires_grad_() for p in (item_ID, other_ID, popular_I - popular_I.mean())]
    optimiser = torch.optim.Adam(parameters, lr=setting.learning_rate)
    size = min(setting.users, shape[0])
    steps = setting.epochs * (shape[0] // size)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.1, steps)
    for _ in range(setting.epochs):
        order = torch.randperm(shape[0], generator=generator)
        for first in range(0, shape[0] - size + 1, size):
            loss = _loss(matrix_UI[order[first : first + size]], parameters, setting, generator)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    item_ID, other_ID, bias_I = (p.detach() for p in parameters)
    scores_UI = _pooled(matrix_UI, other_ID) @ item_ID.T + bias_I
    level = float(scores_UI.logsumexp(dim=1).mean())
    return Start(items=item_ID, others=other_ID, biases=bias_I, level=level)


def softmax_scores(start: Start, positives: Pairs, shape: tuple[int, int]) -> np.ndarray:
    """Score the whole catalogue from all of users' items: float32 [U, I]."""
    matrix_UI = torch.zeros(shape)
    matrix_UI[torch.from_numpy(positives.user), torch.from_numpy(positives.item)] = 1.0
    scores: np.ndarray = (_pooled(matrix_UI, start.others) @ start.items.T + start.biases).numpy()
    return scores


def _loss(
    matrix_VI: Tensor, parameters: list[Tensor], setting: SoftmaxSetting, generator: torch.Generator
) -> Tensor:
    item_ID, other_ID, bias_I = parameters
    hidden_VI = matrix_VI * (torch.rand(matrix_VI.shape, generator=generator) < setting.hidden)
    shown_VI = matrix_VI - hidden_VI
    user_VD = _pooled(shown_VI, other_ID)
    kept_VD = (torch.rand(user_VD.shape, generator=generator) >= setting.dropout) / (1 - setting.dropout)
    user_VD = user_VD * kept_VD
    logits_VI = (user_VD @ item_ID.T + bias_I).masked_fill(shown_VI > 0, -torch.inf)
    found = torch.where(hidden_VI > 0, logits_VI.log_softmax(dim=1), 0.0).sum()
    lengths = user_VD.square().sum(dim=1).mean() + sum(
        p.square().sum(dim=1).mean() for p in (item_ID, other_ID)
    )
    return setting.penalty * lengths - found / hidden_VI.sum().clamp(min=1)


def _pooled(matrix_VI: Tensor, other_ID: Tensor) -> Tensor:
    return (matrix_VI @ other_ID) / matrix_VI.sum(dim=1, keepdim=True).clamp(min=1).sqrt()
