"""What a fit did."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(slots=True)
class TrainLog:
    """Mean loss per task and step; rows and seconds."""

    losses: list[dict[str, float]] = field(default_factory=list)
    steps: int = 0
    rows: int = 0
    seconds: float = 0.0
    """Wall time."""
    cpu_seconds: float = 0.0
    """Processor time of the process; other processes on the machine change it least."""

    def mean_losses(self, last: int = 50) -> dict[str, float]:
        """Average the last steps' losses."""
        tail = self.losses[-last:]
        return {k: float(np.mean([step[k] for step in tail])) for k in tail[0]} if tail else {}
