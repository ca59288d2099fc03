"""The policy of a list: orders scored candidates position by position, with the propensity of each item.

Each list flips one coin. With probability 1 - epsilon the list is greedy; otherwise it is drawn by
Plackett-Luce (PL), one position after the other. The rules apply inside the draw: at each position only the
items that the rules allow there take part. So the first k items of a list (its prefix) have the probability

    P(prefix) = G + D    G = (1 - epsilon) * 1[the greedy list begins with it],    D = epsilon * PL(prefix)

and the propensity of position k is P(prefix k) / P(prefix k - 1): the probability of that item given the
items above it, the coin included. A pinned item has propensity 1 and takes no part in the draw.

A list may be shown in several pages, and each page is ranked anew: with the candidates and scores of its own
instant, perhaps by another version, under rules that apply within the page. Write s for the items shown on
the pages before, and H for everything else that has happened since: a new version, withdrawn items, what the
user did. H may depend on s, but given s it does not depend on the coin, which nobody else sees. So by Bayes

    P(explore | s, H) = P(explore | s) = D(s) / (G(s) + D(s))

and the probability of the next item i, given everything shown above it, is

    P(i | s, H) = P(greedy | s) * 1[i is the greedy choice now] + P(explore | s) * PL_now(i)
                = (G(s + i) + D(s + i)) / (G(s) + D(s))

where G is multiplied by the indicator and D by the PL probability under the version that ranks the page. So
two numbers, log G and log D, are all that a page needs to know of the pages before (`PrefixProbability`),
and versions may change between pages. Three rules keep this exact:

- The coin is the list's, flipped on page 1; epsilon is that of page 1.
- A page draws with random numbers of its own: those of page 1 are not uniform any more once s is known.
- A page that must not explore (the journal is down) is greedy on both sides of the coin: it shows nothing of
  the coin, so G and D stay and its propensities are 1.

Without caps and similarity penalty nothing changes from step to step but what is left. Then the whole page is
drawn at once: with independent Gumbel noise on the logits, their descending order is a Plackett-Luce draw
(Yellott 1977, Journal of Mathematical Psychology 15; Kool et al. 2019, arXiv 1903.06059).

Legend: N candidates, K positions of a page, D dimensions of an item embedding.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from recsys.errors import ConfigError

PropensityKind = Literal["exact", "pinned", "seeded", "degraded"]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
POLICIES = ("greedy", "epsilon_plackett_luce")
_SMALLEST = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyParameters:
    """The policy's parameters; logged with every request."""

    name: str = "epsilon_plackett_luce"
    epsilon: float = 0.1
    """Share of requests that explore."""
    temperature: float = 0.1
    """Scores are divided by this in the Plackett-Luce draw."""
    max_per_category: int = 0
    """Largest number of items of one category on a page; 0 = no cap. When only capped items are left, they
    are shown all the same."""
    max_repeats: int = 0
    """Largest number of items on a page that the user took before; 0 = no cap. As with categories, when only
    such items are left, they are shown all the same."""
    mmr: float = 0.0
    """Weight of the similarity penalty (maximal marginal relevance): the greatest cosine similarity to the
    items already placed on the page."""

    def __post_init__(self) -> None:
        if self.name not in POLICIES:
            raise ConfigError(f"[policy] name = {self.name!r} is unknown; known: {', '.join(POLICIES)}")

    def greedy(self) -> "PolicyParameters":
        """Return the same rules without exploration."""
        return replace(self, name="greedy", epsilon=0.0)

    @property
    def explore_share(self) -> float:
        """Return epsilon, 0 for the greedy policy."""
        return 0.0 if self.name == "greedy" else self.epsilon


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyInput:
    """One request's candidates as the policy needs them.

    Candidates with equal scores are shown in this order, so it must be deterministic.
    """

    scores: Floats
    """[N], finite."""
    categories: Ints
    """[N]; negative: the item has no category and is never capped."""
    embeddings: npt.NDArray[np.float32] | None = None
    """[N, D] unit vectors; needed when mmr > 0."""
    repeats: npt.NDArray[np.bool_] | None = None
    """[N]: the user took the item before; needed when max_repeats > 0."""
    pins: Mapping[int, int] = field(default_factory=dict)
    """Position in the whole list (from 0) -> candidate; none before the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixProbability:
    """The coin of a list, and the probability of the items shown so far, for either side of the coin."""

    explored: bool
    """Whether the coin came up "explore"."""
    log_greedy: float
    """log G; -inf when a greedy list would not begin with these items."""
    log_drawn: float
    """log D; -inf for a list that never explores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnRanking:
    """The drawn order of one page with its propensities, top first."""

    order: Ints
    """[K] candidates."""
    propensity: Floats
    """[K], in (0, 1]."""
    kinds: tuple[PropensityKind, ...]
    explored: bool
    """Whether this page was drawn; else it is greedy."""
    prefix: PrefixProbability
    """Of the list up to the end of this page."""


