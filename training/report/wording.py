"""How reports put differences and verdicts into words; the words are those of `recsys.metrics.effect`."""

from collections.abc import Sequence

from recsys.metrics.effect import Effect
from recsys.metrics.table import METRICS

NO_INTERVAL = "no interval"


def signed(value: float | None) -> str:
    """Print a difference with its sign; a small one with more digits."""
    return "–" if value is None else f"{value:+.{_digits(value)}f}"


def interval(effect: Effect) -> str:
    """Print a difference's interval."""
    if effect.ci_low is None or effect.ci_high is None:
        return NO_INTERVAL
    digits = _digits(effect.ci_low, effect.ci_high)
    return f"[{effect.ci_low:+.{digits}f}, {effect.ci_high:+.{digits}f}]"


def verdict(effect: Effect, of: str = "") -> str:
    """Print a verdict on `of`, such as "B better"; of a metric without a better direction, "differs"."""
    if not effect.replicates:
        metric = METRICS.get(effect.metric)
        return metric.no_interval if metric is not None and metric.no_interval else NO_INTERVAL
    if effect.verdict is None:
        return "differs" if effect.differs else "no evidence"
    return f"{of} {effect.verdict}" if of and effect.differs else effect.verdict


def enumerate_names(names: Sequence[str]) -> str:
    """Join names by commas and a last "and"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _digits(*values: float) -> int:
    return 4 if max(map(abs, values)) >= 0.001 or not any(values) else 6
