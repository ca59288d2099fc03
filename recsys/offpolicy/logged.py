"""Logged lists as arrays: rewards and the conditional propensity of each place, with what was left out.

Legend: N rows (one item shown at one place), R lists, K places of the longest list.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from recsys.errors import DataError
from recsys.metrics.columns import IntVector, Mask, Vector

DRAWN = ("exact", "uniform")
"""Kinds of a propensity that is exact; `recsys.policy` writes them."""
PINNED = "pinned"
LATER_PAGE = "lists that are a later page"
INCOMPLETE = "lists with a missing place"
NO_PROPENSITY = "lists without a propensity in (0, 1]"
NOT_KNOWN = "lists with a label that is not known"
PINNED_PLACES = "pinned places"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedLists:
    """R lists of up to K places, each shown by the logging policy."""

    reward: Vector
    """[R, K]: what each place earned, at the weight that it is to count with; 0 where nothing counts."""
    propensity: Vector
    """[R, K] in (0, 1]: of the item given those above it; 1 where the policy had no choice."""
    drawn: Mask
    """[R, K]: False for a pinned place, and below the end of a list. Its weight is 1 and it earns nothing."""
    unit: IntVector
    """[R]: 0..U-1, whom the bootstrap draws whole: the user, or the request."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Reason -> number of lists, or of pinned places."""

    def __post_init__(self) -> None:
        shape = self.reward.shape
        if len(shape) != 2 or not self.propensity.shape == self.drawn.shape == shape or not shape[0]:
            raise DataError(
                f"logged lists have reward {shape}, propensity {self.propensity.shape} and drawn "
                f"{self.drawn.shape}; pass three of [lists, places] with at least one list"
            )
        if self.unit.shape != shape[:1]:
            raise DataError(
                f"unit has shape {self.unit.shape}, there are {shape[0]} lists; pass one for each"
            )
        _refuse_first("reward", self.reward, ~np.isfinite(self.reward), "not a finite number")
        wrong = ~((self.propensity > 0) & (self.propensity <= 1))
        _refuse_first("propensity", self.propensity, wrong, "outside (0, 1]")

    @classmethod
    def of_lists(
        cls, reward: npt.ArrayLike, propensity: npt.ArrayLike, unit: npt.ArrayLike | None = None
    ) -> "LoggedLists":
        """Take lists of equal length [R, K], or of one place [R]; every place is drawn.

        Args: unit [R], integers or strings; None: each list on its own.
        """
        reward_RK = matrix(reward)
        propensity_RK = matrix(propensity)
        codes = np.arange(len(reward_RK)) if unit is None else np.unique(unit, return_inverse=True)[1]
        return cls(
            reward=reward_RK,
            propensity=propensity_RK,
            drawn=np.ones(reward_RK.shape, np.bool_),
            unit=codes.astype(np.int64),
        )

    def first(self, places: int) -> "LoggedLists":
        """Keep the first places alone: what they earn does not depend on what was shown below."""
        return replace(
            self,
            reward=self.reward[:, :places],
            propensity=self.propensity[:, :places],
            drawn=self.drawn[:, :places],
        )

    @property
    def num_units(self) -> int:
        """Count users, or whatever the bootstrap draws."""
        return int(self.unit.max()) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadLists:
    """Lists made of rows, and where each place was among the rows."""

    lists: LoggedLists
    row: IntVector
    """[R, K]: number of the row; -1 below the end of a list."""


