"""Pairs of a positive and a negative of one list, of a batch whose lists lie one after the other."""

from dataclasses import dataclass

import numpy as np
import torch

from recsys.batch import ListPairs
from recsys.metrics.list_auc import LARGEST_RATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """P pairs of rows, by their places."""

    positive: np.ndarray
    negative: np.ndarray
    weight: np.ndarray
    """Rows of the list / pairs of the list, times 1 / the chance of both labels at their positions: as in
    `list_auc`."""

    @classmethod
    def of(cls, lists: np.ndarray, label: np.ndarray, by_chance: np.ndarray | None = None) -> "Pairs":
        """Pair the rows [N] with a label; a list of one label has no pairs.

        Args: lists: equal for rows of one list, which are neighbours; label: 1, 0, or NaN for not known;
        by_chance: what `by_chance` gives, by which each pair weighs; None: positions count alike.
        """
        known = np.flatnonzero(~np.isnan(label))
        of_known = lists[known]
        number = np.zeros(known.size, np.int64)
        np.cumsum(of_known[1:] != of_known[:-1], out=number[1:])
        is_positive = label[known] > 0.5
        size, positives = (
            np.bincount(number),
            np.bincount(number[is_positive], minlength=number.max(initial=-1) + 1),
        )
        negatives = size - positives
        list_of_positive = number[is_positive]
        pairs_of_positive = negatives[list_of_positive]
        first = (np.cumsum(negatives) - negatives)[list_of_positive]
        passed = np.cumsum(pairs_of_positive) - pairs_of_positive
        places = np.arange(pairs_of_positive.sum()) + np.repeat(first - passed, pairs_of_positive)
        weight = size / np.maximum(positives * negatives, 1)
        positive = np.repeat(known[is_positive], pairs_of_positive)
        negative = known[~is_positive][places]
        weight = np.repeat(weight[list_of_positive], pairs_of_positive)
        if by_chance is not None:
            weight = weight * by_chance[positive] * by_chance[negative]
        return cls(positive=positive, negative=negative, weight=weight.astype(np.float32))

    def tensors(self, place: np.ndarray) -> ListPairs:
        """Give the pairs for a batch. Args: place: [N], where each row's inputs are in the batch."""
        return ListPairs(
            positive_P=torch.from_numpy(place[self.positive]),
            negative_P=torch.from_numpy(place[self.negative]),
            weight_P=torch.from_numpy(self.weight),
        )


def by_chance(label: np.ndarray, examination: np.ndarray) -> np.ndarray:
    """Give 1 / the chance of each label [N] at its position, relative to one that is always looked at.

    Args: label: 1, 0, or NaN for not known; examination: the chance that the row's position is looked at.
    """
    positive, known = label > 0.5, ~np.isnan(label)
    rate = min(float(positive.sum() / max(examination[known].sum(), 1.0)), LARGEST_RATE)
    weight: np.ndarray = np.where(positive, 1 / examination, (1 - rate) / (1 - rate * examination))
    return weight


def of_lists(cuts: np.ndarray, lists: np.ndarray) -> np.ndarray:
    """Move cuts between rows [N] to the nearest ones between lists, which are neighbouring equal numbers."""
    starts = np.flatnonzero(np.append(True, lists[1:] != lists[:-1]))
    return nearest(np.append(starts, lists.size), cuts)


def nearest(places: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Give for each wanted number the nearest of some ascending places, of two the lower one."""
    above = np.searchsorted(places, wanted).clip(max=places.size - 1)
    below = (above - 1).clip(min=0)
    found: np.ndarray = np.where(
        wanted - places[below] <= places[above] - wanted, places[below], places[above]
    )
    return found
