"""The highest rate of calls that a server holds."""

from collections.abc import Callable
from typing import Final

STEP: Final = 1.25
FINE: Final = 1.04
"""The search ends when a rate that is held and one that is not are this near."""
MAX_STEPS: Final = 12


def find_max_rate(holds: Callable[[float], bool], first: float) -> float:
    """Find the highest rate that is held, within 4 %: up or down from `first` by a quarter, then by halves.

    Args: holds: tries one rate. A rate that fails is tried once more: one stall of the machine is no limit.
    Returns: 0 when no rate was held in 12 steps.
    """
    held, failed = 0.0, float("inf")
    rate = first
    for _ in range(MAX_STEPS):
        if holds(rate) or holds(rate):
            held = max(held, rate)
        else:
            failed = min(failed, rate)
        if held and failed / held < FINE:
            break
        if not held:
            rate = failed / STEP
        elif failed == float("inf"):
            rate = held * STEP
        else:
            rate = (held * failed) ** 0.5
    return held
