"""A page drawn position by position under the rules, on one side of the coin."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.policy.inputs import Floats, Ints, PolicyInput, PolicyParameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What the coin says of one page."""

    explored: bool
    uniform: int | None
    """Place on the page of the uniformly drawn item, if it is there."""


def pinned_slots(candidates: PolicyInput, length: int, start: int) -> Ints:
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
class Steps:
    """A page's items, and what each step was for either side of the coin."""

    order: Ints
    """[K] candidates."""
    log_drawn: Floats
    """[K], log-probability that Plackett-Luce draws this one of those left; 0 for a pinned one."""
    greedy: npt.NDArray[np.bool_]
    """[K], whether it is also the greedy choice of those left; a pinned one is."""
    num_allowed: Ints
    """[K], items that the rules allow there; 1 for a pinned one."""

    @classmethod
    def pinned(cls, slots: Ints) -> "Steps":
        """Make a page [K] of the pinned items; those that are drawn are to be filled in."""
        size = slots.size
        return cls(
            order=slots.copy(),
            log_drawn=np.zeros(size),
            greedy=np.ones(size, np.bool_),
            num_allowed=np.ones(size, np.int64),
        )


def draw_page(
    candidates: PolicyInput,
    parameters: PolicyParameters,
    slots: Ints,
    rng: np.random.Generator,
    side: Side,
) -> Steps:
    """Draw a page on one side of the coin."""
    penalised = parameters.mmr > 0.0 and candidates.embeddings is not None
    capped = parameters.max_per_category or (parameters.max_repeats and candidates.repeats is not None)
    draw = _draw_in_steps if penalised or capped else _draw_at_once
    return draw(candidates, parameters, slots, rng, side)


def _draw_at_once(
    candidates: PolicyInput,
    parameters: PolicyParameters,
    slots: Ints,
    rng: np.random.Generator,
    side: Side,
) -> Steps:
    """Draw a page on which no rule depends on the items above."""
    drawable = np.arange(len(candidates.scores))
    if candidates.pins:
        drawable = np.delete(drawable, list(candidates.pins.values()))
    logits = candidates.scores[drawable] / parameters.temperature
    best = np.argsort(-logits, kind="stable")
    free = slots < 0
    num_drawn = int(free.sum())
    order = best
    if side.explored:
        order = np.argsort(-(logits + rng.gumbel(size=len(logits))), kind="stable")
    elif side.uniform is not None:
        at = int(free[: side.uniform].sum())
        order = _moved(best, int(rng.integers(at, len(best))), at)
    steps = Steps.pinned(slots)
    steps.order[free] = drawable[order[:num_drawn]]
    # Of what is left at each step; summed from the end, in logarithms, so that no small weight is lost.
    log_left = np.logaddexp.accumulate(logits[order][::-1])[::-1]
    steps.log_drawn[free] = (logits[order] - log_left)[:num_drawn]
    rank = np.empty_like(best)
    rank[best] = np.arange(len(best))
    best_left = np.minimum.accumulate(rank[order][::-1])[::-1]
    steps.greedy[free] = (rank[order] == best_left)[:num_drawn]
    steps.num_allowed[free] = len(order) - np.arange(num_drawn)
    return steps


def _moved(order: Ints, start: int, stop: int) -> Ints:
    """Take the entry at `start` out and put it in at `stop`, which is not below it."""
    return np.concatenate([order[:stop], order[start : start + 1], order[stop:start], order[start + 1 :]])


def _draw_in_steps(
    candidates: PolicyInput,
    parameters: PolicyParameters,
    slots: Ints,
    rng: np.random.Generator,
    side: Side,
) -> Steps:
    """Draw a page position by position: caps and similarities depend on the items above."""
    remaining = RemainingCandidates(candidates, parameters)
    uniforms = rng.random(len(slots))
    steps = Steps.pinned(slots)
    for k, pinned in enumerate(slots.tolist()):
        chosen = pinned
        if pinned < 0:
            logits = remaining.logits()
            best = int(np.argmax(logits))
            allowed = np.flatnonzero(np.isfinite(logits))
            chosen = best
            if side.explored:
                chosen = _sample(logits, uniforms[k])
            elif k == side.uniform:
                chosen = int(allowed[int(uniforms[k] * allowed.size)])
            shifted = logits - logits[best]
            steps.log_drawn[k] = shifted[chosen] - math.log(float(np.exp(shifted).sum()))
            steps.greedy[k] = chosen == best
            steps.num_allowed[k] = allowed.size
            steps.order[k] = chosen
        remaining.place(chosen)
    return steps


class RemainingCandidates:
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
