"""How long work takes here and now, so that a request gets no more of it than its deadline has room for."""

import threading

# A single hiccup (another process, a collection) may at most multiply the estimate by this.
_LARGEST_JUMP = 4.0
_WEIGHT = 0.1
# Share of the time left that is spent; the rest is for drawing, journal and the wire.
_SHARE = 0.7
# After an answer without scoring, nothing new was learnt: believe a little less, so that scoring is tried
# again.
_DOUBT = 0.9


class Pace:
    """Running estimates of the fixed and the per-candidate time of an answer, in seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fixed_s = 0.0
        self._each_s = 0.0

    def observe(self, fixed_s: float, scoring_s: float, num_candidates: int) -> None:
        """Learn from one answer."""
        with self._lock:
            self._fixed_s = _blend(self._fixed_s, fixed_s)
            self._each_s = _blend(self._each_s, scoring_s / max(1, num_candidates))

    def doubt(self) -> None:
        """Learn from an answer that was not scored for lack of time."""
        with self._lock:
            self._fixed_s *= _DOUBT
            self._each_s *= _DOUBT

    def affordable(self, num_candidates: int, remaining_s: float) -> int:
        """Give how many of the candidates can be scored in the time left."""
        room_s = _SHARE * remaining_s - self._fixed_s
        if room_s <= 0.0:
            return 0
        if self._each_s * num_candidates <= room_s:
            return num_candidates
        return int(room_s / self._each_s)


def _blend(old: float, new: float) -> float:
    if old == 0.0:
        return new
    return (1.0 - _WEIGHT) * old + _WEIGHT * min(new, _LARGEST_JUMP * old)