def draw_ranking(
    candidates: PolicyInput,
    parameters: PolicyParameters,
    length: int,
    seed: int,
    *,
    start: int = 0,
    prefix: PrefixProbability | None = None,
) -> DrawnRanking:
    """Fill `length` positions of a list, or fewer when there are fewer candidates.

    The same arguments give the same ranking, and a longer page begins with the shorter one. An item pinned
    below the end of the list comes last.
    Args: seed: of the list. start: the page's first position, from 0. prefix: of the pages before; None on
    page 1, which flips the coin.
    """
    rng = np.random.default_rng([seed, start])
    if prefix is None:
        prefix = _flip_coin(parameters.explore_share, float(rng.random()))
    explores = parameters.explore_share > 0.0
    explored = explores and prefix.explored
    slots = _pinned_slots(candidates, min(length, len(candidates.scores)), start)
    penalised = parameters.mmr > 0.0 and candidates.embeddings is not None
    capped = parameters.max_per_category or (parameters.max_repeats and candidates.repeats is not None)
    draw = _draw_in_steps if penalised or capped else _draw_at_once
    drawn = draw(candidates, parameters, slots, rng, explored)
    propensity, prefix = _extend(prefix, drawn) if explores else (np.ones(len(slots)), prefix)
    return DrawnRanking(
        order=drawn.order,
        propensity=propensity,
        kinds=tuple("exact" if slot < 0 else "pinned" for slot in slots.tolist()),
        explored=explored,
        prefix=prefix,
    )


def _flip_coin(explore_share: float, uniform: float) -> PrefixProbability:
    """Begin a list: nothing is shown yet, so the two sides of the coin have their own probabilities."""
    return PrefixProbability(
        explored=uniform < explore_share, log_greedy=_log(1.0 - explore_share), log_drawn=_log(explore_share)
    )


def _pinned_slots(candidates: PolicyInput, length: int, start: int) -> Ints:
    """Return the candidate pinned to each position [K], -1 where one is drawn.

    When no others are left, those pinned further down move up.
    """
    slots = np.full(length, -1, dtype=np.int64)
    pins = dict(sorted(candidates.pins.items()))
    num_drawable = len(candidates.scores) - len(pins)
    for k in range(length if pins else 0):
        position = start + k if num_drawable else next(iter(pins))
        slots[k] = pins.pop(position, -1)
        num_drawable -= slots[k] < 0
    return slots


@dataclass(frozen=True, slots=True, kw_only=True)
class _Steps:
    """A page's items, and what each step was for either side of the coin."""

    order: Ints
    """[K] candidates."""
    log_drawn: Floats
    """[K], log-probability that Plackett-Luce draws this one of those left; 0 for a pinned one."""
    greedy: npt.NDArray[np.bool_]
    """[K], whether it is also the greedy choice of those left; a pinned one is."""

    @classmethod
    def pinned(cls, slots: Ints) -> "_Steps":
        """Make a page [K] of the pinned items; those that are drawn are to be filled in."""
        return cls(order=slots.copy(), log_drawn=np.zeros(slots.size), greedy=np.ones(slots.size, np.bool_))


def _extend(prefix: PrefixProbability, steps: _Steps) -> tuple[Floats, PrefixProbability]:
    """Return the propensities [K] of a page, and the prefix with it."""
    log_drawn = prefix.log_drawn + np.cumsum(steps.log_drawn)
    log_greedy = np.where(np.logical_and.accumulate(steps.greedy), prefix.log_greedy, -np.inf)
    log_prefix = np.empty(len(log_drawn) + 1)
    log_prefix[0] = np.logaddexp(prefix.log_greedy, prefix.log_drawn)
    np.logaddexp(log_greedy, log_drawn, out=log_prefix[1:])
    conditional = np.exp(np.minimum(0.0, log_prefix[1:] - log_prefix[:-1]))
    if len(log_drawn):
        prefix = replace(prefix, log_greedy=float(log_greedy[-1]), log_drawn=float(log_drawn[-1]))
    return np.maximum(conditional, _SMALLEST), prefix


