"""Heads of one shape computed together: two products for all tasks, where `Heads` makes two small ones each.

For serving: what is said of five hundred candidates takes less time than starting the operations.

Shape letters: T tasks, B examples, H trunk output, W a head's hidden layer.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from recsys.model.heads import Heads, product_logit


class JointHeads(nn.Module):
    """Gives what `Heads` gives, from copies of its weights."""

    def __init__(self, heads: Heads) -> None:
        """Lay the heads' layers side by side; they are as `can_join` asks for."""
        super().__init__()
        networks = [_layers(heads, spec.name) for spec in heads.specs]
        hidden, score = ([network[at] for network in networks] for at in (0, -1))
        self.specs, self.links = heads.specs, heads.links
        self.hidden_THW = torch.stack([layer.weight.detach().t() for layer in hidden])
        self.hidden_T1W = torch.stack([layer.bias.detach() for layer in hidden]).unsqueeze(1)
        self.score_TW1 = torch.stack([layer.weight.detach().t() for layer in score])
        self.score_T11 = torch.stack([layer.bias.detach() for layer in score]).unsqueeze(1)

    def forward(self, hidden: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map each task's h [B, H] to logits of its marginal: [B], or [B, C] if ordinal."""
        h_TBH = torch.stack([hidden[spec.name] for spec in self.specs])
        h_TBW = torch.baddbmm(self.hidden_T1W, h_TBH, self.hidden_THW).relu_()
        score_TB = torch.baddbmm(self.score_T11, h_TBW, self.score_TW1).squeeze(-1)
        logits: dict[str, Tensor] = {}
        for task, score_B in zip(self.specs, score_TB.unbind(0), strict=True):
            own = self.links[task.name](score_B)
            logits[task.name] = own if task.parent is None else product_logit(logits[task.parent], own)
        return logits


def joined(heads: Heads) -> Heads | JointHeads:
    """Join heads where their shapes allow it; others are returned as they are."""
    return JointHeads(heads) if can_join(heads) else heads


def can_join(heads: Heads) -> bool:
    """Tell whether all heads have one hidden layer, of one width, and none reads another's."""
    networks = [_layers(heads, spec.name) for spec in heads.specs]
    linear = all(len(layers) == 2 for layers in networks)
    return linear and not heads.transfers and len({layers[0].out_features for layers in networks}) == 1


def _layers(heads: Heads, task: str) -> list[nn.Linear]:
    """List a head's linear layers; between them are ReLU, and dropout, which serving has none of."""
    network = heads.heads[task]
    assert isinstance(network, nn.Sequential)
    return [layer for layer in network if isinstance(layer, nn.Linear)]
