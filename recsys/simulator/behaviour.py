"""User behaviour: feedback on impressions, when it occurs, and when the log receives it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np

from recsys.simulator.dials import FloatArray, IntArray, ShopDials

CLICK_KIND: Final = "click"
PURCHASE_KIND: Final = "purchase"
RATING_KIND: Final = "rating"
REFUND_KIND: Final = "refund"
_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 3_600_000
_MAX_CLICK_MS: Final = 10 * _MINUTE_MS
_MAX_PURCHASE_MS: Final = 90 * _MINUTE_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Probabilities:
    """True probabilities and rating of N impressions.

    click [N]: probability to examine and click; purchase_given_click [N]; stars [N]: the rating before its
    residual and rounding.
    """

    click: FloatArray
    purchase_given_click: FloatArray
    stars: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One feedback event of a simulated user on a served list."""

    item_id: str
    position: int
    kind: str
    value: float | None
    occurred_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class KindFeedback:
    """Feedback of one kind: row of the impression [M], value [M] (NaN: none), occurred_ms [M]."""

    kind: str
    row: IntArray
    value: FloatArray
    occurred_ms: IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedFeedback:
    """All feedback on some impressions, by kind."""

    events: tuple[KindFeedback, ...]

    def by_time(self) -> Iterator[tuple[str, int, float | None, int]]:
        """Yield (kind, row, value, occurred_ms) by time; at equal times the click comes first."""
        flat = [
            (int(at), order, events.kind, int(row), None if np.isnan(value) else float(value))
            for order, events in enumerate(self.events)
            for row, value, at in zip(events.row, events.value, events.occurred_ms, strict=True)
        ]
        for at, _, kind, row, value in sorted(flat, key=lambda event: event[:2]):
            yield kind, row, value, at


def draw_feedback(
    dials: ShopDials,
    probabilities: Probabilities,
    price: IntArray,
    shown_ms: IntArray,
    rng: np.random.Generator,
) -> SimulatedFeedback:
    """Draw clicks, purchases, ratings and refunds.

    Clicks come within 10 minutes, purchases within 90 minutes of the impression, most ratings within a day.
    Args: price [N] in minor units; shown_ms [N].
    """
    clicked = np.flatnonzero(rng.random(len(shown_ms)) < probabilities.click)
    click_ms = shown_ms[clicked] + _delay(rng, len(clicked), 20_000, _MAX_CLICK_MS)
    bought_clicks = np.flatnonzero(rng.random(len(clicked)) < probabilities.purchase_given_click[clicked])
    bought = clicked[bought_clicks]
    purchase_ms = click_ms[bought_clicks] + _delay(
        rng, len(bought), 15 * _MINUTE_MS, _MAX_PURCHASE_MS - _MAX_CLICK_MS
    )
    paid = price[bought].astype(np.float64)
    is_rated = rng.random(len(clicked)) < dials.rated_clicks
    is_rated[bought_clicks] = rng.random(len(bought)) < dials.rated_purchases
    reference_ms = click_ms.copy()
    reference_ms[bought_clicks] = purchase_ms
    rated_clicks = np.flatnonzero(is_rated)
    refunded = np.flatnonzero(rng.random(len(bought)) < dials.refund_share)
    return SimulatedFeedback(
        events=(
            _events(CLICK_KIND, clicked, np.full(len(clicked), np.nan), click_ms),
            _events(PURCHASE_KIND, bought, paid, purchase_ms),
            _ratings(dials, probabilities, clicked[rated_clicks], reference_ms[rated_clicks], rng),
            _events(
                REFUND_KIND,
                bought[refunded],
                paid[refunded],
                purchase_ms[refunded] + _refund_delay(rng, len(refunded)),
            ),
        )
    )


def draw_received_ms(dials: ShopDials, occurred_ms: IntArray, rng: np.random.Generator) -> IntArray:
    """Draw when the log receives feedback [N]: mostly seconds later, for some rows minutes or hours."""
    count = len(occurred_ms)
    kind = rng.random(count)
    delay = _delay(rng, count, 1_000, 10_000)
    minutes = rng.integers(5 * _MINUTE_MS, 60 * _MINUTE_MS, count)
    hours = rng.integers(_HOUR_MS, 12 * _HOUR_MS, count)
    delay = np.where(kind < dials.late_minutes + dials.late_hours, minutes, delay)
    received: IntArray = occurred_ms + np.where(kind < dials.late_hours, hours, delay)
    return received


def _ratings(
    dials: ShopDials,
    probabilities: Probabilities,
    rows: IntArray,
    reference_ms: IntArray,
    rng: np.random.Generator,
) -> KindFeedback:
    rating = probabilities.stars[rows] + dials.rating_residual * rng.standard_normal(len(rows))
    stars = np.clip(np.rint(rating * 2) / 2, 1.0, 5.0)
    return _events(
        RATING_KIND, rows, stars, reference_ms + _delay(rng, len(rows), 5 * _HOUR_MS, 48 * _HOUR_MS)
    )


def _refund_delay(rng: np.random.Generator, count: int) -> IntArray:
    soon = _delay(rng, count, 10 * _MINUTE_MS, 30 * _MINUTE_MS)
    later = _delay(rng, count, 24 * _HOUR_MS, 72 * _HOUR_MS)
    return np.where(rng.random(count) < 0.5, soon, later)


def _delay(rng: np.random.Generator, count: int, mean_ms: int, max_ms: int) -> IntArray:
    drawn = np.minimum(rng.standard_exponential(count) * mean_ms, max_ms - 1.0)
    return drawn.astype(np.int64)


def _events(kind: str, rows: IntArray, value: FloatArray, occurred_ms: IntArray) -> KindFeedback:
    return KindFeedback(kind=kind, row=rows, value=value, occurred_ms=occurred_ms)
