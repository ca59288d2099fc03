"""What is computed per candidate of a request: history attention, trunks and heads, over packed item rows.

Equals `Ranker.logits`, in fewer operations: the first layer comes as `FirstLayer` folds it. Everything it
gets is a tensor, so that it can be compiled.

Shape letters: N candidates, W columns of a packed item row, D item row, A attention, L events and an empty
one, K and O as in `first_layer`, P starts, G crosses, C logits of all tasks.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.model.first_layer import FirstLayer
from recsys.model.history import OneHistory
from recsys.model.joint_heads import joined
from recsys.model.ranker import Ranker, UserSide
from recsys.model.trunks.trunk import Trunk


@dataclass(frozen=True, slots=True)
class UserWeights:
    """What the network reads of a user."""

    scores_DX: Tensor
    """An item row's query [A], then its scores [L] with the events; the empty event's is 0."""
    values_LA: Tensor
    first_KO: Tensor


@dataclass(frozen=True, slots=True)
class CandidateInputs:
    """The network's arguments, in their order."""

    rows_NW: Tensor
    places_NG: Tensor
    """Rows of `starts_PO` to add up for each candidate."""
    starts_PO: Tensor
    scores_DX: Tensor
    values_LA: Tensor
    first_KO: Tensor
    past_NF: Tensor
    """What each candidate is told by what its user took before."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """List the arguments."""
        return (
            self.rows_NW,
            self.places_NG,
            self.starts_PO,
            self.scores_DX,
            self.values_LA,
            self.first_KO,
            self.past_NF,
        )


MOST_INSIDE = 64
"""So many starts are added inside a product in a shorter type; of more, each candidate's are picked."""


class CandidateNetwork(nn.Module):
    """Gives the logits [C, N] of a request's candidates: the mean of all members, task after task."""

    def __init__(self, ranker: Ranker) -> None:
        """Share a ranker's trunks and heads."""
        super().__init__()
        self.first_layer, self.first_type = FirstLayer(ranker), torch.float32
        self.trunk_type = torch.float32
        self.trunks = nn.ModuleList(ranker.trunks)
        self.heads = nn.ModuleList(joined(heads) for heads in ranker.every_heads)
        self.num_own = ranker.item_factor.in_features
        self.num_query = ranker.history.query.out_features
        self.query_DA = ranker.history.query.weight.detach().t().contiguous()
        self.widths = [trunk.first_layer().bias_O.shape[0] for trunk in ranker.trunks]
        self.columns = _columns(ranker)
        self.item_numbers, self.term_FC = ranker.item_number_columns, _item_term(ranker, self.columns)

    def with_first_layer_in(self, dtype: torch.dtype) -> "CandidateNetwork":
        """Return a network whose first layer, the largest product, multiplies in another type."""
        other = copy.copy(self)
        other.first_layer, other.first_type = self.first_layer.with_weights_in(dtype), dtype
        return other

    def with_trunks_in(self, dtype: torch.dtype) -> "CandidateNetwork | None":
        """Return a network whose trunks multiply in another type, all layers; None: a trunk has no such form.

        Softmax, heads and what is added up of several members are float32.
        """
        trunks = [trunk.with_upper_layers_in(dtype) for trunk in self.trunks if isinstance(trunk, Trunk)]
        others = [trunk for trunk in trunks if trunk is not None]
        if len(others) < len(self.trunks):
            return None
        other = self.with_first_layer_in(dtype)
        other.trunk_type = dtype
        other._modules = {**self._modules, "trunks": nn.ModuleList(others)}  # the copy shares it otherwise
        return other

    def of_user(self, user: UserSide) -> UserWeights:
        """Compute what depends on the user alone, once per request."""
        assert isinstance(user.history, OneHistory)
        # A row of zeros is the empty event.
        keys_LA = functional.pad(user.history.keys_LA, (0, 0, 1, 0))
        scores_DL = self.query_DA @ keys_LA.t() / self.num_query**0.5
        return UserWeights(
            scores_DX=torch.cat([self.query_DA, scores_DL], dim=1),
            values_LA=functional.pad(user.history.values_LA, (0, 0, 1, 0)),
            first_KO=self.first_layer.weights(user),
        )

    def forward(
        self,
        rows_NW: Tensor,
        places_NG: Tensor,
        starts_PO: Tensor,
        scores_DX: Tensor,
        values_LA: Tensor,
        first_KO: Tensor,
        past_NF: Tensor,
    ) -> Tensor:
        """Score candidates [C, N]; the arguments are those of `CandidateInputs`."""
        query_score_NX = rows_NW[:, : self.num_own] @ scores_DX
        query_NA = query_score_NX[:, : self.num_query]
        attended_NA = query_score_NX[:, self.num_query :].softmax(dim=1) @ values_LA
        parts = [rows_NW, attended_NA, attended_NA * query_NA, past_NF]
        firsts = self._first(parts, places_NG, starts_PO, first_KO).split_with_sizes(self.widths, 1)
        members = [self._member(n, first) for n, first in enumerate(firsts)]
        logits_CN = torch.cat([_mean([m[task] for m in members]) for task in self.columns])
        if self.term_FC is None:
            return logits_CN
        return logits_CN + (rows_NW[:, self.item_numbers] @ self.term_FC).t()

    def _first(self, parts: list[Tensor], places_NG: Tensor, starts_PO: Tensor, first_KO: Tensor) -> Tensor:
        """Give the first layer's outputs [N, O] of the columns [N, K] that the parts are.

        In a shorter type a start is two rows of the weights: itself, rounded, and what rounding left. They
        are added inside the product, whose sums are float32: a pass over the outputs of its own would take
        a third of the product's time, and round once more. Many starts, as of a user with counts by the item
        itself, would be most of the product.
        """
        if self.first_type == torch.float32:
            return _started(starts_PO, places_NG).addmm_(torch.cat(parts, dim=1), first_KO)
        if len(starts_PO) > MOST_INSIDE:
            product_NO = torch.cat(parts, dim=1).to(self.first_type) @ first_KO.to(self.first_type)
            return (_started(starts_PO, places_NG) + product_NO).to(self.trunk_type)
        rounded_PO = starts_PO.to(self.first_type)
        left_PO = (starts_PO - rounded_PO).to(self.first_type)
        picks_PQ = torch.eye(len(starts_PO), device=starts_PO.device).repeat(1, 2)
        x_NK = torch.cat([*parts, _started(picks_PQ, places_NG)], dim=1).to(self.first_type)
        first_NO: Tensor = x_NK @ torch.cat([first_KO.to(self.first_type), rounded_PO, left_PO])
        return first_NO.to(self.trunk_type)

    def _member(self, number: int, first_NO: Tensor) -> dict[str, Tensor]:
        """Give one member's logits per task."""
        trunk = self.trunks[number]
        assert isinstance(trunk, Trunk)
        logits: dict[str, Tensor] = self.heads[number](trunk.above(first_NO))
        return logits

    def split(self, logits_CN: np.ndarray) -> dict[str, np.ndarray]:
        """Give each task's logits, [N] or, of levels, [N, C]."""
        found = {task: logits_CN[at] for task, at in self.columns.items()}
        return {task: logits if logits.ndim == 1 else logits.T for task, logits in found.items()}


