"""{task: prediction}, weights -> one score an item to sort by. Weights come with the bundle.

additive        score = sum of weight * prediction
multiplicative  score = product of prediction ** weight
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from recsys.errors import ConfigError
from recsys.tasks import TaskSpec

Form = Literal["additive", "multiplicative"]
# Predictions are taken as at least this before a logarithm: a probability of 0 must not make a score
# infinite.
_SMALLEST = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """How predictions become a score."""

    weights: Mapping[str, float]
    form: Form = "additive"

    @classmethod
    def from_tasks(cls, tasks: Sequence[TaskSpec]) -> "Fusion":
        """Read each task's `fusion_weight`."""
        return cls(weights={task.name: task.fusion_weight for task in tasks})

    def override(self, weights: Mapping[str, float]) -> "Fusion":
        """Replace some tasks' weights for one request.

        Raises: ConfigError, naming the known tasks.
        """
        for name in weights:
            if name not in self.weights:
                raise ConfigError(f"no task is called {name!r}; known tasks: {', '.join(self.weights)}")
        return replace(self, weights={**self.weights, **weights}) if weights else self

    def score(self, predictions: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float64]:
        """Fuse predictions [N] a task into scores [N]; higher is better."""
        terms = [self._term(predictions[task].astype(np.float64), w) for task, w in self.weights.items() if w]
        if not terms:
            size = len(next(iter(predictions.values()), ()))
            return np.zeros(size)
        total: npt.NDArray[np.float64] = np.sum(terms, axis=0)
        return np.exp(total) if self.form == "multiplicative" else total

    def _term(self, prediction: npt.NDArray[np.float64], weight: float) -> npt.NDArray[np.float64]:
        if self.form == "multiplicative":
            return weight * np.log(np.maximum(prediction, _SMALLEST))
        return weight * prediction
