"""History: what a user's last events say of the user, and of the user and an item (target attention).

An event's key is key(item) + kind + age, and its value likewise. Neither is formed per event: a query's
product with a key is the sum of its products with the parts, and a weighted sum of values is a sum over items
plus a small product with the summed weights of every kind and age. `key` and `value` run once per distinct
item of a step.

Shape letters: B histories, E events of all of them, U distinct items, C kinds and ages, D item row,
A attention, N queries, L events of one history.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys.batch import HistoryIndex
from recsys.model.layers import OrderedEmbedding
from recsys.model.row_lists import RowLists, list_products, list_softmax, list_sums

NUM_AGES = 20


@dataclass(frozen=True, slots=True)
class OneHistory:
    """One user's events, for any number of queries."""

    keys_LA: Tensor
    values_LA: Tensor

    def attend(self, query_NA: Tensor) -> Tensor:
        """Average the values by softmax of key · query over the events and an empty one: [N, A]."""
        scores_NL = query_NA @ self.keys_LA.T / query_NA.shape[1] ** 0.5
        empty_N1 = scores_NL.new_zeros(scores_NL.shape[0], 1)
        weights_NL = torch.cat([empty_N1, scores_NL], dim=1).softmax(dim=1)[:, 1:]
        return weights_NL @ self.values_LA


@dataclass(frozen=True, slots=True)
class Histories:
    """Events of B users, as parts of their keys and values; in float32 at least."""

    keys_UA: Tensor
    values_UA: Tensor
    table_CA: Tensor
    """A row per kind, then one per age: part of keys and values alike."""
    lists: RowLists
    """Each history's items."""
    kind_age_2E: Tensor
    """Each event's two rows of the table."""
    place_2E: Tensor
    """The same, as places in the flattened products [B, C] of every history with the table."""
    newest_SA: Tensor | None = None
    """What each event of a sequence adds to the summary of a history that ends with it."""

    def attend(self, query_BA: Tensor) -> Tensor:
        """Average each history's values by softmax of key · query over its events and an empty one."""
        query_BA = _full(query_BA)
        with torch.autocast(query_BA.device.type, enabled=False):
            table_BC = query_BA @ self.table_CA.T
            score_E = list_products(query_BA, self.keys_UA, self.lists)
            score_E = score_E + _picked(table_BC, self.place_2E)
            return self._pooled(score_E / query_BA.shape[1] ** 0.5)

    def summarise(self, weight_A: Tensor, bias: Tensor) -> Tensor:
        """Average each history's values by softmax of key · weight + bias: [B, A]."""
        weight_A = _full(weight_A)
        with torch.autocast(weight_A.device.type, enabled=False):
            item_U, table_C = self.keys_UA @ weight_A, self.table_CA @ weight_A
            score_E = item_U.index_select(0, self.lists.position_E) + _picked(table_C, self.kind_age_2E)
            return self._pooled(score_E + _full(bias))

    def one(self, row: int) -> OneHistory:
        """Form the keys and values of one history's events."""
        events = self.lists.elements(row)
        items_L = self.lists.position_E[events]
        event_LA = self.table_CA[self.kind_age_2E[:, events]].sum(dim=0)
        return OneHistory(self.keys_UA[items_L] + event_LA, self.values_UA[items_L] + event_LA)

    def _pooled(self, score_E: Tensor) -> Tensor:
        weight_E = list_softmax(score_E, self.lists)
        num_lists, num_rows = self.lists.num, self.table_CA.shape[0]
        weight_BC = weight_E.new_zeros(num_lists * num_rows)
        weight_BC = weight_BC.index_add(0, self.place_2E.flatten(), weight_E.repeat(2)).view(
            num_lists, num_rows
        )
        return torch.addmm(list_sums(weight_E, self.values_UA, self.lists), weight_BC, self.table_CA)


class HistoryAttention(nn.Module):
    """Attention over a user's events: by a fixed score for the user, by the item's query for a candidate."""

    def __init__(self, item_dim: int, dim: int, num_kinds: int, state_dim: int | None = None) -> None:
        """Build the projections of items, and the parts of keys and values that kinds and ages have.

        Args: state_dim: width of what keys and values are of, where that is not an item's row.
        """
        super().__init__()
        self.query = nn.Linear(item_dim, dim, bias=False)
        self.key = nn.Linear(state_dim or item_dim, dim, bias=False)
        self.value = nn.Linear(state_dim or item_dim, dim, bias=False)
        self.kind = nn.Embedding(num_kinds + 1, dim, padding_idx=0)
        self.age = OrderedEmbedding(NUM_AGES, dim)
        self.event_score = nn.Linear(dim, 1)

    def forward(self, items_UD: Tensor, index: HistoryIndex) -> tuple[Histories, Tensor]:
        """Encode histories, and summarise each [B, A]. Args: items_UD: rows of the step's distinct items."""
        lists = RowLists(index.item_E, index.owner_E, index.start_B, index.by_item_E, items_UD.shape[0])
        found = self.histories(items_UD, index, lists)
        return found, self.summary(found)

    def histories(self, rows_UD: Tensor, index: HistoryIndex, lists: RowLists) -> Histories:
        """Form the parts of keys and values. Args: rows_UD: what the lists' elements are rows of."""
        table_CA = _full(torch.cat([self.kind.weight, self.age()]))
        kind_age_2E = torch.stack([index.kind_E, index.age_E + self.kind.num_embeddings])
        return Histories(
            keys_UA=_full(self.key(rows_UD)),
            values_UA=_full(self.value(rows_UD)),
            table_CA=table_CA,
            lists=lists,
            kind_age_2E=kind_age_2E,
            place_2E=kind_age_2E + lists.owner_E * table_CA.shape[0],
        )

    def summary(self, found: Histories) -> Tensor:
        """Summarise each history [B, A]."""
        return found.summarise(self.event_score.weight[0], self.event_score.bias)


def _picked(values: Tensor, place_2E: Tensor) -> Tensor:
    """Add up the two values [E] of every event."""
    return values.reshape(-1).index_select(0, place_2E.flatten()).view(place_2E.shape).sum(dim=0)


def _full(x: Tensor) -> Tensor:
    """Widen to float32 at least: sums over events lose digits in bfloat16, and the parts are small."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
