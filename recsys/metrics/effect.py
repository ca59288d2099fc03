"""One metric of two systems on the same rows or users: the difference, how sure it is, and the verdict."""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, computed_field, model_validator

Verdict = Literal["better", "worse", "no evidence"]
"""Of B, held against A. "no evidence": the interval holds 0, or there is none."""


def _defined(value: Any) -> Any:
    """Read NaN as None: JSON knows no NaN, and two NaN are not equal."""
    return None if isinstance(value, float) and math.isnan(value) else value


Defined = Annotated[float | None, BeforeValidator(_defined)]
"""A figure; None where the metric is not defined on these rows."""


class Effect(BaseModel):
    """Hold B - A of one metric; the interval and the two-sided p-value are of the difference."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    metric: str
    a: Defined
    b: Defined
    difference: Defined
    ci_low: Defined
    """None, with `ci_high` and `p_value`: one user, or not defined on too many draws."""
    ci_high: Defined
    p_value: Defined
    level: float = 0.95
    higher_is_better: bool | None = True
    """None: neither direction is better, as of novelty; there is no verdict then."""
    users: int
    rows: int
    replicates: int
    """Draws that the interval rests on."""

    @model_validator(mode="before")
    @classmethod
    def _take_figures(cls, given: Any) -> Any:
        """Leave out a verdict that JSON states: it is computed from the interval."""
        return {k: v for k, v in given.items() if k != "verdict"} if isinstance(given, dict) else given

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict | None:
        """Say whether B is better or worse than A; "no evidence" when the interval holds 0 or is unknown."""
        if self.higher_is_better is None:
            return None
        if not self.differs:
            return "no evidence"
        assert self.ci_low is not None
        return "better" if (self.ci_low > 0) == self.higher_is_better else "worse"

    @property
    def differs(self) -> bool:
        """Tell whether the interval leaves 0 out."""
        return self.ci_low is not None and self.ci_high is not None and not self.ci_low <= 0 <= self.ci_high

    @property
    def gain(self) -> tuple[float, float, float] | None:
        """Give (difference, low, high) as shares of A, above 0 where B is better; None where not defined."""
        if not self.a or self.difference is None or self.ci_low is None or self.ci_high is None:
            return None
        sign = -1.0 if self.higher_is_better is False else 1.0
        difference, low, high = (
            sign * value / abs(self.a) for value in (self.difference, self.ci_low, self.ci_high)
        )
        return difference, min(low, high), max(low, high)
