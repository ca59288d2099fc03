"""Item-item weights that predict the next item: pairs in any order, what came before what, and attributes.

One ridge regression of three kinds of rows: a user's items from each other (plain EASE), each event from the
earlier ones (`next_item`), and the items of an attribute from each other (collective EASE). Above EASE's size
the same sums make shrunk cosines, with the attributes that few items have. Source of the attributes' rows:
Jeunen et al., RecSys 2020.

Shapes: I items, A attributes, N events.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys.errors import ConfigError, DataError
from recsys.item_item.ease import MOST_ITEMS, build_ease
from recsys.item_item.histories import Histories
from recsys.item_item.knn import build_item_knn_of_counts
from recsys.item_item.neighbours import MOST_NEIGHBOURS, ItemItem
from recsys.item_item.next_item import NextItemSums, sum_next_items
from recsys.item_item.pair_counts import count_pairs
from recsys.item_item.recency import PerStep, Recency

STEPS_RECENCY = PerStep(0.8)
MOST_HOLDERS = 200
"""Items of an attribute that cosines take part of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What each kind of rows counts, and how weights are held down; the default is good on Amazon Beauty."""

    penalty: float = 200.0
    pairs: float = 1.0
    """Of a user's items from each other."""
    steps: float = 2.0
    """Of an event from the earlier ones."""
    recency: Recency = STEPS_RECENCY
    """What an earlier event counts there."""
    attributes: float = 6.0
    """Of the items of an attribute from each other."""
    shrinkage: float = 40.0
    """Of the cosines, above EASE's size."""

    def __post_init__(self) -> None:
        """Check the numbers. Raises: ConfigError when one is negative, or no kind of rows counts."""
        for name in ("penalty", "pairs", "steps", "attributes", "shrinkage"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"item-item {name} is {getattr(self, name)}; give 0 or more")
        if not self.pairs + self.steps:
            raise ConfigError("item-item pairs and steps are both 0: nothing would be learned; raise one")

    def __str__(self) -> str:
        kinds = f"pairs {self.pairs:g}, steps {self.steps:g} ({self.recency}), attributes {self.attributes:g}"
        return (
            f"penalty {self.penalty:g}, {kinds}" if self.penalty else f"shrinkage {self.shrinkage:g}, {kinds}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What a fit needs of histories, before any setting but the steps' recency: sparse [I, I] each."""

    pairs: Any
    """How many users have both items."""
    steps: NextItemSums

    @classmethod
    def of(cls, histories: Histories, num_items: int, recency: Recency, *, order: bool = True) -> "Sums":
        """Sum over all users. Args: order: False: for settings without steps, whose sums are then empty."""
        targets = None if order else np.zeros(histories.items.size, np.bool_)
        return cls(
            pairs=count_pairs(histories, num_items),
            steps=sum_next_items(histories, num_items, recency, targets),
        )


def build_directed(
    sums: Sums,
    setting: Setting,
    attributes: Any = None,
    *,
    most: int = MOST_NEIGHBOURS,
    positive: bool = False,
    cosines: bool | None = None,
) -> ItemItem:
    """Fit and keep each item's strongest weights.

    Args: attributes: sparse [I, A], 1 where an item has one; None: there are none; positive: keep no weight
    below 0; cosines: whether to make shrunk cosines, which are never below 0; None: above EASE's size.
    Raises: ConfigError when the penalty is too small; DataError when attributes are of other items.
    """
    num_items = sums.pairs.shape[0]
    factors = None
    if attributes is not None and setting.attributes:
        if attributes.shape[0] != num_items:
            raise DataError(f"attributes are of {attributes.shape[0]} items, histories of {num_items}")
        factors = attribute_factors(attributes) * np.float32(np.sqrt(setting.attributes))
    if num_items > MOST_ITEMS if cosines is None else cosines:
        return _cosines(sums, setting, factors, most)
    difference = setting.steps * (sums.steps.before - sums.steps.next)
    return build_ease(
        setting.pairs * sums.pairs + setting.steps * sums.steps.before,
        setting.penalty,
        difference=difference if setting.steps else None,
        factors=factors,
        most=most,
        positive=positive,
    )


def _cosines(sums: Sums, setting: Setting, factors: Any, most: int) -> ItemItem:
    """Make shrunk cosines of the sums; an attribute of many items would make nearly all pairs of items."""
    counts = setting.pairs * sums.pairs + setting.steps * sums.steps.next
    if factors is not None:
        columns = factors.tocsc()
        few = columns[:, np.diff(columns.indptr) <= MOST_HOLDERS].tocsr()
        counts = counts + few @ few.T
    norms = np.sqrt(sums.pairs.diagonal())
    return build_item_knn_of_counts(counts.tocsr(), norms=norms, shrinkage=setting.shrinkage, most=most)


def attribute_factors(attributes: Any) -> Any:
    """Weigh attributes by how few items have them (log(I / n)), and items to length 1: sparse [I, A]."""
    from scipy import sparse

    table = attributes.tocsr().astype(np.float32)
    table.data[:] = 1.0
    held = np.asarray(table.sum(axis=0)).ravel()
    rarity = np.log(table.shape[0] / np.maximum(held, 1.0)).astype(np.float32)
    weighted = (table @ sparse.diags_array(rarity)).tocsr()
    lengths = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    inverse = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return (sparse.diags_array(inverse.astype(np.float32)) @ weighted).tocsr()