def _draw_at_once(
    candidates: PolicyInput,
    parameters: PolicyParameters,
    slots: Ints,
    rng: np.random.Generator,
    explored: bool,
) -> _Steps:
    """Draw a page on which no rule depends on the items above."""
    drawable = np.arange(len(candidates.scores))
    if candidates.pins:
        drawable = np.delete(drawable, list(candidates.pins.values()))
    logits = candidates.scores[drawable] / parameters.temperature
    best = np.argsort(-logits, kind="stable")
    order = np.argsort(-(logits + rng.gumbel(size=len(logits))), kind="stable") if explored else best
    free = slots < 0
    num_drawn = int(free.sum())
    steps = _Steps.pinned(slots)
    steps.order[free] = drawable[order[:num_drawn]]
    # Of what is left at each step; summed from the end, in logarithms, so that no small weight is lost.
    log_left = np.logaddexp.accumulate(logits[order][::-1])[::-1]
    steps.log_drawn[free] = (logits[order] - log_left)[:num_drawn]
    steps.greedy[free] = order[:num_drawn] == best[:num_drawn]
    return steps


def _draw_in_steps(
    candidates: PolicyInput,
    parameters: PolicyParameters,
    slots: Ints,
    rng: np.random.Generator,
    explored: bool,
) -> _Steps:
    """Draw a page position by position: caps and similarities depend on the items above."""
    remaining = _RemainingCandidates(candidates, parameters)
    uniforms = rng.random(len(slots))
    steps = _Steps.pinned(slots)
    for k, pinned in enumerate(slots.tolist()):
        chosen = pinned
        if pinned < 0:
            logits = remaining.logits()
            best = int(np.argmax(logits))
            chosen = _sample(logits, uniforms[k]) if explored else best
            shifted = logits - logits[best]
            steps.log_drawn[k] = shifted[chosen] - math.log(float(np.exp(shifted).sum()))
            steps.greedy[k] = chosen == best
            steps.order[k] = chosen
        remaining.place(chosen)
    return steps


class _RemainingCandidates:
    """The candidates not yet placed on this page, and their logits under its rules."""

    def __init__(self, candidates: PolicyInput, parameters: PolicyParameters) -> None:
        self._input = candidates
        self._cap = parameters.max_per_category
        self._repeats = candidates.repeats if parameters.max_repeats else None
        self._repeats_left = parameters.max_repeats
        self._mmr = parameters.mmr / parameters.temperature if candidates.embeddings is not None else 0.0
        self._logits = candidates.scores / parameters.temperature
        self._drawable = np.ones(len(candidates.scores), dtype=np.bool_)
        self._drawable[list(candidates.pins.values())] = False
        self._counts: dict[int, int] = {}
        self._capped = np.zeros(len(self._input.scores), dtype=np.bool_)
        self._similarity: npt.NDArray[np.float32] | None = None

    def logits(self) -> Floats:
        """Return unnormalised log-probabilities [N]; -inf where the next position may not have the item."""
        allowed = self._drawable & ~self._capped
        if not allowed.any():
            allowed = self._drawable
        logits = self._logits
        if self._similarity is not None:
            logits = logits - self._mmr * self._similarity
        return np.where(allowed, logits, -np.inf)

    def place(self, chosen: int) -> None:
        """Remove a candidate and update caps and similarities with it."""
        self._drawable[chosen] = False
        if self._cap and (category := int(self._input.categories[chosen])) >= 0:
            self._counts[category] = self._counts.get(category, 0) + 1
            if self._counts[category] >= self._cap:
                self._capped |= self._input.categories == category
        if self._repeats is not None and self._repeats[chosen]:
            self._repeats_left -= 1
            if not self._repeats_left:
                self._capped |= self._repeats
        if self._mmr and self._input.embeddings is not None:
            similarity = self._input.embeddings @ self._input.embeddings[chosen]
            self._similarity = (
                similarity if self._similarity is None else np.maximum(self._similarity, similarity)
            )


def _sample(logits: Floats, uniform: float) -> int:
    """Invert the cumulative distribution at a uniform number in [0, 1)."""
    weights = np.exp(logits - logits.max())
    cumulative = np.cumsum(weights)
    # side="right" skips candidates of weight zero; rounding may still give an index past the last one.
    chosen = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
    return min(chosen, int(np.flatnonzero(weights)[-1]))


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0.0 else -math.inf
