"""What the gate decided, and everything that it rests on."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from recsys.records import Check, PowerAt, Verdict


class Decision(BaseModel):
    """The verdict and everything it rests on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Verdict
    champion: str | None
    challenger: str
    checks: tuple[Check, ...]
    list_value: float | None = None
    """What the challenger's order of the lists gains over a random one (`order_values`); None: not known."""
    power: tuple[PowerAt, ...] = ()
    """What the night, and one of other numbers of users, can tell; empty: nothing was compared."""

    @property
    def reasons(self) -> list[str]:
        """Say, in a line each, what kept it from going live; empty on PROMOTE."""
        return [f"{c.name}: {c.detail}" for c in self.checks if c.outcome is not Verdict.PROMOTE]

    def with_checks(self, checks: Sequence[Check]) -> "Decision":
        """Add checks that were made later; the verdict is that of all."""
        found = (*self.checks, *checks)
        return self.model_copy(update={"checks": found, "verdict": verdict_of(found)})


def decide(
    champion: str | None,
    challenger: str,
    checks: Sequence[Check],
    *,
    list_value: float | None = None,
    power: Sequence[PowerAt] = (),
) -> Decision:
    """Combine checks: any HOLD holds; else any underpowered one holds for lack of evidence; else promote."""
    return Decision(
        verdict=verdict_of(checks),
        champion=champion,
        challenger=challenger,
        checks=tuple(checks),
        list_value=list_value,
        power=tuple(power),
    )


def verdict_of(checks: Sequence[Check]) -> Verdict:
    """Give the worst outcome of all."""
    outcomes = {c.outcome for c in checks}
    return next((v for v in (Verdict.HOLD, Verdict.HOLD_UNDERPOWERED) if v in outcomes), Verdict.PROMOTE)


def finding(name: str, outcome: Verdict, detail: str, **numbers: Any) -> Check:
    """Make a check."""
    return Check(name=name, outcome=outcome, detail=detail, numbers={k: float(v) for k, v in numbers.items()})
