"""Times the stages of one call."""

import time


class StageTimer:
    """Times stages that follow one another, from its making on; for one thread."""

    def __init__(self) -> None:
        self._began = self._since = time.perf_counter()
        self.stage_s: dict[str, float] = {}
        """Stage -> seconds, in the order of their ends."""

    def record(self, stage: str) -> None:
        """End a stage, which began where the one before ended."""
        now = time.perf_counter()
        self.stage_s[stage] = now - self._since
        self._since = now

    def seconds(self, stage: str) -> float:
        """Return what a stage took."""
        return self.stage_s[stage]

    def elapsed_s(self) -> float:
        """Return the seconds since its making."""
        return time.perf_counter() - self._began

    def milliseconds(self) -> dict[str, float]:
        """Return the stages' times."""
        return {stage: 1000 * seconds for stage, seconds in self.stage_s.items()}
