"""{task: prediction} -> one score an item. A bundle carries its fusion; a request may change the weights.

additive        score = sum of weight * prediction, each in its own unit
multiplicative  score = product of (prediction + offset) ** weight, predictions scaled to 0..1

To either, times a factor, the sources' own scores are added where a bundle has weights for them
(`recsys.source_terms`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from recsys.errors import ConfigError
from recsys.source_terms import NAMES, NO_SOURCES, PREFIX, SourceScores, SourceTerms
from recsys.tasks import TaskSpec

Scores = npt.NDArray[np.float64]
# Taken as at least this before a logarithm: a probability of 0 must not make a score infinite.
_SMALLEST = 1e-12
# exp of 709 is infinite in float64, and of -745 it is 0. Beyond this logarithm a score goes on as a straight
# line, or as a hyperbola, that no weights within MAX_WEIGHT bring to either end.
_LARGEST_LOG = 600.0
MAX_WEIGHT = 1e6
"""Larger weights add nothing to an order but overflow, and take the smaller ones' last digits."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Term(_Part):
    """One task's part of the score."""

    weight: float
    offset: float = 0.0
    low: float = 0.0
    high: float = 1.0
    """Range of the prediction; a probability's is 0 to 1."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.offset < 0 or self.low >= self.high:
            raise ValueError(f"offset {self.offset} is below 0, or low {self.low} not below high {self.high}")
        return self


Predictions = Mapping[str, npt.NDArray[np.float32]]


def additive(term: Term, prediction: npt.NDArray[np.float32]) -> Scores:
    """Return weight · prediction [N]: a task's part of the sum."""
    part: Scores = term.weight * prediction.astype(np.float64)
    return part


def multiplicative(term: Term, prediction: npt.NDArray[np.float32]) -> Scores:
    """Return the logarithm [N] of a task's factor, (prediction + offset) to the power of weight."""
    values = prediction.astype(np.float64)
    scaled = np.clip((values - term.low) / (term.high - term.low), 0.0, 1.0)
    part: Scores = term.weight * np.log(np.maximum(scaled + term.offset, _SMALLEST))
    return part


FORMULAS: Mapping[str, Callable[[Term, npt.NDArray[np.float32]], Scores]] = {
    "additive": additive,
    "multiplicative": multiplicative,
}
"""Name -> (a task's term, its predictions [N]) -> its part [N] of the score."""


