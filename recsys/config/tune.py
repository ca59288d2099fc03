"""`[tune]`: what `recsys tune model` may change and how it stops; `[chosen]`: the days searches chose by."""

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from recsys.config.section import Section

Pruner = Literal["median", "hyperband", "none"]
Choice = bool | int | float | str | tuple[int | float | str, ...]


class Dimension(Section):
    """The values that one key of the config may take: a range, or a list of choices."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    """Draw the logarithm evenly."""
    whole: bool = False
    """Whole numbers only."""
    choices: tuple[Choice, ...] = ()

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if self.choices:
            if self.low is not None or self.high is not None or self.log or self.whole:
                raise ValueError("give either choices or a range (low, high), not both")
            return self
        if self.low is None or self.high is None or self.low >= self.high:
            raise ValueError(
                f"give choices, or a range with low below high (low={self.low}, high={self.high})"
            )
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range begins above 0, not at {self.low}")
        return self


class ChosenConfig(Section):
    """The days whose labels chose settings of the file: figures on them are too good.

    `recsys tune` writes these keys beside what it has chosen; they travel in every bundle made with the file.
    """

    model_days: tuple[date, ...] = ()
    """Days that `recsys tune model` compared configs on."""
    fusion_days: tuple[date, ...] = ()
    """Days that `recsys tune fusion` compared `[fusion]` on."""


class TuneConfig(Section):
    """How `recsys tune model` searches."""

    space: dict[str, Dimension] = Field(default_factory=dict)
    """Key of the config ("training.learning_rate", "task.click.weight") -> its values. If anything is given,
    exactly this is searched; empty: the default space."""
    pruner: Pruner = "median"
    """What ends a trial that trails behind; `none` lets all run to their end."""
    rungs: Annotated[int, Field(ge=1, le=50)] = 4
    """How often a training is measured on the validation days."""
    startup: Annotated[int, Field(ge=1)] = 8
    """Trials drawn at random before the sampler draws by what it has seen."""
