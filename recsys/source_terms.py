"""What beside the heads makes a score: each source's own score, with a weight and what it is made by.

score = heads * what the heads' predictions give + sum of weight * score of a source

`heads` keeps the sum as wide inside a list as the heads' part alone would be: so what is in the unit of the
score, such as a policy's temperature, acts as it does without sources.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

SourceName = Literal["retrieval", "item_item", "repeat", "popular", "item_bias", "newcomer"]
NAMES: Final[tuple[SourceName, ...]] = get_args(SourceName)
OF_PAST: Final[frozenset[SourceName]] = frozenset({"item_item", "repeat"})
"""Those that score by what the user took before."""
PREFIX: Final = "source:"
"""Before a source's name where it stands among tasks: in a request's weights, and in explanations."""

Scores = npt.NDArray[np.float64]
SourceScores = Mapping[str, npt.NDArray[np.float32]]
"""Source -> its score [N]."""


class SourceTerms(BaseModel):
    """The sources' part of a score, as a bundle's manifest keeps it; a weight of 0 leaves a source out.

    It also says what the bundle's item-item table counts: that table gives candidates without any weight.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    heads: float = Field(default=1.0, gt=0)
    """Factor of what the heads give; bundles that were made before it have 1."""
    retrieval: float = 0.0
    """Weight of the cosine of user and item."""
    item_item: float = 0.0
    """Weight of what the user's earlier items say for the item."""
    repeat: float = 0.0
    """Weight of how often the user took the item before."""
    popular: float = 0.0
    """Weight of how often all took it lately, as a share of the most popular item's, on a log scale."""
    item_bias: float = 0.0
    """Weight of how much oftener it was chosen than the heads expected, a logarithm."""
    newcomer: float = 0.0
    """Weight of how new an item is to those who are shown lists: 1 to 0, see `recsys.newcomers`."""
    newcomer_impressions: float = Field(default=50.0, gt=0)
    """An item that was shown so often is new no more."""
    item_item_days: float = Field(default=30.0, gt=0)
    """Half-life of an earlier item in what it says for others."""
    repeat_days: float = Field(default=60.0, gt=0)
    """Half-life of the times that the user took the item."""
    item_item_order: bool = False
    """Whether the item-item table counts what was taken before an item."""
    item_item_attributes: bool = False
    """Whether it counts what items have in common."""
    item_item_walks: float = Field(default=0.0, ge=0)
    """Share of walks that is added to it, as wide as the rest at 1."""
    item_item_positive: bool = False
    """Whether its cut keeps weights above 0 alone."""

    @model_serializer(mode="wrap")
    def _as_older_ones(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is as in bundles from before it: so their manifests keep their hash."""
        found: dict[str, Any] = handler(self)
        return {name: v for name, v in found.items() if v != _BEFORE.get(name)}

    @property
    def weights(self) -> dict[str, float]:
        """Give the weight of each source that has one."""
        found = {name: float(getattr(self, name)) for name in NAMES}
        return {name: weight for name, weight in found.items() if weight}

    @property
    def are_fitted(self) -> bool:
        """Tell whether the weights were fitted to lists; the rule alone gives one to `item_bias`."""
        return bool(self.weights) and not self.item_bias

    @property
    def heads_factor(self) -> float:
        """Give what multiplies the heads' part: without any source's weight nothing does."""
        return self.heads if self.weights else 1.0

    def contributions(self, scores: SourceScores) -> dict[str, Scores]:
        """Give the part [N] of each source with a weight."""
        return {name: weight * scores[name].astype(np.float64) for name, weight in self.weights.items()}

    def total(self, scores: SourceScores) -> Scores:
        """Give the sum of the parts [N]. Args: scores: of every source with a weight."""
        parts = list(self.contributions(scores).values())
        size = len(next(iter(scores.values()), ()))
        found: Scores = np.sum(parts, axis=0) if parts else np.zeros(size)
        return found


_BEFORE: Final = {
    "heads": 1.0,
    "item_bias": 0.0,
    "newcomer": 0.0,
    "newcomer_impressions": 50.0,
    "item_item_order": False,
    "item_item_attributes": False,
    "item_item_walks": 0.0,
    "item_item_positive": False,
}
NO_SOURCES: Final = SourceTerms()


def same_days(one: SourceTerms, other: SourceTerms) -> bool:
    """Tell whether two scores count the past with the same half-lives."""
    return (one.item_item_days, one.repeat_days) == (other.item_item_days, other.repeat_days)