def _started(starts_PO: Tensor, places_NG: Tensor) -> Tensor:
    """Add up each candidate's starts [N, O]."""
    num, num_crosses = places_NG.shape
    if num_crosses == 0:
        return starts_PO.repeat(num, 1)
    if num_crosses == 1:
        return starts_PO.index_select(0, places_NG.flatten())
    return functional.embedding_bag(places_NG, starts_PO, mode="sum")


def _mean(logits: Sequence[Tensor]) -> Tensor:
    """Average the members' logits [N] or [N, C]: [1, N] or [C, N]."""
    mean = logits[0] if len(logits) == 1 else torch.stack(list(logits)).mean(dim=0)
    return mean.unsqueeze(0) if mean.dim() == 1 else mean.t()


def _columns(ranker: Ranker) -> dict[str, int | slice]:
    """Say where each task's logits are: one row, or several of levels."""
    none = torch.zeros(0, ranker.trunk.num_out, device=ranker.position.weight.device)
    found: dict[str, int | slice] = {}
    start = 0
    for task, logits in ranker.heads({spec.name: none for spec in ranker.specs}).items():
        num = 1 if logits.dim() == 1 else logits.shape[1]
        found[task] = start if logits.dim() == 1 else slice(start, start + num)
        start += num
    return found


def _item_term(ranker: Ranker, columns: Mapping[str, int | slice]) -> Tensor | None:
    """Lay out the ranker's terms of an item by logit [F, C]; None: it has none."""
    if not ranker.has_item_term:
        return None
    term_FT = ranker.item_term_FT
    widths = [1 if isinstance(at, int) else at.stop - at.start for at in columns.values()]
    parts = [
        term_FT[:, k : k + 1] if width == 1 else term_FT.new_zeros(term_FT.shape[0], width)
        for k, width in enumerate(widths)
    ]
    return torch.cat(parts, dim=1)
