"""The trunks' first layer for one request: what the user alone decides is computed once, not per candidate.

x of `Ranker.trunk_input` has the user's and the context's inputs, which all candidates share, and products of
the user with the item. Given the user, these are linear in what the item says, so they become weights of the
item's own columns, and columns of sums become part of the weights of what they sum:

    (user, context, crosses) · W                  a start [P, O], a row per group of the user's aggregates
    own · W_own + (id * own) · W_ids            = own · (W_own + id * W_ids)
    (e_user * e_item) · W_e                     = e_item · (e_user * W_e)
    (a * b) · W + sum(a * b) · w                = (a * b) · (W + w)

What the user's past says of a candidate is a number of each candidate's own, and stays a column.

Shape letters: I inputs of x, K columns that are left of it, O outputs of the first layer of all members,
W columns of a packed item row, D embedding, A attention, P starts, C context, F cross numbers.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from recsys.model.layers import Linears
from recsys.model.ranker import Ranker, UserSide


class FirstLayer:
    """The first layer of a ranker's trunks, cut by what its columns read; on the ranker's device."""

    def __init__(self, ranker: Ranker) -> None:
        inputs, d = ranker.inputs, ranker.item_factor.in_features
        a, e = ranker.history.query.out_features, ranker.item_factor.out_features
        layer = Linears.cat([trunk.first_layer() for trunk in ranker.trunks])
        num_context = sum(dim for *_, dim in inputs.context_tables) + inputs.num_context_numbers
        num_other = ranker.num_item_in - d
        # In the order of `Ranker.trunk_input`.
        num_past = inputs.num_past_numbers
        num_cross = inputs.num_pair_numbers - num_past
        sides = [ranker.num_user_in, d, num_other, num_context, num_cross, num_past]
        parts = layer.weight_IO.split_with_sizes([*sides, a, a, e, d, 1, 1, 1])
        user, own, other, context, cross, past, attended, product, *others = parts
        embedding, ids, of_e, of_ids, of_product = others
        self._bias_O = layer.bias_O
        self._shared_SO = torch.cat([user, context])
        self._cross_FO = cross.contiguous()
        self._own_DO, self._ids_DO = own.contiguous(), ids + of_ids
        self._embedding_DO = embedding + of_e
        self._other_O = other.contiguous()
        self._attention_O = torch.cat([attended, product + of_product, past])

    def with_weights_in(self, dtype: torch.dtype) -> "FirstLayer":
        """Return the layer whose `weights` come in another type; each is computed in float32."""
        other = copy.copy(self)
        other._other_O, other._attention_O = self._other_O.to(dtype), self._attention_O.to(dtype)
        return other

    def weights(self, user: UserSide) -> Tensor:
        """Give the weights [K, O] of a packed item row, the attended history, its product, and the past."""
        dtype = self._other_O.dtype
        return torch.cat(
            [
                torch.addcmul(self._own_DO, self._ids_DO, user.id_BD.t()).to(dtype),
                self._other_O,
                (self._embedding_DO * user.embedding_BD.t()).to(dtype),
                self._attention_O,
            ]
        )

    def starts(self, user: UserSide, context_1C: Tensor, crosses: Sequence[Tensor]) -> Tensor:
        """Give what the layer begins with [P, O], biases included.

        Args: crosses: the user's aggregates by each item column, [R, F] each. A candidate's start is the sum
        of a row for each of them, and the only row where there are none.
        """
        shared_1O = torch.addmm(self._bias_O, torch.cat([user.input_BI, context_1C], dim=1), self._shared_SO)
        if not crosses:
            return shared_1O
        weights = self._cross_FO.split_with_sizes([numbers.shape[1] for numbers in crosses])
        first = torch.addmm(shared_1O, crosses[0], weights[0])
        return torch.cat([first, *(x @ weight for x, weight in zip(crosses[1:], weights[1:], strict=True))])
