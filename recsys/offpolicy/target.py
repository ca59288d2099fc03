"""The policy that is asked about, on the logged lists; with the predictions of a model, where there are any.

Legend: R lists, K places.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy.typing as npt

from recsys.errors import DataError
from recsys.metrics.columns import Vector
from recsys.offpolicy.logged import matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """A model's rewards, at the weight of each place. Wrong ones cost variance, and bias in `dm` alone."""

    shown: Vector
    """[R, K]: of the shown item at its place."""
    rest: Vector
    """[R, K]: of all places below, if the target goes on from the items shown down to here. Zeros are allowed
    and keep every estimator unbiased; the truth makes the variance least (Kiyohara et al. 2022)."""
    expected: Vector
    """[R, K]: mean of shown + rest over what the target would put at this place, given the items above."""
    direct: Vector
    """[R]: of the target's own list."""

    @classmethod
    def of_one_place(cls, shown: npt.ArrayLike, expected: npt.ArrayLike) -> Self:
        """Take lists of one place: shown [R], and expected [R] over the target's choice."""
        shown_R1, expected_R1 = matrix(shown), matrix(expected)
        return cls(shown=shown_R1, rest=shown_R1 * 0.0, expected=expected_R1, direct=expected_R1[:, 0])

    @classmethod
    def of_places(cls, shown: npt.ArrayLike, expected: npt.ArrayLike, direct: npt.ArrayLike) -> Self:
        """Take places one by one: expected [R, K] is over the target's choice there; direct [R]."""
        shown_RK = matrix(shown)
        return cls(
            shown=shown_RK, rest=shown_RK * 0.0, expected=matrix(expected), direct=matrix(direct)[:, 0]
        )

    @classmethod
    def of_continuations(cls, shown: npt.ArrayLike, value: npt.ArrayLike) -> Self:
        """Take value [R, K + 1]: of places k.. if the target goes on after the first k shown; 0 at last."""
        value_RK = matrix(value)
        return cls(
            shown=matrix(shown), rest=value_RK[:, 1:], expected=value_RK[:, :-1], direct=value_RK[:, 0]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetPolicy:
    """What the target does with the lists that were logged, under the rules that were logged with them."""

    probability: Vector
    """[R, K] in [0, 1]: of the shown item given the items above; not read where nothing was drawn."""
    predictions: Predictions | None = None
    """None: no direct method, and nothing doubly robust."""
    places_apart: bool = False
    """Whether both policies draw each place on its own, without rules and with repeats: only then is a
    conditional propensity also the marginal one that IIPS needs."""

    @classmethod
    def of(cls, probability: npt.ArrayLike, predictions: Predictions | None = None) -> Self:
        """Take lists of equal length [R, K], or of one place [R]."""
        return cls(probability=matrix(probability), predictions=predictions)

    def first(self, places: int) -> "TargetPolicy":
        """Keep the first places alone; without predictions, whose `rest` and `direct` count all places."""
        return replace(self, probability=self.probability[:, :places], predictions=None)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise DataError unless this is about lists [R, K] of that shape."""
        parts = {"probability": self.probability}
        if self.predictions is not None:
            model = self.predictions
            parts |= {"shown": model.shown, "rest": model.rest, "expected": model.expected}
            if model.direct.shape != shape[:1]:
                raise DataError(
                    f"direct has shape {model.direct.shape}; pass one value for each of {shape[0]} lists"
                )
        for name, values in parts.items():
            if values.shape != shape:
                raise DataError(f"{name} has shape {values.shape}, the logged lists {shape}; pass equal ones")
        outside = ~((self.probability >= 0) & (self.probability <= 1 + 1e-9))
        if outside.any():
            raise DataError(
                f"the target's probability {self.probability[outside][0]} is outside [0, 1]; pass the "
                "probability of the shown item given the items above it"
            )
