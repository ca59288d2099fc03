"""Cross-entropy over sampled candidates: forward and backward written by hand, with one [P, C] tensor.

Shape letters: P positives, C candidates, D dimensions.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def sampled_softmax(
    user_PD: Tensor, item_CD: Tensor, correction_C: Tensor, hidden_PC: Tensor, place_P: Tensor
) -> Tensor:
    """Sum -log softmax(user · item - correction) of each positive's own candidate, without the hidden ones.

    Args: place_P: which candidate is a positive's own; correction_C gets no gradient.
    """
    loss: Tensor = _SampledSoftmax.apply(user_PD, item_CD, correction_C, hidden_PC, place_P)  # type: ignore[no-untyped-call]
    return loss


class _SampledSoftmax(torch.autograd.Function):
    """Takes several backward passes over one forward, no second derivative."""

    @staticmethod
    def forward(
        ctx: Any, user_PD: Tensor, item_CD: Tensor, correction_C: Tensor, hidden_PC: Tensor, place_P: Tensor
    ) -> Tensor:
        share_PC = torch.addmm(correction_C, user_PD, item_CD.t(), beta=-1)
        share_PC.masked_fill_(hidden_PC, -torch.inf)
        own_P1, total_P1 = share_PC.gather(1, place_P[:, None]), share_PC.logsumexp(dim=1, keepdim=True)
        share_PC.sub_(total_P1).exp_()
        ctx.save_for_backward(user_PD, item_CD, share_PC, place_P)
        return (total_P1 - own_P1).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        user_PD, item_CD, share_PC, place_P = ctx.saved_tensors
        of_user_PD = (share_PC @ item_CD).sub_(item_CD.index_select(0, place_P))
        of_item_CD = (share_PC.t() @ user_PD).index_add_(0, place_P, user_PD, alpha=-1)
        return of_user_PD.mul_(grad), of_item_CD.mul_(grad), None, None, None
