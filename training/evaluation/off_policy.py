"""Logged requests with their candidates -> what two policies would earn, by `recsys.offpolicy`.

A policy is a bundle's score, of its heads and its sources, under the rules and with the exploration that were
logged with each request. A list's reward is its labels at the top k, each place discounted by
1 / log2(1 + place). First pages alone: the log does not keep the state in which another page began.

Legend: N shown items of all requests, K places, C candidates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.errors import DataError
from recsys.fusion import Fusion
from recsys.metrics.columns import IntVector, Vector
from recsys.offpolicy.evaluate import PolicyComparison, compare
from recsys.offpolicy.logged import DRAWN, PINNED, ReadLists, read_lists
from recsys.offpolicy.target import Predictions, TargetPolicy
from recsys.policy import draw_ranking
from recsys.policy.given import place_distributions
from recsys.tasks import TaskSpec
from training.evaluation.choices import Choice

SHOWN_ESTIMATOR = "cascade_dr"
"""The one whose differences are printed; the JSON has all."""
AGREES = 0.01
"""A computed propensity is that of the log if it differs by no larger share."""


def discount(place: IntVector, k: int) -> Vector:
    """Give 1 / log2(1 + place) down to place k, 0 below."""
    return np.where(place <= k, 1.0 / np.log2(1.0 + place), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A policy in question: each request's candidates as a bundle predicts them, and its score."""

    choices: Sequence[Choice]
    fusion: Fusion
    version: str = ""
    """Of the bundle whose score it is; empty: of no bundle, as where weights are searched."""


def compare_off_policy(
    a: Asked, b: Asked, tasks: Sequence[TaskSpec], k: int, *, seed: int, replicates: int = 400
) -> tuple[dict[str, PolicyComparison], list[str]]:
    """Compare two policies by each task that every impression has a label of; with notes of what is missing.

    Args: a, b: the same requests in the same order.
    """
    if not a.choices:
        return {}, ["no request of these users has a logged candidate set: no off-policy check"]
    found, notes = {}, []
    logged = _Rows.of(a.choices, k)
    targets = [_Target.of(asked, k) for asked in (a, b)]
    notes += _agreements({"A": a, "B": b}, targets, logged)
    for task in tasks:
        if task.space != "impressions" or not task.kind.probability:
            continue
        try:
            read = logged.lists(task.name, k)
        except DataError as error:
            notes.append(f"no off-policy value of {task.name}: {error}")
            continue
        sides = [target.policy(read, logged, task.name) for target in targets]
        found[task.name] = compare(read.lists, *sides, seed=seed, replicates=replicates)
    return found, notes


def trust_notes(compared: Mapping[str, PolicyComparison], names: tuple[str, str] = ("A", "B")) -> list[str]:
    """Say which off-policy differences are not trustworthy, and why. Args: names: of the two policies."""
    notes = []
    for task, both in compared.items():
        sides = (both.a, both.b)
        why = [f"{name}: {p}" for name, side in zip(names, sides, strict=True) for p in side.problems]
        places = min(side.support.places_supported for side in sides)
        if why:
            notes.append(
                f"NOT TRUSTWORTHY: the off-policy value of {task}: {'; '.join(why)}; the first {places} "
                "places have enough support"
            )
    return notes


