"""Functions of the head kinds: links, losses, and how logits become predictions before calibration.

`recsys.head_kinds.HEAD_KINDS` names them. Every head gives one score per example. A link makes logits of it:
the score itself, or, for levels, one logit per threshold. The distribution over levels is then in the logits,
and nothing else need be known.

Shape letters: B examples, C thresholds (one fewer than levels).
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.resolve import resolve
from recsys.shapes import HeadSpec

FOCUS = 2.0
"""Exponent of the focal loss (γ in Lin et al., ICCV 2017)."""
MIN_GAP = 1e-3
"""Least distance of two thresholds, so that every level has a positive probability."""


def build_link(task: HeadSpec) -> nn.Module:
    """Build what turns the task's score [B] into logits, [B] or [B, C]."""
    link: nn.Module = resolve(task.kind.link)(task)
    return link


def head_loss(logits: Tensor, label_B: Tensor, task: HeadSpec) -> Tensor:
    """Return the loss [B] that the task chose."""
    loss: Callable[[Tensor, Tensor, HeadSpec], Tensor] = resolve(task.kind.losses[task.loss_name])
    return loss(logits, label_B, task)


def predict(logits: np.ndarray, task: HeadSpec) -> np.ndarray:
    """Turn logits [N] or [N, C] into predictions [N] before calibration, of the logits' precision."""
    values: Tensor = resolve(task.kind.predict)(torch.from_numpy(np.ascontiguousarray(logits)), task)
    prediction: np.ndarray = values.numpy()
    return prediction


def score_itself(task: HeadSpec) -> nn.Module:
    """Use the score as the logit."""
    del task
    return nn.Identity()


class CumulativeLink(nn.Module):
    """Turn a score into logits of P(value above level c): score - θ_c, with θ rising by construction.

    Source: McCullagh, JRSS B 1980 (proportional odds).
    """

    def __init__(self, task: HeadSpec) -> None:
        """Start with all levels equally likely at score 0."""
        super().__init__()
        shares = [c / task.num_levels for c in range(1, task.num_levels)]
        start_C = torch.tensor([math.log(s / (1 - s)) for s in shares])
        self.first = nn.Parameter(start_C[:1].clone())
        self.gaps = nn.Parameter(torch.log(torch.expm1(start_C.diff() - MIN_GAP)))

    def forward(self, score_B: Tensor) -> Tensor:
        """Return logits [B, C], falling along C."""
        rises_C = functional.softplus(self.gaps) + MIN_GAP
        thresholds_C = torch.cat([self.first, self.first + rises_C.cumsum(dim=0)])
        return score_B.unsqueeze(-1) - thresholds_C


def probability(logits_B: Tensor, task: HeadSpec) -> Tensor:
    """Return the sigmoid of the logit."""
    del task
    return logits_B.sigmoid()


def cross_entropy(logits_B: Tensor, label_B: Tensor, task: HeadSpec) -> Tensor:
    """Return the cross-entropy; a label between 0 and 1 is a probability."""
    del task
    return functional.binary_cross_entropy_with_logits(logits_B, label_B, reduction="none")


def focal(logits_B: Tensor, label_B: Tensor, task: HeadSpec) -> Tensor:
    """Give correct predictions less weight. It pulls predictions towards 1/2; calibration corrects this."""
    del task
    p_B = logits_B.sigmoid()
    positive_B = (1 - p_B) ** FOCUS * functional.softplus(-logits_B)
    negative_B = p_B**FOCUS * functional.softplus(logits_B)
    return label_B * positive_B + (1 - label_B) * negative_B


def _error(logits_B: Tensor, label_B: Tensor, task: HeadSpec) -> Tensor:
    # In units of a quarter of the range, so that weights mean the same for stars and for percentages.
    return (value(logits_B, task) - label_B) / ((task.high - task.low) / 4)


def squared_error(logits_B: Tensor, label_B: Tensor, task: HeadSpec) -> Tensor:
    """Return the square of the error, in quarters of the range."""
    return _error(logits_B, label_B, task).square()


def absolute_error(logits_B: Tensor, label_B: Tensor, task: HeadSpec) -> Tensor:
    """Return the absolute error, in quarters of the range."""
    return _error(logits_B, label_B, task).abs()


def huber(logits_B: Tensor, label_B: Tensor, task: HeadSpec) -> Tensor:
    """Square errors up to a quarter of the range (one of five stars), and grow linearly beyond."""
    error_B = _error(logits_B, label_B, task)
    return functional.huber_loss(error_B, torch.zeros_like(error_B), reduction="none")


def value(logits_B: Tensor, task: HeadSpec) -> Tensor:
    """Place logit 0 in the middle of the range; two units reach an end."""
    return (task.low + task.high) / 2 + logits_B * (task.high - task.low) / 4


def likelihood(logits_BC: Tensor, label_B: Tensor, task: HeadSpec) -> Tensor:
    """Return -log P(level of the label); a label between two levels counts for both by its distance."""
    place_B = ((label_B - task.low) / task.step).clamp(0, task.num_levels - 1)
    lower_B = place_B.floor()
    share_B = place_B - lower_B
    log_p = log_level_probabilities(logits_BC)
    low_B = log_p.gather(1, lower_B.long().unsqueeze(1)).squeeze(1)
    high_B = log_p.gather(1, place_B.ceil().long().unsqueeze(1)).squeeze(1)
    return -((1 - share_B) * low_B + share_B * high_B)


def log_level_probabilities(logits_BC: Tensor) -> Tensor:
    """Return log P(level) [B, C + 1] of cumulative logits that fall along C, exact at both ends.

    For a > b: σ(a) - σ(b) = σ(a) · σ(-b) · (1 - e^(b - a)).
    """
    inner = functional.logsigmoid(logits_BC[:, :-1]) + functional.logsigmoid(-logits_BC[:, 1:])
    gaps = (logits_BC[:, :-1] - logits_BC[:, 1:]).clamp(
        min=MIN_GAP / 2
    )  # float32 of a huge score rounds gaps off
    middle = inner + torch.log(-torch.expm1(-gaps))
    lowest, highest = functional.logsigmoid(-logits_BC[:, :1]), functional.logsigmoid(logits_BC[:, -1:])
    return torch.cat([lowest, middle, highest], dim=1)


def expected_level(logits_BC: Tensor, task: HeadSpec) -> Tensor:
    """Return low + step · Σ P(value above level c): the mean of the distribution over levels."""
    return task.low + task.step * logits_BC.sigmoid().sum(dim=-1)
