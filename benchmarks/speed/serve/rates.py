"""The highest rate of calls that a server holds."""

from collections.abc import Callable
from typing import Final

STEP: Final = 1.2
GROWTH: Final = 1.5
"""Each further step away from the first rate is larger by this power."""
FINE: Final = 1.04
"""The search ends when a rate that is held and one that is not are this near."""
MAX_STEPS: Final = 14


def find_max_rate(holds: Callable[[float], bool], first: float) -> float:
    """Find the highest rate that is held, within 4 %: away from `first` by growing steps, then by halves.

    Args: holds: tries one rate. A rate that fails is tried once more: one stall of the machine is no limit.
    Returns: 0 when no rate was held in 14 steps.
    """
    held, failed = 0.0, float("inf")
    rate, step = first, STEP
    for _ in range(MAX_STEPS):
        if holds(rate) or holds(rate):
            held = max(held, rate)
        else:
            failed = min(failed, rate)
        if held and failed / held < FINE:
            break
        if not held:
            rate = failed / step
            step **= GROWTH
        elif failed == float("inf"):
            rate = held * step
            step **= GROWTH
        else:
            rate = (held * failed) ** 0.5
    return held
