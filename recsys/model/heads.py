"""Heads: one small network per task on its hidden vector, and the connections between tasks.

A child's logit is already the logit of the entire-space product p(child) = p(parent) · p(child | parent)
(ESMM: Ma et al., SIGIR 2018), so losses, calibration and metrics see one marginal per task.

Shape letters: B examples, H trunk output, W a head's last layer, V that of an earlier head, C thresholds.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from recsys.model.head_functions import build_link
from recsys.model.layers import TaskModules, mlp
from recsys.shapes import HeadSpec


class Heads(nn.Module):
    """One network per task, the parent products, and the transfer from earlier tasks."""

    def __init__(self, tasks: Sequence[HeadSpec], num_in: int, hidden: int) -> None:
        """Build the heads; `hidden` is the one layer of a task that sets none. Earlier tasks come first."""
        super().__init__()
        self.specs = tuple(tasks)
        layers = {t.name: (hidden,) if t.hidden is None else t.hidden for t in tasks}
        width = {name: widths[-1] if widths else num_in for name, widths in layers.items()}
        self.heads = TaskModules(
            {t.name: nn.Sequential(*mlp(num_in, layers[t.name]), nn.Linear(width[t.name], 1)) for t in tasks}
        )
        self.links = TaskModules({t.name: build_link(t) for t in tasks})
        self.transfers = TaskModules(
            {
                t.name: Transfer(width[t.transfer_from], width[t.name])
                for t in tasks
                if t.transfer_from is not None
            }
        )

    def forward(
        self, hidden: Mapping[str, Tensor], bias: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Map each task's h [B, H] and bias [B] to logits of its marginal: [B], or [B, C] if ordinal."""
        logits: dict[str, Tensor] = {}
        last: dict[str, Tensor] = {}
        for task in self.specs:
            network = self.heads[task.name]
            assert isinstance(network, nn.Sequential)
            *layers, score = network
            h = hidden[task.name]
            for layer in layers:
                h = layer(h)
            if task.transfer_from is not None:
                h = self.transfers[task.name](h, last[task.transfer_from])
            last[task.name] = h
            score_B = score(h).squeeze(-1)
            own = self.links[task.name](score_B if bias is None else score_B + bias[task.name])
            logits[task.name] = own if task.parent is None else product_logit(logits[task.parent], own)
        return logits

    def own_parameters(self, task: str) -> list[nn.Parameter]:
        """Return the parameters of one task's head."""
        parts = (
            self.heads[task],
            self.links[task],
            *([self.transfers[task]] if task in self.transfers else []),
        )
        return [p for part in parts for p in part.parameters()]


class Transfer(nn.Module):
    """Adaptive information transfer: weigh an earlier task's hidden vector against one's own, per example.

    Source: Xi et al., KDD 2021 (AITM), equations 4 to 6. Their calibrator term, which only asks that a
    later probability be below the earlier one, is what `parent` guarantees.
    """

    def __init__(self, num_from: int, width: int) -> None:
        """Build the projection of the earlier vector and the attention's three maps."""
        super().__init__()
        self.inform = nn.Sequential(nn.Linear(num_from, width), nn.ReLU())
        self.value, self.query, self.key = (nn.Linear(width, width) for _ in range(3))

    def forward(self, own_BW: Tensor, earlier_BV: Tensor) -> Tensor:
        """Mix both [B, W] by softmax of their own query · key."""
        pair_B2W = torch.stack([self.inform(earlier_BV), own_BW], dim=1)
        score_B2 = (self.query(pair_B2W) * self.key(pair_B2W)).sum(dim=2) / own_BW.shape[1] ** 0.5
        mixed_BW: Tensor = (score_B2.softmax(dim=1).unsqueeze(-1) * self.value(pair_B2W)).sum(dim=1)
        return mixed_BW


def product_logit(parent_B: Tensor, conditional_B: Tensor) -> Tensor:
    """Return logit(sigmoid(parent) · sigmoid(conditional)), exact at both ends.

    For p = 1 / ((1 + e^-a)(1 + e^-b)) the odds (1 - p) / p are e^-a + e^-b + e^-(a+b).
    """
    a_B, b_B = parent_B, conditional_B
    return -torch.logsumexp(torch.stack([-a_B, -b_B, -a_B - b_B]), dim=0)
