"""What an order of each list is worth, relative to a random one: the labels' value, discounted by place.

The value of a row is divided by the examination of the position at which it was shown and multiplied by that
of its new place: a click at the bottom counts for more (a position-based model; Craswell et al., WSDM 2008).
Where positions count alike, a place counts 1 / log2(1 + place). Shapes: N rows, U users.
"""

import numpy as np

from recsys.metrics.columns import IntVector, Lists, Vector, group_sums


def order_values(
    value: Vector, score: Vector, lists: Lists, user: IntVector, num_users: int
) -> tuple[Vector, Vector]:
    """Give each user's (gain over a random order [U], what that is a share of [U]).

    Sum of gains over sum of shares is 0 for a random order and for equal scores.

    Args: value [N], any unit, below 0 for what nobody wants; score [N], higher comes first, ties share their
    places; user [N] in 0..num_users-1. Rows that are in no list count nothing.
    """
    place = np.flatnonzero(lists.group >= 0)
    if not place.size:
        return np.zeros(num_users), np.zeros(num_users)
    code = np.unique(lists.group[place], return_inverse=True)[1]
    examination = lists.examination[place]
    discount = _discounts(code, examination)
    worth = value[place] / examination
    gained = _of_scores(discount, score[place], code) - (group_sums(discount, code) / np.bincount(code))[code]
    mean = discount.mean()
    users = user[place]
    gain, share = (
        np.bincount(users, weights=of_rows, minlength=num_users).astype(np.float64, copy=False)
        for of_rows in (worth * gained, np.abs(worth) * mean)
    )
    return gain, share


def _discounts(code: IntVector, examination: Vector) -> Vector:
    """Give what each of a list's places counts, laid on its rows [N] as they come, the best place first."""
    order = np.lexsort((-examination, code))
    if np.ptp(examination):
        best: Vector = examination[order]
    else:
        first = np.flatnonzero(np.diff(code[order], prepend=-1))
        rank = np.arange(code.size) - np.repeat(first, np.diff(first, append=code.size))
        best = 1.0 / np.log2(2.0 + rank)
    found = np.empty(code.size)
    found[np.argsort(code, kind="stable")] = best
    return found


def _of_scores(discount: Vector, score: Vector, code: IntVector) -> Vector:
    """Give the discount of each row's place by score [N]; equal scores of a list share theirs."""
    order = np.lexsort((-score, code))
    at = discount[np.argsort(code, kind="stable")]
    block = (
        np.cumsum((np.diff(code[order], prepend=-1) != 0) | (np.diff(score[order], prepend=np.nan) != 0)) - 1
    )
    shared = group_sums(at, block) / np.bincount(block)
    found = np.empty(code.size)
    found[order] = shared[block]
    return found
