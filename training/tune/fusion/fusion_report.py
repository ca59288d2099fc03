"""FusionReport: everything that `recsys tune fusion` found, as JSON on disk."""

from collections.abc import Mapping, Sequence
from datetime import date

from pydantic import BaseModel, ConfigDict

from recsys.fusion import Fusion
from recsys.metrics.effect import Effect
from recsys.offpolicy.evaluate import PolicyComparison
from training.evaluation.off_policy import SHOWN_ESTIMATOR
from training.report.wording import verdict

NOT_TRUSTWORTHY = "not trustworthy"
MIN_EFFECTIVE = 50.0
"""A value of re-ranked lists that rests on fewer labels than this, by Kish's effective number, is not
trusted."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FrontPoint(_Part):
    """Weights of the Pareto front, and each task's value on both halves of the users."""

    fusion: Fusion
    found: dict[str, float]
    """On the users that were searched on: too high, because the search chose by it."""
    checked: dict[str, float]
    """On the others."""


class Candidate(_Part):
    """Proposed weights against the current ones, on users that were not searched on."""

    name: str
    fusion: Fusion
    effects: dict[str, Effect]
    """Task -> value now (a) and with these weights (b)."""
    off_policy: dict[str, PolicyComparison]
    """Task -> discounted labels at the top k of lists that a server would draw, by every estimator."""
    missing: tuple[str, ...] = ()
    """What has no off-policy value, and why."""
    truth: dict[str, Effect]
    """The same by the simulator's true probabilities; empty on other logs."""


class FusionReport(_Part):
    """What the search found."""

    version: str
    days: tuple[date, ...]
    requests: int
    users: tuple[int, int]
    """Searched on, checked on."""
    choices: int
    """Requests of the checked users with a logged candidate set."""
    k: int
    trials: int
    current: FrontPoint
    front: tuple[FrontPoint, ...]
    candidates: tuple[Candidate, ...]
    """The knee first, then the best of each task."""
    effective: dict[str, float]
    """Task -> effective labels behind its value, on the checked users."""
    examination: tuple[float, ...]
    """By position from 1: relative chance to be looked at."""
    notes: tuple[str, ...]

    def verdicts(self, candidate: Candidate) -> dict[str, dict[str, str]]:
        """Give the verdict by source and value; "not trustworthy" where it rests on too little."""
        sources: tuple[tuple[str, Mapping[str, Effect], Mapping[str, float]], ...] = (
            ("re-ranked", candidate.effects, self.effective),
            ("truth", candidate.truth, {}),
        )
        found = {
            source: {name: _verdict(e, behind.get(name, MIN_EFFECTIVE)) for name, e in effects.items()}
            for source, effects, behind in sources
        }
        found["off-policy"] = {
            name: NOT_TRUSTWORTHY if both.problems else verdict(both.effects[SHOWN_ESTIMATOR])
            for name, both in candidate.off_policy.items()
        }
        return found

    @staticmethod
    def off_policy_effects(candidate: Candidate) -> dict[str, Effect]:
        """Give the off-policy differences that are printed, task by task."""
        return {name: both.effects[SHOWN_ESTIMATOR] for name, both in candidate.off_policy.items()}

    @property
    def recommended(self) -> Candidate:
        """Give the knee."""
        return self.candidates[0]

    @property
    def toml(self) -> str:
        """Give the lines for the config."""
        return fusion_toml(self.recommended.fusion, self.days)


def _verdict(effect: Effect, effective: float) -> str:
    if effective < MIN_EFFECTIVE:
        return NOT_TRUSTWORTHY
    return verdict(effect)


def fusion_toml(fusion: Fusion, days: Sequence[date]) -> str:
    """Write a fusion as the `[fusion]` section of a config, and the days that chose it."""
    lines = ["[fusion]", f'formula = "{fusion.formula}"', "", "[fusion.weights]"]
    lines += [f"{name} = {term.weight!r}" for name, term in fusion.terms.items()]
    if any(term.offset for term in fusion.terms.values()):
        lines += ["", "[fusion.offsets]"]
        lines += [f"{name} = {term.offset!r}" for name, term in fusion.terms.items()]
    named = ", ".join(f'"{day}"' for day in days)
    lines += ["", "[chosen]", f"fusion_days = [{named}]"]
    return "\n".join(lines) + "\n"


def support_notes(effective: Mapping[str, float], what: str, unit: str) -> list[str]:
    """Name the estimates that rest on too few effective labels or places."""
    return [
        f"NOT TRUSTWORTHY: {what} of {task} rests on {size:.0f} effective {unit}, fewer than "
        f"{MIN_EFFECTIVE:.0f}; take more days"
        for task, size in effective.items()
        if size < MIN_EFFECTIVE
    ]


def weights_line(fusion: Fusion) -> str:
    """Print the weights on one line."""
    return ", ".join(f"{name} {term.weight:.4g}" for name, term in fusion.terms.items())
