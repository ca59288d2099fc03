"""Primary comparisons + leak checks -> one verdict in words; "no evidence" is one, and a frequent one."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from recsys.metrics.effect import Effect
from training.report.wording import enumerate_names, interval, signed, verdict

Outcome = Literal["better", "worse", "mixed", "no evidence", "not trustworthy"]
"""Of B, held against A, over all primary comparisons."""


class ABDecision(BaseModel):
    """What may be concluded, first thing in the report."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    outcome: Outcome
    headline: str
    lines: tuple[str, ...]
    """The numbers behind it, one line per primary comparison."""
    level: float
    """Level of each primary interval: together they err at most with the shared rate."""

    @property
    def title(self) -> str:
        """Give the outcome as a page or a panel is headed by it."""
        return f"B is {self.outcome}" if self.outcome in ("better", "worse") else self.outcome


def decide(primary: Mapping[str, Effect], problems: Sequence[str], *, alpha: float, same: bool) -> ABDecision:
    """Say which system is better, on what, and how sure that is.

    Args:
        primary: name -> comparison, at the level 1 - alpha / number of comparisons.
        problems: reasons why no figure here may be believed (days that a bundle was trained on).
        same: A and B are one bundle.
    """
    level = 1 - alpha / max(1, len(primary))
    lines = tuple(_line(name, effect) for name, effect in primary.items())
    better = [name for name, effect in primary.items() if effect.verdict == "better"]
    worse = [name for name, effect in primary.items() if effect.verdict == "worse"]
    outcome: Outcome
    if problems:
        outcome, headline = "not trustworthy", "Not trustworthy: " + "; ".join(problems)
    elif better and worse:
        outcome = "mixed"
        headline = f"Mixed: B is better on {_named(primary, better)}, worse on {_named(primary, worse)}"
    elif better or worse:
        outcome = "better" if better else "worse"
        headline = f"B is {outcome} on {_named(primary, better or worse)}{_rest(primary, better or worse)}"
    else:
        outcome, headline = "no evidence", "No evidence of a difference between A and B"
        if same:
            headline += ": they are the same bundle"
        elif not primary:
            headline += ": nothing could be compared"
    return ABDecision(outcome=outcome, headline=headline, lines=lines, level=level)


def _line(name: str, effect: Effect) -> str:
    if effect.difference is None or effect.a is None or effect.b is None:
        return f"{name}: not defined on these rows ({effect.users:,} users)"
    return (
        f"{name}: A {effect.a:.4f}, B {effect.b:.4f}, difference {signed(effect.difference)} "
        f"{interval(effect)}, {effect.users:,} users: {verdict(effect, 'B')}"
    )


def _named(primary: Mapping[str, Effect], names: Sequence[str]) -> str:
    return enumerate_names([f"{name} ({primary[name].difference or 0.0:+.4f})" for name in names])


def _rest(primary: Mapping[str, Effect], decided: Sequence[str]) -> str:
    rest = [name for name in primary if name not in decided]
    return f"; no evidence on {enumerate_names(rest)}" if rest else ""