def _agreements(asked: Mapping[str, Asked], targets: Sequence["_Target"], logged: "_Rows") -> list[str]:
    """Say of each bundle that made some of the lists itself whether it would do so again: propensities are
    computed from what the log tells of a request, which the server that wrote them knew at first hand.
    """
    notes = []
    for (name, of), target in zip(asked.items(), targets, strict=True):
        own = np.array([bool(of.version) and c.bundle_version == of.version for c in of.choices])
        rows = own[logged.group] & np.isin(logged.kind, DRAWN) & (logged.propensity > 0)
        if rows.any():
            ratio = target.probability[rows] / logged.propensity[rows]
            alike = float((np.abs(ratio - 1.0) <= AGREES).mean())
            notes.append(
                f"{name} made {int(own.sum()):,} of these lists itself: at {alike:.0%} of their "
                f"{ratio.size:,} places its probability as computed here is within {AGREES:.0%} of the "
                "logged propensity"
            )
    return notes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """What was shown at the first k places of all requests [N], as logged."""

    group: IntVector
    """Number of the request."""
    user: npt.NDArray[np.str_]
    position: IntVector
    propensity: Vector
    kind: npt.NDArray[np.str_]
    labels: Mapping[str, Vector]

    @classmethod
    def of(cls, choices: Sequence[Choice], k: int) -> "_Rows":
        tops = [_top(choice, k) for choice in choices]
        sizes = [int(top.sum()) for top in tops]

        def joined(parts: Sequence[npt.NDArray[np.generic]]) -> npt.NDArray[np.generic]:
            return np.concatenate([part[top] for part, top in zip(parts, tops, strict=True)])

        return cls(
            group=np.repeat(np.arange(len(choices)), sizes),
            user=np.repeat(np.array([c.user_id for c in choices]), sizes),
            position=joined([c.position for c in choices]).astype(np.int64),
            propensity=joined([c.propensity for c in choices]).astype(np.float64),
            kind=joined([np.array(_kinds(c)) for c in choices]).astype(np.str_),
            labels={
                task: joined([c.labels[task] for c in choices]).astype(np.float64)
                for task in choices[0].labels
            },
        )

    def lists(self, task: str, k: int) -> ReadLists:
        return read_lists(
            group=self.group,
            unit=self.user,
            position=self.position,
            reward=self.labels[task] * discount(self.position, k),
            propensity=self.propensity,
            kind=self.kind,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """What a policy would do at the places of all requests [N], and what its model says of that."""

    probability: Vector
    """[N]: of the shown item, given those above."""
    shown: Mapping[str, Vector]
    """[N]: discounted prediction."""
    expected: Mapping[str, Vector]
    """[N]: the same over what the policy would put there."""
    direct: Mapping[str, Vector]
    """By request: of a list that the policy draws."""

    @classmethod
    def of(cls, asked: Asked, k: int) -> "_Target":
        parts = [_of_choice(choice, asked.fusion, k, number) for number, choice in enumerate(asked.choices)]
        tasks = list(asked.choices[0].labels)
        return cls(
            probability=np.concatenate([part.probability for part in parts]),
            shown={t: np.concatenate([part.shown[t] for part in parts]) for t in tasks},
            expected={t: np.concatenate([part.expected[t] for part in parts]) for t in tasks},
            direct={t: np.concatenate([part.direct[t] for part in parts]) for t in tasks},
        )

    def policy(self, read: ReadLists, logged: _Rows, task: str) -> TargetPolicy:
        there = read.row >= 0

        def spread(values: Vector, otherwise: float) -> Vector:
            return np.where(there, values[read.row], otherwise)

        model = Predictions.of_places(
            spread(self.shown[task], 0.0),
            spread(self.expected[task], 0.0),
            self.direct[task][logged.group[read.row[:, 0]]],
        )
        return TargetPolicy.of(spread(self.probability, 1.0), model)


def _of_choice(choice: Choice, fusion: Fusion, k: int, seed: int) -> _Target:
    """Follow the shown list of one request, and draw one of the policy's own."""
    candidates, top = choice.policy_input(fusion), _top(choice, k)
    shown, place = choice.shown[top], discount(choice.position[top], k)
    # As long as the page that was asked for: rewards are of no more places.
    drawn = draw_ranking(candidates, choice.rules, max(1, shown.size), seed)
    # A list of which places are missing is left out: what the policy would do after the rest is not asked.
    # One that shows an item twice, or a pinned one too low, is none of the policy's.
    whole = choice.position[top].tolist() == list(range(1, len(shown) + 1)) and _may_be_shown(choice, shown)
    known = {t: values.astype(np.float64) for t, values in choice.predictions.items() if t in choice.labels}
    chances = np.zeros((len(shown), len(candidates.scores)))
    if whole:
        chances = place_distributions(candidates, choice.rules, shown)
    own = discount(np.arange(1, len(drawn.order) + 1), k) * np.array([kind != PINNED for kind in drawn.kinds])
    return _Target(
        probability=np.minimum(chances[np.arange(len(shown)), shown], 1.0),
        shown={t: values[shown] * place for t, values in known.items()},
        expected={t: (chances @ values) * place for t, values in known.items()},
        direct={t: np.array([values[drawn.order] @ own]) for t, values in known.items()},
    )


def _kinds(choice: Choice) -> tuple[str, ...]:
    """Give the kinds of a list's propensities; a cap of repeats acts on what the user took before."""
    if choice.rules.max_repeats and choice.repeats is None:
        return ("under max_repeats of a past that is not known",) * len(choice.kind)
    return choice.kind


def _may_be_shown(choice: Choice, shown: IntVector) -> bool:
    return len(np.unique(shown)) == len(shown) and all(
        place <= at for at, pin in choice.pins.items() for place in np.flatnonzero(shown == pin)
    )


def _top(choice: Choice, k: int) -> npt.NDArray[np.bool_]:
    return choice.position <= k
