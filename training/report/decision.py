"""Primary comparisons + leak checks -> one verdict in words; "no evidence" is one, and a frequent one."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from training.report.effects import PairedEffect

Outcome = Literal["b better", "a better", "mixed", "no evidence", "not trustworthy"]


class ABDecision(BaseModel):
    """What may be concluded, first thing in the report."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    outcome: Outcome
    headline: str
    lines: tuple[str, ...]
    """The numbers behind it, one line per primary comparison."""
    level: float
    """Level of each primary interval: together they err at most with the shared rate."""


def decide(
    primary: Mapping[str, PairedEffect], problems: Sequence[str], *, alpha: float, same: bool
) -> ABDecision:
    """Say which system is better, on what, and how sure that is.

    Args:
        primary: name -> comparison, at the level 1 - alpha / number of comparisons.
        problems: reasons why no figure here may be believed (days that a bundle learnt from).
        same: A and B are one bundle.
    """
    level = 1 - alpha / max(1, len(primary))
    lines = tuple(_line(name, effect) for name, effect in primary.items())
    b = [name for name, effect in primary.items() if effect.verdict == "b better"]
    a = [name for name, effect in primary.items() if effect.verdict == "a better"]
    outcome: Outcome
    if problems:
        outcome, headline = "not trustworthy", "Not trustworthy: " + "; ".join(problems)
    elif a and b:
        outcome, headline = "mixed", f"Mixed: B is better on {_won(primary, b)}, A on {_won(primary, a)}"
    elif b:
        outcome, headline = "b better", f"B is better on {_won(primary, b)}{_rest(primary, b)}"
    elif a:
        outcome, headline = "a better", f"A is better on {_won(primary, a)}{_rest(primary, a)}"
    else:
        outcome, headline = "no evidence", "No evidence of a difference between A and B"
        if same:
            headline += ": they are the same bundle"
        elif not primary:
            headline += ": nothing could be compared"
    return ABDecision(outcome=outcome, headline=headline, lines=lines, level=level)


def _line(name: str, effect: PairedEffect) -> str:
    if effect.diff is None or effect.a is None or effect.b is None:
        return f"{name}: not defined on these rows ({effect.users:,} users)"
    interval = (
        "no interval"
        if effect.ci_low is None or effect.ci_high is None
        else f"[{effect.ci_low:+.4f}, {effect.ci_high:+.4f}]"
    )
    return (
        f"{name}: A {effect.a:.4f}, B {effect.b:.4f}, difference {effect.diff:+.4f} {interval}, "
        f"{effect.users:,} users: {effect.verdict.replace('a b', 'A b').replace('b b', 'B b')}"
    )


def _won(primary: Mapping[str, PairedEffect], names: Sequence[str]) -> str:
    return _and([f"{name} ({primary[name].diff or 0.0:+.4f})" for name in names])


def _rest(primary: Mapping[str, PairedEffect], won: Sequence[str]) -> str:
    rest = [name for name in primary if name not in won]
    return f"; no evidence on {_and(rest)}" if rest else ""


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
