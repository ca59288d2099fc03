"""The product's item-item table on sets without time, as a source of lists: settings chosen on validation.

EASE plus a share of walks, cut at 200 neighbours as in a bundle. `Together` adds what heads predict
of the same pairs, as a bundle's fusion does.
Shapes: U users, V users of some lists, I items.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from benchmarks.quality.catalogue_lists import Lists, Scorer, Wanted, list_outputs, mean_ndcg, positives
from benchmarks.quality.models.pair_data import Split
from benchmarks.quality.quality_set import Row, Run
from recsys.item_item.ease import build_ease, build_ease_of_users
from recsys.item_item.neighbours import ItemItem
from recsys.item_item.pair_counts import gram_of
from recsys.item_item.walks import blend, build_walks

NAME, TOGETHER = "item_item", "all_together"
PENALTIES = (30.0, 100.0, 300.0, 1000.0)
SHARES = (0.0, 0.1, 0.3, 1.0)
"""Of walks."""
HEADS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0)
"""What the heads' prediction may weigh beside the table's score: widths of the one to widths of the other."""


@dataclass(frozen=True, slots=True)
class TableSetting:
    """What a table is made by."""

    penalty: float
    share: float
    positive: bool = False

    def fit(self, matrix: Any) -> ItemItem:
        """Build from users' items, sparse 0/1 CSR [U, I]."""
        return blend(_ease(matrix, self.penalty, self.positive), build_walks(matrix), self.share)

    def __str__(self) -> str:
        return f"penalty {self.penalty:g}, walks {self.share:g}{', positive' if self.positive else ''}"


Chosen = tuple[TableSetting, ItemItem]


def choose_table(matrix: Any, lists: Collection[Wanted]) -> Chosen:
    """Choose by NDCG@10 of some lists, all of one table, as in a bundle; of equals the first."""
    walks, best = build_walks(matrix), -1.0
    for penalty, positive in product(PENALTIES, (False, True)):
        plain = _ease(matrix, penalty, positive)
        for share in SHARES:
            table = blend(plain, walks, share)
            if (worth := _worth(table_scorer(table, matrix), lists)) > best:
                best, chosen = worth, (TableSetting(penalty, share, positive), table)
    return chosen


def _worth(score: Scorer, lists: Collection[Wanted]) -> float:
    """Give the mean NDCG@10 of all lists."""
    sizes = [of.users.size for of in lists]
    return sum(n * mean_ndcg(score, of) for n, of in zip(sizes, lists, strict=True)) / sum(sizes)


def _ease(matrix: Any, penalty: float, positive: bool) -> ItemItem:
    """Fit by the smaller of both systems."""
    if matrix.shape[0] < matrix.shape[1]:
        return build_ease_of_users(matrix, penalty, positive=positive)
    return build_ease(gram_of(matrix), penalty, positive=positive)


def table_scorer(table: ItemItem, matrix: Any) -> Scorer:
    """Score by a user's items, each counting 1."""
    weights = table.matrix()
    return lambda users: (matrix[users] @ weights).toarray()


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """How a table's score and the heads' prediction add up."""

    share: float
    """What the prediction weighs, one of `HEADS`."""
    weight: float
    """The same in the units of both."""

    @classmethod
    def choose(cls, table: Scorer, heads: Scorer, lists: Collection[Wanted]) -> "Together":
        """Choose by NDCG@10 of some lists; of equals the first."""
        users = np.unique(np.concatenate([of.users for of in lists]))
        scores, predicted = table(users), heads(users)
        ratio = _width(scores) / max(_width(predicted), 1e-12)

        def worth(share: float) -> float:
            both = scores + np.float32(share * ratio) * predicted
            return _worth(lambda asked: both[np.searchsorted(users, asked)], lists)

        best = max(HEADS, key=worth)
        return cls(share=best, weight=best * ratio)

    def scorer(self, table: Scorer, heads: Scorer) -> Scorer:
        """Give the sum."""
        if not self.weight:
            return table
        return lambda users: table(users) + np.float32(self.weight) * heads(users)

    def __str__(self) -> str:
        return f"item_item + {self.share:g} x heads"


def _width(scores: np.ndarray) -> float:
    """Give the mean over users of what their scores [V, I] spread."""
    return float(scores.std(axis=1).mean())


@dataclass(slots=True)
class TableRows:
    """Rows that rank by the table of a split's training pairs, chosen once for all of them."""

    split: Split
    lists: Lists
    _chosen: Chosen | None = None

    def alone(self) -> Row:
        """Give the row of the table alone: it has lists and no heads."""
        return Row(lambda _seed: self._run(*self._table()), seeded=False)

    def beside(self, run: Run, heads: Scorer) -> Run:
        """Give a run other lists: by the table and its heads' prediction together.

        Args: heads: what its own lists went by; what it weighs is chosen on the validation lists.
        """
        score, note = self._table()
        both = Together.choose(score, heads, [known for known, _ in self.lists.values()])
        found = self._run(both.scorer(score, heads), f"{both} ({note})")
        return replace(
            found, validation={**run.validation, **found.validation}, test={**run.test, **found.test}
        )

    def _run(self, score: Scorer, note: str) -> Run:
        outputs: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] = ({}, {})
        for head, parts in self.lists.items():
            for found, of in zip(outputs, parts, strict=True):
                found |= list_outputs(head, score, of)
        return Run(validation=outputs[0], test=outputs[1], note=note)

    def _table(self) -> tuple[Scorer, str]:
        matrix = positives(self.split.train, self.split.sides.shape)
        if self._chosen is None:
            self._chosen = choose_table(matrix, [known for known, _ in self.lists.values()])
        setting, table = self._chosen
        return table_scorer(table, matrix), str(setting)
