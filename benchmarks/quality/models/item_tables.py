"""The product's item-item table on sets without time, as a source of lists: settings chosen on validation.

EASE plus a share of walks, cut at 200 neighbours as in a bundle. A row of it has lists alone; heads are those
of another row, as in a bundle: the report puts both together (`best`).
Shapes: U users, I items.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.quality.catalogue_lists import (
    Lists,
    Scorer,
    Wanted,
    list_outputs,
    mean_ndcg,
    positives,
    wanted,
)
from benchmarks.quality.models.pair_data import Split
from benchmarks.quality.quality_set import Row, Run
from recsys.item_item.ease import build_ease, build_ease_of_users
from recsys.item_item.neighbours import ItemItem
from recsys.item_item.pair_counts import gram_of
from recsys.item_item.walks import blend, build_walks

NAME = "item_item"
PENALTIES = (30.0, 100.0, 300.0, 1000.0)
SHARES = (0.0, 0.1, 0.3, 1.0)
"""Of walks."""
CHOOSERS = 500
"""At most so many users' lists of validation items choose."""


@dataclass(frozen=True, slots=True)
class TableSetting:
    """What a table is made by."""

    penalty: float
    share: float

    def fit(self, matrix: Any) -> ItemItem:
        """Build from users' items, sparse 0/1 CSR [U, I]."""
        return blend(_ease(matrix, self.penalty), build_walks(matrix), self.share)

    def __str__(self) -> str:
        return f"penalty {self.penalty:g}, walks {self.share:g}"


Chosen = tuple[TableSetting, ItemItem]


def choose_tables(matrix: Any, of: Mapping[str, Wanted]) -> Mapping[str, Chosen]:
    """Choose for each head by NDCG@10 of some lists; of equals the first. Each table is made once."""
    walks, found = build_walks(matrix), dict[str, Chosen]()
    best = dict.fromkeys(of, -1.0)
    for penalty in PENALTIES:
        plain = _ease(matrix, penalty)
        for share in SHARES:
            table = blend(plain, walks, share)
            score = table_scorer(table, matrix)
            for head, lists in of.items():
                if (worth := mean_ndcg(score, lists)) > best[head]:
                    best[head], found[head] = worth, (TableSetting(penalty, share), table)
    return found


def _ease(matrix: Any, penalty: float) -> ItemItem:
    """Fit by the smaller of both systems."""
    if matrix.shape[0] < matrix.shape[1]:
        return build_ease_of_users(matrix, penalty)
    return build_ease(gram_of(matrix), penalty)


def table_scorer(table: ItemItem, matrix: Any) -> Scorer:
    """Score by a user's items, each counting 1."""
    weights = table.matrix()
    return lambda users: (matrix[users] @ weights).toarray()


def table_rows(split: Split, lists: Lists) -> Mapping[str, Row]:
    """Give the row of the table: lists of each head's items, from all training pairs."""
    return {NAME: Row(partial(_run, split, lists), seeded=False)}


def _run(split: Split, lists: Lists, _seed: int) -> Run:
    matrix = positives(split.train, split.sides.shape)
    asked = {
        head: wanted(
            split.validation.take(split.validation.labels[head] > 0), split.train, split.sides.shape, CHOOSERS
        )
        for head in lists
    }
    outputs: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    notes = []
    for head, (setting, table) in choose_tables(matrix, asked).items():
        for found, of in zip(outputs, lists[head], strict=True):
            found |= list_outputs(head, table_scorer(table, matrix), of)
        notes.append(f"{head}: {setting}")
    return Run(validation=outputs[0], test=outputs[1], note="; ".join(notes))
