"""Score ranked lists over the full catalogue, one value per user so that a bootstrap can pair two systems.

Shapes: U users, K places, C item numbers. A list shorter than K is padded with -1. A value not
defined for a user (recall without relevant items, diversity of a list of one) is NaN, and `inference` leaves
that user out.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from recsys.errors import ConfigError, DataError
from recsys.metrics.columns import IntVector, Mask, Vector, finite, ratio

PADDING = -1

IntMatrix = npt.NDArray[np.int64]
Entry = TypeVar("Entry", np.int64, np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """Hold which listed items are relevant: hit [U, K], and num_relevant [U]."""

    hit: Mask
    num_relevant: IntVector


def match(ranked: npt.ArrayLike, offsets: npt.ArrayLike, codes: npt.ArrayLike) -> Matches:
    """Look every listed item up among its user's relevant items, once for all metrics and cut-offs.

    Args: ranked [U, K] item numbers, best first, -1 for padding; offsets [U + 1] and codes [offsets[-1]]:
        user u's relevant items are codes[offsets[u]:offsets[u + 1]].
    Raises: DataError when offsets do not fit, or naming the first user with an item listed or relevant twice.
    """
    ranked_UK = _ranked(ranked)
    starts, relevant = _ragged(offsets, codes, ranked_UK.shape[0])
    num_relevant = np.diff(starts)
    # One number per (user, item): membership in each user's own set becomes membership in one set.
    stride = 1 + max(int(ranked_UK.max(initial=0)), int(relevant.max(initial=0)))
    wanted = np.repeat(np.arange(num_relevant.size), num_relevant) * stride + relevant
    listed = np.where(ranked_UK >= 0, np.arange(num_relevant.size)[:, None] * stride + ranked_UK, PADDING)
    _refuse_twice("relevant", wanted, stride)
    _refuse_twice("ranked", listed[listed >= 0], stride)
    return Matches(hit=np.isin(listed, wanted), num_relevant=num_relevant)


def ndcg_at_k(matches: Matches, k: int) -> Vector:
    """Return each user's NDCG@k [U] in [0, 1], binary gain, discount 1 / log2(place + 1).

    The ideal list holds min(k, num_relevant) hits. NaN for a user without relevant items.

    Raises: ConfigError when k is not in 1..K.
    Source: Jarvelin & Kekalainen, TOIS 2002.
    """
    discount_k = 1 / np.log2(np.arange(2, k + 2)) if k > 0 else np.empty(0)
    gain_U: Vector = _top(matches.hit, k) @ discount_k
    ideal = np.concatenate([[np.nan], np.cumsum(discount_k)])
    ideal_U: Vector = ideal[np.minimum(matches.num_relevant, k)]
    return gain_U / ideal_U


def recall_at_k(matches: Matches, k: int) -> Vector:
    """Return each user's recall@k [U] in [0, 1]: hits / num_relevant, the field's standard.

    A user with more than k relevant items cannot reach 1. NaN for a user without relevant items.

    Raises: ConfigError when k is not in 1..K.
    """
    hits_U = _top(matches.hit, k).sum(axis=1, dtype=np.float64)
    return ratio(hits_U, matches.num_relevant.astype(np.float64))


def coverage(ranked: npt.ArrayLike, num_items: int) -> float:
    """Return the share of a catalogue of num_items that at least one user is shown.

    Args: ranked [U, K] item numbers, -1 for padding; slice it to K = k for coverage@k.
    Raises: ConfigError when num_items < 1; DataError when more items are listed than the catalogue has.
    """
    return _exposures(ranked, num_items).size / num_items


def novelty(ranked: npt.ArrayLike, popularity: npt.ArrayLike) -> Vector:
    """Return each user's mean surprise [U], -log2 of an item's share of interactions; NaN for an empty list.

    One interaction is added to every item, so that an item never seen has a finite surprise.

    Args: ranked [U, K] item numbers, -1 for padding; popularity [C], interactions of each item number, >= 0.
    Raises: DataError on an item number past C, or a negative or NaN popularity.
    Source: Zhou et al., PNAS 2010.
    """
    ranked_UK = _ranked(ranked)
    count_C = finite("popularity", popularity)
    if (count_C < 0).any():
        raise DataError(
            f"popularity of item {int(np.argmax(count_C < 0))} is negative; pass interaction counts"
        )
    surprise_C = np.log2(count_C.sum() + count_C.size) - np.log2(count_C + 1)
    listed = ranked_UK >= 0
    total_U = np.where(listed, _lookup("popularity", surprise_C, ranked_UK), 0.0).sum(axis=1)
    return ratio(total_U, listed.sum(axis=1, dtype=np.float64))


def category_diversity(ranked: npt.ArrayLike, category: npt.ArrayLike) -> Vector:
    """Return the share [U] of item pairs in each list whose categories differ; NaN below two items.

    Args: ranked [U, K] item numbers, -1 for padding; category [C], each item number's category, integer >= 0.
    Raises: DataError on an item number past C.
    Source: Ziegler et al., WWW 2005, with similarity 1 inside a category and 0 across.
    """
    ranked_UK = _ranked(ranked)
    category_C = np.asarray(category, dtype=np.int64)
    user, place = np.nonzero(ranked_UK >= 0)
    listed = _lookup("category", category_C, ranked_UK)[user, place]
    stride = 1 + int(category_C.max(initial=0))
    key, count = np.unique(user * stride + listed, return_counts=True)
    same_U = np.bincount(key // stride, weights=count * (count - 1.0), minlength=ranked_UK.shape[0])
    num_U = np.bincount(user, minlength=ranked_UK.shape[0])
    pairs_U = num_U * (num_U - 1.0)
    return ratio(pairs_U - same_U, pairs_U)


def _ranked(ranked: npt.ArrayLike) -> IntMatrix:
    """Return ranked [U, K] as int64, refusing other shapes and numbers below -1."""
    ranked_UK = np.asarray(ranked)
    if ranked_UK.ndim != 2 or not np.issubdtype(ranked_UK.dtype, np.integer):
        raise DataError(
            f"ranked is {ranked_UK.dtype} {ranked_UK.shape}; pass whole item numbers [users, places]"
        )
    if ranked_UK.min(initial=0) < PADDING:
        user = int(np.argmax((ranked_UK < PADDING).any(axis=1)))
        raise DataError(f"ranked of user {user} has {ranked_UK.min()}; item numbers are >= 0, padding is -1")
    return ranked_UK.astype(np.int64, copy=False)


def _ragged(offsets: npt.ArrayLike, codes: npt.ArrayLike, num_users: int) -> tuple[IntVector, IntVector]:
    """Return (offsets [U + 1], codes) as int64; offsets must cut codes into num_users lists."""
    starts, relevant = np.asarray(offsets, dtype=np.int64), np.asarray(codes, dtype=np.int64)
    if starts.shape != (num_users + 1,):
        raise DataError(f"offsets has shape {starts.shape}; {num_users} users need {num_users + 1}")
    if starts[0] != 0 or starts[-1] != relevant.size or (np.diff(starts) < 0).any():
        raise DataError(f"offsets must rise from 0 to {relevant.size}, but run {starts[0]}..{starts[-1]}")
    if relevant.min(initial=0) < 0:
        raise DataError(
            f"relevant item at {int(np.argmin(relevant))} is {relevant.min()}; item numbers are >= 0"
        )
    return starts, relevant


def _refuse_twice(name: str, keys: IntVector, stride: int) -> None:
    """Raise DataError naming the first user and item whose (user, item) key occurs twice."""
    ordered = np.sort(keys)
    twice = ordered[1:] == ordered[:-1]
    if twice.any():
        user, item = divmod(int(ordered[int(np.argmax(twice))]), stride)
        raise DataError(
            f"{name} items of user {user} hold item {item} twice; each counts once, so de-duplicate"
        )


def _top(hit: Mask, k: int) -> Mask:
    """Return the first k places, refusing a k outside 1..K."""
    if not 1 <= k <= hit.shape[1]:
        raise ConfigError(f"k is {k} but lists have {hit.shape[1]} places; rank at least k items")
    return hit[:, :k]


def _exposures(ranked: npt.ArrayLike, num_items: int) -> IntVector:
    """Return how often each listed item is listed, one entry per distinct item."""
    if num_items < 1:
        raise ConfigError(f"num_items is {num_items}; pass the size of the catalogue")
    ranked_UK = _ranked(ranked)
    listed, count = np.unique(ranked_UK[ranked_UK >= 0], return_counts=True)
    if listed.size > num_items:
        raise DataError(
            f"ranked lists {listed.size} items but num_items is {num_items}; pass the whole catalogue"
        )
    return count


def _lookup(name: str, table: npt.NDArray[Entry], ranked: IntMatrix) -> npt.NDArray[Entry]:
    """Take table [C] at every listed item [U, K]; padding reads entry 0."""
    if ranked.max(initial=-1) >= table.size:
        raise DataError(
            f"ranked has item {ranked.max()} but {name} ends at {table.size - 1}; pass every item"
        )
    return table[np.maximum(ranked, 0)] if table.size else np.zeros(ranked.shape, dtype=table.dtype)
