"""What the policy reads: its parameters, and one request's candidates."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from recsys.errors import ConfigError

if TYPE_CHECKING:  # the policy of a server loads no config
    from recsys.config import PolicyConfig

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
POLICIES = ("greedy", "epsilon_plackett_luce")
PropensityKind = Literal["exact", "uniform", "pinned", "seeded", "degraded"]
"""Of `exact` and `uniform` ones the propensity is exact; a `uniform` item was drawn uniformly of those
allowed."""
DRAWN: tuple[PropensityKind, ...] = ("exact", "uniform")
"""Kinds of items that the policy chose, with a propensity that estimators may use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyParameters:
    """The policy's parameters; logged with every request."""

    name: str = "epsilon_plackett_luce"
    epsilon: float = 0.1
    """Share of requests that explore."""
    temperature: float = 0.1
    """Scores are divided by this in the Plackett-Luce draw."""
    uniform_share: float = 0.0
    """Share of requests with one uniformly drawn item, in a slot of the first UNIFORM_SLOTS positions."""
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

    @classmethod
    def of(cls, config: "PolicyConfig") -> Self:
        """Take them of `[policy]`."""
        return cls(
            name=config.name,
            epsilon=config.epsilon,
            temperature=config.temperature,
            uniform_share=config.uniform_share,
            max_per_category=config.max_per_category,
            max_repeats=config.max_repeats,
            mmr=config.mmr,
        )

    @classmethod
    def rules_of(cls, config: "PolicyConfig") -> Self:
        """Take the rules of `[policy]` with the default exploration: a bundle has no other keys of it."""
        return cls(max_per_category=config.max_per_category, max_repeats=config.max_repeats, mmr=config.mmr)

    @classmethod
    def of_log(cls, name: str, logged: Mapping[str, Any]) -> Self:
        """Read them as a server logs them with a request; what an older one did not write has its default."""
        mine = {"epsilon", "temperature", "uniform_share", "max_per_category", "max_repeats", "mmr"}
        return cls(name=name, **{key: value for key, value in logged.items() if key in mine})

    def greedy(self) -> "PolicyParameters":
        """Return the same rules without exploration."""
        return replace(self, name="greedy", epsilon=0.0, uniform_share=0.0)

    @property
    def explore_share(self) -> float:
        """Return epsilon, 0 for the greedy policy."""
        return 0.0 if self.name == "greedy" else self.epsilon

    @property
    def explores(self) -> bool:
        """Tell whether any list may be other than greedy."""
        return self.explore_share > 0.0 or self.uniform_share > 0.0


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
