"""`[fusion]`: how predictions become a score."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from recsys.config.section import Section
from recsys.fusion import Fusion
from recsys.tasks import TaskSpec


class FusionConfig(Section):
    """How predictions become a score; `recsys tune fusion` searches these values."""

    formula: str = "additive"
    """A name of `recsys.fusion.FORMULAS`."""
    weights: dict[str, float] = Field(default_factory=dict)
    """Task -> weight, instead of the `fusion_weight` of its `[[task]]`."""
    offsets: dict[str, float] = Field(default_factory=dict)
    """Task -> what is added to its prediction before a power is taken; `multiplicative` only."""
    sources: Literal["auto", "fit", "off"] = "auto"
    """Whether a night fits weights for the sources' own scores (retrieval, item-item, repeats, popularity) by
    the lists of its calibration day. `auto`: where the log has no impressions of its own. Where it has, what
    was clicked is among what was shown: lists fitted to it come nearer to what the shop showed, not to what
    users want. There what the heads miss of items, and item-item, are added by a rule that asks no list."""
    newcomers: float = Field(default=0.0, ge=0.0, le=5.0)
    """By that rule an item that was never shown counts as chosen e to the power of this times as often as the
    heads expect: .6 is 1.8 times. What is never shown is never learned, but in a shop of many items that were
    hardly shown it costs lists more than that is worth. 0: no newcomer is lifted."""
    newcomer_impressions: int = Field(default=50, ge=1)
    """What lifts a newcomer falls in a straight line, and is gone when it was shown so often."""

    @model_validator(mode="after")
    def _newcomers_need_the_rule(self) -> Self:
        if self.newcomers and self.sources != "auto":
            raise ValueError(
                f'newcomers = {self.newcomers:g} is of the rule of sources = "auto"; with sources = '
                f'"{self.sources}" nothing is lifted: leave one of the two out'
            )
        return self


def build_fusion(tasks: Sequence[TaskSpec], config: FusionConfig) -> Fusion:
    """Make the fusion that `[fusion]` describes.

    Raises: ConfigError for an unknown formula or task, or values that do not fit the formula.
    """
    return Fusion.build(tasks, formula=config.formula, weights=config.weights, offsets=config.offsets)