def read_lists(
    *,
    group: npt.ArrayLike,
    unit: npt.ArrayLike,
    position: npt.ArrayLike,
    reward: npt.ArrayLike,
    propensity: npt.ArrayLike,
    kind: npt.ArrayLike,
) -> ReadLists:
    """Make lists of impressions [N] in any order, and leave out, counted, what no estimator may use.

    Left out: lists of which a place was not drawn by the policy (degraded, seeded, of unknown kind), has no
    propensity, no known label (NaN) or is missing; later pages, whose propensity depends on the pages before
    them. Pinned places stay in the list, with weight 1, and earn nothing.

    Args: group: of the list; unit: the same for all rows of a list; position from 1; kind: as in the log.
    Raises: DataError when no list is left.
    """
    codes = np.unique(group, return_inverse=True)[1]
    columns = _Rows(
        place=np.asarray(position, np.int64) - 1,
        reward=np.asarray(reward, np.float64),
        propensity=np.asarray(propensity, np.float64),
        kind=np.asarray(kind, dtype=np.str_),
    )
    order = np.lexsort((columns.place, codes))
    codes = codes[order]
    columns = columns.take(order)
    reasons = _reasons(codes, columns)
    left_out: dict[str, int] = {}
    bad = np.zeros(int(codes[-1]) + 1 if codes.size else 0, np.bool_)
    for reason, rows in reasons.items():
        fresh = np.unique(codes[rows])
        fresh = fresh[~bad[fresh]]
        if fresh.size:
            left_out[reason], bad[fresh] = fresh.size, True
    keep = ~bad[codes]
    if not keep.any():
        raise DataError(
            f"no list is left of {bad.size}: "
            + (", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "there are none")
            + "; off-policy values need whole lists with exact propensities"
        )
    return _lists_of(codes[keep], columns.take(keep), order[keep], np.asarray(unit)[order][keep], left_out)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    place: IntVector
    reward: Vector
    propensity: Vector
    kind: npt.NDArray[np.str_]

    def take(self, rows: IntVector | Mask) -> "_Rows":
        return _Rows(
            place=self.place[rows],
            reward=self.reward[rows],
            propensity=self.propensity[rows],
            kind=self.kind[rows],
        )


def _reasons(codes: IntVector, rows: _Rows) -> dict[str, Mask]:
    """Mark the rows [N], sorted by list and place, for which their list is left out."""
    pinned = rows.kind == PINNED
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    expected = np.arange(codes.size) - np.repeat(starts, np.diff(np.append(starts, codes.size)))
    others = np.unique(rows.kind[~np.isin(rows.kind, DRAWN) & ~pinned]).tolist()
    possible = (rows.propensity > 0) & (rows.propensity <= 1)
    return {
        LATER_PAGE: (expected == 0) & (rows.place > 0),
        **{f"lists with a place that is {kind}": rows.kind == kind for kind in others},
        INCOMPLETE: rows.place != expected,
        NO_PROPENSITY: ~pinned & ~possible,
        NOT_KNOWN: ~pinned & np.isnan(rows.reward),
    }


def _lists_of(
    codes: IntVector, rows: _Rows, number: IntVector, unit: npt.NDArray[np.generic], left_out: dict[str, int]
) -> ReadLists:
    """Spread rows [N], sorted by list and place, over lists [R, K]."""
    _, first, dense = np.unique(codes, return_index=True, return_inverse=True)
    shape = (first.size, int(rows.place.max()) + 1)
    at = (dense, rows.place)
    pinned = rows.kind == PINNED
    reward, propensity = np.zeros(shape), np.ones(shape)
    drawn, row = np.zeros(shape, np.bool_), np.full(shape, -1, np.int64)
    reward[at] = np.where(pinned, 0.0, rows.reward)
    propensity[at] = np.where(pinned, 1.0, rows.propensity)
    drawn[at], row[at] = ~pinned, number
    if pinned.any():
        left_out = {**left_out, PINNED_PLACES: int(pinned.sum())}
    units = np.unique(unit[first], return_inverse=True)[1].astype(np.int64)
    lists = LoggedLists(reward=reward, propensity=propensity, drawn=drawn, unit=units, left_out=left_out)
    return ReadLists(lists=lists, row=row)


def matrix(values: npt.ArrayLike) -> Vector:
    """Read values [R, K]; [R] is of one place."""
    found = np.asarray(values, np.float64)
    return found[:, None] if found.ndim == 1 else found


def _refuse_first(name: str, values: Vector, wrong: Mask, what: str) -> None:
    if wrong.any():
        request, place = np.argwhere(wrong)[0].tolist()
        raise DataError(
            f"{name} {values[request, place]} of list {request}, place {place + 1} is {what}, as are "
            f"{int(wrong.sum()) - 1} more; leave such lists out and count them (read_lists does)"
        )
