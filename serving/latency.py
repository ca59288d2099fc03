"""Estimates the time of an answer on this machine, so that a request scores only what its deadline allows."""

import threading

# One slow answer (another process, garbage collection) multiplies the estimate by this at most.
_LARGEST_JUMP = 4.0
_WEIGHT = 0.1
# Share of the remaining time that may be spent; the rest is for the policy, the journal and the network.
_SHARE = 0.7
# An answer without scoring measures nothing. The estimate shrinks by this factor, so that scoring is tried
# again.
_DECAY = 0.9


class LatencyEstimate:
    """Moving average of the scoring time per candidate, in seconds.

    It is asked when the candidates have been found, so what came before is no longer in the remaining time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._each_s = 0.0

    def observe(self, scoring_s: float, num_candidates: int) -> None:
        """Update the average with one scored answer."""
        with self._lock:
            self._each_s = _blend(self._each_s, scoring_s / max(1, num_candidates))

    def decay(self) -> None:
        """Shrink the estimate after an answer that was not scored for lack of time."""
        with self._lock:
            self._each_s *= _DECAY

    def affordable(self, num_candidates: int, remaining_s: float) -> int:
        """Count the candidates that can be scored in the remaining time: num_candidates at most."""
        scoring_s = _SHARE * remaining_s
        if scoring_s <= 0.0:
            return 0
        if self._each_s * num_candidates <= scoring_s:
            return num_candidates
        return int(scoring_s / self._each_s)


def _blend(old: float, new: float) -> float:
    if old == 0.0:
        return new
    return (1.0 - _WEIGHT) * old + _WEIGHT * min(new, _LARGEST_JUMP * old)
