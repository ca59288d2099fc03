"""Scores -> positions, step by step under rules, with the exact probability of every step.

One coin a request: heads (probability 1 - epsilon) the list is greedy, tails it is drawn by Plackett-Luce,
one position after the other. Rules act inside the draw: at each step only the items that may stand there
take part, so a list's first k items have the probability

    P(prefix) = (1 - epsilon) * 1[prefix is the greedy one] + epsilon * PL(prefix)

and the propensity of position k is P(prefix k) / P(prefix k - 1): the probability of that item given the
items above it, the coin included. A pinned item has propensity 1 and takes no part in the draw.

Legend: N candidates, K positions, D dimensions of an item embedding.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from recsys.errors import ConfigError

Kind = Literal["exact", "pinned", "degraded"]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
POLICIES = ("greedy", "epsilon_plackett_luce")
_SMALLEST = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyParameters:
    """What the policy is told; logged with every request."""

    name: str = "epsilon_plackett_luce"
    epsilon: float = 0.1
    """Share of requests that explore."""
    temperature: float = 0.1
    """Scores are divided by this in the Plackett-Luce draw."""
    max_per_category: int = 0
    """At most so many items of one category on a page; 0 = no cap. Caps yield when only capped items are
    left."""
    mmr: float = 0.0
    """Weight of the greatest cosine similarity to the items already placed on the page."""

    def __post_init__(self) -> None:
        if self.name not in POLICIES:
            raise ConfigError(f"[policy] name = {self.name!r} is unknown; known: {', '.join(POLICIES)}")

    def greedy(self) -> "PolicyParameters":
        """Give the same rules without exploration."""
        return replace(self, name="greedy", epsilon=0.0)

    @property
    def explore_share(self) -> float:
        """Give epsilon, 0 for the greedy policy."""
        return 0.0 if self.name == "greedy" else self.epsilon


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Candidates that may be shown; order breaks ties, so it must not depend on chance."""

    scores: Floats
    """[N], finite."""
    categories: Ints
    """[N]; negative: of no category, never capped."""
    embeddings: npt.NDArray[np.float32] | None = None
    """[N, D] unit vectors; needed when mmr > 0."""
    pins: Mapping[int, int] = field(default_factory=dict)
    """Position (from 0) -> candidate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What stands where, top first."""

    order: Ints
    """[K] candidates."""
    propensity: Floats
    """[K], in (0, 1]."""
    kinds: tuple[Kind, ...]
    explored: bool
    """Whether the coin came up "explore"."""


def draw(
    pool: Pool, parameters: PolicyParameters, length: int, seed: int, pages: tuple[int, ...] = ()
) -> Draw:
    """Fill positions 0 .. length - 1; fewer when the pool is smaller.

    The same arguments give the same draw, and a longer one begins with the shorter one. `pages` are the
    positions where pages after the first begin: caps and mmr look at one page only. A pin further down than
    the list is long ends up at its end.
    """
    rng = np.random.default_rng(seed)
    explored = bool(rng.random() < parameters.explore_share)
    length = min(length, len(pool.scores))
    uniforms = rng.random(length)
    crowd = _Crowd(pool, parameters)
    prefix = _Prefix(parameters.explore_share)
    order = np.empty(length, dtype=np.int64)
    for position in range(length):
        if position in pages:
            crowd.turn_page()
        chosen = crowd.take_pin(position)
        if chosen is None:
            logits = crowd.logits()
            chosen = _sample(logits, uniforms[position]) if explored else int(np.argmax(logits))
            prefix.extend(logits, chosen)
        else:
            prefix.extend_pinned()
        order[position] = chosen
        crowd.place(chosen)
    return Draw(
        order=order, propensity=np.array(prefix.propensity), kinds=tuple(prefix.kinds), explored=explored
    )


class _Crowd:
    """Who may stand at the next position, and with which weight."""

    def __init__(self, pool: Pool, parameters: PolicyParameters) -> None:
        self._pool = pool
        self._cap = parameters.max_per_category
        self._mmr = parameters.mmr / parameters.temperature if pool.embeddings is not None else 0.0
        self._logits = pool.scores / parameters.temperature
        self._pins = dict(sorted(pool.pins.items()))
        self._free = np.ones(len(pool.scores), dtype=np.bool_)
        self._free[list(pool.pins.values())] = False
        self._num_free = int(self._free.sum())
        self.turn_page()

    def turn_page(self) -> None:
        """Forget what the page before held."""
        self._counts: dict[int, int] = {}
        self._capped = np.zeros(len(self._pool.scores), dtype=np.bool_)
        self._similarity: npt.NDArray[np.float32] | None = None

    def take_pin(self, position: int) -> int | None:
        """Give the candidate pinned here; when no other is left, the one pinned next."""
        if self._num_free == 0:
            position = next(iter(self._pins), position)
        return self._pins.pop(position, None)

    def logits(self) -> Floats:
        """Give unnormalised log-probabilities [N]; -inf where a candidate may not stand."""
        allowed = self._free & ~self._capped
        if not allowed.any():
            allowed = self._free
        logits = self._logits
        if self._similarity is not None:
            logits = logits - self._mmr * self._similarity
        return np.where(allowed, logits, -np.inf)

    def place(self, chosen: int) -> None:
        """Take a candidate out of the field and let the rules see it."""
        self._num_free -= int(self._free[chosen])
        self._free[chosen] = False
        if self._cap and (category := int(self._pool.categories[chosen])) >= 0:
            self._counts[category] = self._counts.get(category, 0) + 1
            if self._counts[category] >= self._cap:
                self._capped |= self._pool.categories == category
        if self._mmr and self._pool.embeddings is not None:
            similarity = self._pool.embeddings @ self._pool.embeddings[chosen]
            self._similarity = (
                similarity if self._similarity is None else np.maximum(self._similarity, similarity)
            )


class _Prefix:
    """Probability of the list so far under both sides of the coin, in logarithms."""

    def __init__(self, explore_share: float) -> None:
        self._log_greedy = _log(1.0 - explore_share)
        self._log_drawn = _log(explore_share)
        self._log_prefix = 0.0
        self.propensity: list[float] = []
        self.kinds: list[Kind] = []

    def extend(self, logits: Floats, chosen: int) -> None:
        """Put a drawn candidate below the prefix."""
        top = logits.max()
        self._log_drawn += float(logits[chosen] - top) - math.log(float(np.exp(logits - top).sum()))
        if chosen != int(np.argmax(logits)):
            self._log_greedy = -math.inf
        log_prefix = _log_sum(self._log_greedy, self._log_drawn)
        conditional = math.exp(min(0.0, log_prefix - self._log_prefix))
        self._log_prefix = log_prefix
        self.propensity.append(max(conditional, _SMALLEST))
        self.kinds.append("exact")

    def extend_pinned(self) -> None:
        """Put a pinned candidate below the prefix: it stands there for certain."""
        self.propensity.append(1.0)
        self.kinds.append("pinned")


def _sample(logits: Floats, uniform: float) -> int:
    """Invert the cumulative distribution at a uniform number in [0, 1)."""
    weights = np.exp(logits - logits.max())
    cumulative = np.cumsum(weights)
    # side="right" steps over candidates of weight zero; rounding may still end behind the last one.
    chosen = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
    return min(chosen, int(np.flatnonzero(weights)[-1]))


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0.0 else -math.inf


def _log_sum(a: float, b: float) -> float:
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
