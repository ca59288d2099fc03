"""The user's side of one request: what `Ranker.user_side` gives for a batch of one, in few operations.

Shape letters: L events, A attention, C kinds and ages, D item row, U the user's looked-up rows and numbers,
E embedding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.model.history import OneHistory
from recsys.model.layers import MIN_LENGTH
from recsys.model.ranker import Ranker, UserSide
from recsys.model.sequence.history import SequenceHistory


@dataclass(frozen=True, slots=True)
class UserTensors:
    """One user's looked-up inputs."""

    own_1U: Tensor
    """Rows of single ids, means of lists, then numbers."""
    items_LD: Tensor
    """The history's item rows, text included."""
    kinds_L: Tensor
    ages_L: Tensor
    minutes_L: Tensor


class OneUser:
    """Encodes a user at a time with a ranker's weights; safe to call from several threads."""

    def __init__(self, ranker: Ranker) -> None:
        history, tower = ranker.history, ranker.user_tower
        self._sequence = history if isinstance(history, SequenceHistory) else None
        self._table_CA = torch.cat([history.kind.weight, history.age()])
        self._num_kinds = history.kind.num_embeddings
        self._key_value_DA = torch.cat([history.key.weight, history.value.weight]).t().contiguous()
        self._score_A1, self._score_bias = history.event_score.weight.t(), history.event_score.bias
        self._num_id = ranker.user_factor.in_features - history.query.out_features
        self._project_id = ranker.project_id
        self._hidden, self._tower = tower
        # The linear path beside the tower reads the own id, the first columns, and the history, the last.
        of_id, of_history = ranker.user_factor.weight.split_with_sizes(
            [self._num_id, history.query.out_features], 1
        )
        between = of_id.new_zeros(of_id.shape[0], ranker.num_user_in - ranker.user_factor.in_features)
        self._factor_IE = torch.cat([of_id, between, of_history], dim=1).t().contiguous()

    def side(self, user: UserTensors) -> UserSide:
        """Encode a user."""
        event_LA = self._table_CA.index_select(0, user.kinds_L)
        event_LA += self._table_CA.index_select(0, user.ages_L + self._num_kinds)
        rows_LD, newest_1A = self._rows(user)
        key_value_L2A = (rows_LD @ self._key_value_DA).view(len(event_LA), 2, event_LA.shape[1])
        key_value_L2A += event_LA.unsqueeze(1)
        keys_LA, values_LA = key_value_L2A.unbind(1)
        score_1L = torch.addmm(self._score_bias, keys_LA, self._score_A1).t()
        # The empty event scores 0 and has no value.
        weight_1L = torch.cat([score_1L.new_zeros(1, 1), score_1L], dim=1).softmax(dim=1)[:, 1:]
        input_1I = torch.cat([user.own_1U, (weight_1L @ values_LA).add_(newest_1A)], dim=1)
        tower_1E = self._tower(self._hidden(input_1I)).addmm_(input_1I, self._factor_IE)
        length_11 = torch.linalg.vector_norm(tower_1E, dim=1, keepdim=True).clamp_min_(MIN_LENGTH)
        id_1D = user.own_1U[:, : self._num_id]
        if not self._num_id:
            id_1D = input_1I.new_zeros(1, self._project_id.in_features)
        history = OneHistory(keys_LA, values_LA)
        return UserSide(input_1I, tower_1E / length_11, self._project_id(id_1D), history)

    def _rows(self, user: UserTensors) -> tuple[Tensor, Tensor | float]:
        """Give what keys and values are of, and what the newest event's state adds to the summary."""
        num_events = len(user.kinds_L)
        if self._sequence is None or not num_events:
            width = self._key_value_DA.shape[0]
            return (user.items_LD if num_events else user.items_LD.new_zeros(0, width)), 0.0
        items_LD, kinds_L, minutes_L = (x.flip(0) for x in (user.items_LD, user.kinds_L, user.minutes_L))
        count_C = kinds_L.new_tensor([num_events])
        states_LD = self._sequence.states(items_LD, kinds_L, minutes_L, count_C).flip(0)
        return states_LD, self._sequence.newest(states_LD[:1])
