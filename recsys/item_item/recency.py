"""What an event of a history still counts: by its steps back from the latest one, or by its age in days.

Shapes: U users, N events.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from recsys.errors import ConfigError, DataError
from recsys.item_item.histories import Histories


@dataclass(frozen=True, slots=True)
class PerStep:
    """The latest event counts 1, each one before it `factor` times the next: for histories without times."""

    factor: float

    def __post_init__(self) -> None:
        """Check the factor. Raises: ConfigError when it is outside (0, 1]."""
        if not 0 < self.factor <= 1:
            raise ConfigError(
                f"recency per step is {self.factor:g}; give more than 0 and at most 1 (no decay)"
            )

    def weights(self, histories: Histories) -> np.ndarray:
        """Weigh events: float32 [N]."""
        found: np.ndarray = np.power(self.factor, histories.steps_back, dtype=np.float64).astype(np.float32)
        return found

    def __str__(self) -> str:
        return f"{self.factor:g} per step"


@dataclass(frozen=True, slots=True)
class HalfLife:
    """An event counts half as much for every so many days before its user's latest event."""

    days: float

    def __post_init__(self) -> None:
        """Check the days. Raises: ConfigError when they are not above 0."""
        if not self.days > 0:
            raise ConfigError(f"the half-life is {self.days:g} days; give more than 0 (inf: no decay)")

    def weights(self, histories: Histories) -> np.ndarray:
        """Weigh events: float32 [N]. Raises: DataError when events have no times."""
        if histories.days is None:
            raise DataError(
                "a half-life needs the days of events; these have an order only, so decay per step"
            )
        latest = np.zeros(histories.num_users)
        some = histories.counts > 0
        latest[some] = histories.days[histories.starts[1:][some] - 1]
        return self.of_ages(latest[histories.users] - histories.days)

    def of_ages(self, ages: np.ndarray) -> np.ndarray:
        """Weigh events by their ages in days: float32 [N]."""
        return np.power(0.5, np.asarray(ages, np.float64) / self.days).astype(np.float32)

    def __str__(self) -> str:
        return f"half-life {self.days:g} days"


Recency = PerStep | HalfLife
STEPS: Sequence[Recency] = tuple(PerStep(f) for f in (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3))
HALF_LIVES: Sequence[Recency] = tuple(HalfLife(d) for d in (np.inf, 365, 180, 90, 60, 30, 14, 7, 3, 1))


def choose_recency(
    histories: Histories, worth: Callable[[np.ndarray], float], laws: Sequence[Recency] | None = None
) -> tuple[Recency, dict[str, float]]:
    """Choose the law whose weights are worth most, such as the NDCG of validation pairs; of equals the first.

    Args: worth: of the events' weights [N]; laws: None: half-lives where events have days, else steps.
    Returns: the law, and what each is worth by its name.
    """
    if laws is None:
        laws = STEPS if histories.days is None else HALF_LIVES
    if not laws:
        raise ConfigError("no law of recency to choose from; give at least one")
    found = [worth(law.weights(histories)) for law in laws]
    return laws[int(np.argmax(found))], {str(law): value for law, value in zip(laws, found, strict=True)}
