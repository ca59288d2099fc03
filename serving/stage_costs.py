"""How an answer is made in the time that is left: all candidates, fewer, or a list without scoring.

time left -> [spend a share of it] -> full -> fewer candidates -> the user's recent list -> popular -> refused
                                      retrieval + scoring          draw and journal alone

The choice is made before retrieval, from what each stage took lately on this machine.
"""

from serving.latency import MovingAverage

# Of the time left, so much may be spent on retrieval and scoring; the rest is for the draw, the journal and
# the network.
_SHARE = 0.7
# An answer without scoring measures nothing. The estimates shrink by this factor, so that scoring is tried
# again.
_DECAY = 0.9


class StageCosts:
    """Moving averages of what retrieval and scoring take."""

    def __init__(self) -> None:
        self._retrieval_s = MovingAverage()
        self._each_s = MovingAverage()

    def observe(self, retrieval_s: float, scoring_s: float, num_candidates: int) -> None:
        """Update the averages with one scored answer."""
        self._retrieval_s.observe(retrieval_s)
        if num_candidates:
            self._each_s.observe(scoring_s / num_candidates)

    def decay(self) -> None:
        """Shrink the estimates after an answer that was not scored for lack of time."""
        self._retrieval_s.scale(_DECAY)
        self._each_s.scale(_DECAY)

    def affordable(self, num_candidates: int, remaining_s: float, *, found: bool = False) -> int:
        """Count the candidates that can be found and scored in the time left: num_candidates at most.

        Args: found: they have been found, so that only scoring is left.
        """
        spend_s = _SHARE * remaining_s - (0.0 if found else self._retrieval_s.value)
        if spend_s <= 0.0:
            return 0
        if self._each_s.value * num_candidates <= spend_s:
            return num_candidates
        return int(spend_s / self._each_s.value)

    def can_retrieve(self, remaining_s: float) -> bool:
        """Tell whether there is time to search the index."""
        return self._retrieval_s.value <= _SHARE * remaining_s