class Fusion(_Part):
    """How predictions become a score: everything it depends on, as a bundle's manifest keeps it."""

    schema_version: Literal[1] = 1
    formula: str = "additive"
    terms: dict[str, Term]
    sources: SourceTerms = NO_SOURCES

    @model_serializer(mode="wrap")
    def _without_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out sources that have no part: so the manifests of older bundles keep their hash."""
        found: dict[str, Any] = handler(self)
        if self.sources == NO_SOURCES:
            found.pop("sources", None)
        return found

    @field_validator("formula")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in FORMULAS:
            raise ValueError(f"{value!r} is no fusion formula; known: {', '.join(FORMULAS)}")
        return value

    @classmethod
    def build(
        cls,
        tasks: Sequence[TaskSpec],
        *,
        formula: str,
        weights: Mapping[str, float],
        offsets: Mapping[str, float],
    ) -> Self:
        """Make the fusion of some tasks; a weight given here wins over its task's own `fusion_weight`.

        Raises: ConfigError for an unknown formula or task, or values that do not fit the formula.
        """
        names = [task.name for task in tasks]
        if formula not in FORMULAS:
            raise ConfigError(f"[fusion] formula = {formula!r} is unknown; known: {', '.join(FORMULAS)}")
        _require_known("[fusion.weights]: ", weights, names)
        _require_known("[fusion.offsets]: ", offsets, names)
        _require_offsets(offsets, formula)
        terms = {}
        for task in tasks:
            low, high = task.prediction_range
            weight = weights.get(task.name, task.fusion_weight)
            terms[task.name] = Term(weight=weight, offset=offsets.get(task.name, 0.0), low=low, high=high)
        made = cls(formula=formula, terms=terms)
        _require_sound(made, "[fusion]: ")
        return made

    def with_sources(self, sources: SourceTerms) -> "Fusion":
        """Give the same fusion with another part of the sources."""
        return self.model_copy(update={"sources": sources})

    def override(self, weights: Mapping[str, float]) -> "Fusion":
        """Replace some tasks' weights for one request.

        Raises: ConfigError, naming the known tasks, or the weight that does not fit the formula; the caller
        adds which field had it.
        """
        if not weights:
            return self
        _require_known("", weights, [*self.terms, *(f"{PREFIX}{name}" for name in NAMES)])
        of_sources = {n.removeprefix(PREFIX): w for n, w in weights.items() if n.startswith(PREFIX)}
        of_tasks = {t: w for t, w in weights.items() if not t.startswith(PREFIX)}
        changed = {t: self.terms[t].model_copy(update={"weight": w}) for t, w in of_tasks.items()}
        made = self.model_copy(
            update={
                "terms": {**self.terms, **changed},
                "sources": self.sources.model_copy(update=of_sources),
            }
        )
        _require_sound(made, "")
        return made

    def score(self, predictions: Predictions, sources: SourceScores | None = None) -> Scores:
        """Fuse predictions [N] a task, and the sources' own scores, into scores [N]; higher is better.

        Args: sources: of every source that has a weight.
        """
        size = len(next(iter(predictions.values()), ()))
        parts = list(self._of_heads(predictions).values())
        total: Scores = np.sum(parts, axis=0) if parts else np.zeros(size)
        if parts and self.is_product:
            total = _product(total)
        if not self.sources.weights:
            return total
        return self.sources.heads_factor * total + self.sources.total(sources or {})

    def contributions(
        self, predictions: Predictions, sources: SourceScores | None = None
    ) -> dict[str, Scores]:
        """Return the part [N] of each task, and of each source, with a weight.

        The parts add up to the score; those of the tasks, where it `is_product`, to the logarithm of theirs,
        before the factor of the heads.
        """
        of_sources, of_heads = self.sources.contributions(sources or {}), self._of_heads(predictions)
        if not self.is_product:
            of_heads = {task: self.sources.heads_factor * part for task, part in of_heads.items()}
        return of_heads | {f"{PREFIX}{n}": part for n, part in of_sources.items()}

    @property
    def weights(self) -> dict[str, float]:
        """Give the weight of every task, and of each source that has one."""
        of_sources = {f"{PREFIX}{name}": weight for name, weight in self.sources.weights.items()}
        return {task: term.weight for task, term in self.terms.items()} | of_sources

    def _of_heads(self, predictions: Predictions) -> dict[str, Scores]:
        part = FORMULAS[self.formula]
        return {task: part(term, predictions[task]) for task, term in self.terms.items() if term.weight}

    @property
    def is_product(self) -> bool:
        """Tell whether the score is a product of the tasks' parts."""
        return self.formula == "multiplicative"


def _product(log: Scores) -> Scores:
    """Return e^log [N], or beyond e^600 and below e^-600 numbers that keep the order of the items."""
    beyond = np.maximum(np.abs(log) - _LARGEST_LOG, 0.0)
    product: Scores = np.exp(np.clip(log, -_LARGEST_LOG, _LARGEST_LOG))
    product *= np.where(log > 0.0, 1.0 + beyond, 1.0 / (1.0 + beyond))
    return product


def _require_known(prefix: str, given: Mapping[str, float], names: list[str]) -> None:
    for name in given:
        if name not in names:
            raise ConfigError(f"{prefix}no task is called {name!r}; known tasks: {', '.join(names)}")


def _require_offsets(offsets: Mapping[str, float], formula: str) -> None:
    for name, offset in offsets.items():
        if offset < 0:
            raise ConfigError(f"[fusion.offsets] {name} = {offset} is below 0; write 0 or more")
        if offset and formula == "additive":
            raise ConfigError(
                f"[fusion.offsets] {name} = {offset} does nothing with formula 'additive'; take it out"
            )


def _require_sound(fusion: Fusion, prefix: str) -> None:
    """Refuse weights that overflow, and a negative power of a prediction that may be 0: it would win."""
    for task, weight in fusion.weights.items():
        if not abs(weight) <= MAX_WEIGHT:
            raise ConfigError(
                f"{prefix}the weight {weight} of {task!r} is not between -{MAX_WEIGHT:g} and "
                f"{MAX_WEIGHT:g}; give a smaller one, and divide the others by the same number"
            )
    if not fusion.is_product:
        return
    for task, term in fusion.terms.items():
        if term.weight < 0 and term.offset == 0:
            raise ConfigError(
                f"{prefix}the weight {term.weight} of {task!r} is a negative power of a prediction that may "
                f"be 0; give it an offset ([fusion.offsets] {task} = 0.01) or a weight of 0 or more"
            )
