"""What a fit did."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class TrainLog:
    """Mean loss per task and step; rows and seconds."""

    losses: list[dict[str, float]] = field(default_factory=list)
    steps: int = 0
    rows: int = 0
    seconds: float = 0.0
    """Wall time."""
    ends: list[float] = field(default_factory=list)
    """When each step had ended, in seconds of the process's clock."""
    cpu_seconds: float = 0.0
    """Processor time of the process; other processes on the machine change it least."""

    def mean_losses(self, last: int = 50) -> dict[str, float]:
        """Average the last steps' losses; a task without a label in all of them has no mean."""
        return mean_losses(self.losses[-last:])


def mean_losses(steps: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Average losses over steps, by name; a loss of 0, of a step without a label, is left out."""
    seen: dict[str, list[float]] = {}
    for losses in steps:
        for name, loss in losses.items():
            if loss:
                seen.setdefault(name, []).append(loss)
    return {name: sum(values) / len(values) for name, values in seen.items()}


class Clock:
    """Writes into a log how long it took, the time of the runs that it goes on from included."""

    def __init__(self, log: TrainLog) -> None:
        """Start."""
        self.log = log
        self.began = time.perf_counter() - log.seconds
        self.began_cpu = time.process_time() - log.cpu_seconds

    def read(self) -> None:
        """Write the time so far into the log."""
        self.log.seconds = time.perf_counter() - self.began
        self.log.cpu_seconds = time.process_time() - self.began_cpu
