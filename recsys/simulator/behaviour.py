"""What users do on an impression, when, and when the log hears of it."""

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
class Chances:
    """True chances by impression [N].

    click: looked at and clicked; purchase_given_click; stars: the rating before its residual and rounding.
    """

    click: FloatArray
    purchase_given_click: FloatArray
    stars: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing a simulated user did on a served list."""

    item_id: str
    position: int
    kind: str
    value: float | None
    occurred_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """Feedback of one kind: row of the impression [M], value [M] (NaN: none), occurred_ms [M]."""

    kind: str
    row: IntArray
    value: FloatArray
    occurred_ms: IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Reactions:
    """All feedback on some impressions, by kind."""

    events: tuple[Events, ...]

    def in_order(self) -> Iterator[tuple[str, int, float | None, int]]:
        """Yield (kind, row, value, occurred_ms) by time; a click comes before what it leads to."""
        flat = [
            (int(at), order, events.kind, int(row), None if np.isnan(value) else float(value))
            for order, events in enumerate(self.events)
            for row, value, at in zip(events.row, events.value, events.occurred_ms, strict=True)
        ]
        for at, _, kind, row, value in sorted(flat, key=lambda event: event[:2]):
            yield kind, row, value, at


def draw_reactions(
    dials: ShopDials, chances: Chances, price: IntArray, shown_ms: IntArray, rng: np.random.Generator
) -> Reactions:
    """Draw clicks, purchases, ratings and refunds.

    Clicks come within 10 minutes, purchases within 90 minutes of the impression, most ratings within a day.
    Args: price [N] in minor units; shown_ms [N].
    """
    clicked = np.flatnonzero(rng.random(len(shown_ms)) < chances.click)
    click_ms = shown_ms[clicked] + _delay(rng, len(clicked), 20_000, _MAX_CLICK_MS)
    bought_of = np.flatnonzero(rng.random(len(clicked)) < chances.purchase_given_click[clicked])
    bought = clicked[bought_of]
    purchase_ms = click_ms[bought_of] + _delay(
        rng, len(bought), 15 * _MINUTE_MS, _MAX_PURCHASE_MS - _MAX_CLICK_MS
    )
    paid = price[bought].astype(np.float64)
    rated_click = rng.random(len(clicked)) < dials.rated_clicks
    rated_click[bought_of] = rng.random(len(bought)) < dials.rated_purchases
    began_ms = click_ms.copy()
    began_ms[bought_of] = purchase_ms
    rated_of = np.flatnonzero(rated_click)
    refunded = np.flatnonzero(rng.random(len(bought)) < dials.refund_share)
    return Reactions(
        events=(
            _events(CLICK_KIND, clicked, np.full(len(clicked), np.nan), click_ms),
            _events(PURCHASE_KIND, bought, paid, purchase_ms),
            _ratings(dials, chances, clicked[rated_of], began_ms[rated_of], rng),
            _events(
                REFUND_KIND,
                bought[refunded],
                paid[refunded],
                purchase_ms[refunded] + _refund_delay(rng, len(refunded)),
            ),
        )
    )


def draw_receipt(dials: ShopDials, occurred_ms: IntArray, rng: np.random.Generator) -> IntArray:
    """Draw when the log hears of feedback [N]: mostly seconds later, for few minutes or hours."""
    count = len(occurred_ms)
    kind = rng.random(count)
    delay = _delay(rng, count, 1_000, 10_000)
    minutes = rng.integers(5 * _MINUTE_MS, 60 * _MINUTE_MS, count)
    hours = rng.integers(_HOUR_MS, 12 * _HOUR_MS, count)
    delay = np.where(kind < dials.late_minutes + dials.late_hours, minutes, delay)
    received: IntArray = occurred_ms + np.where(kind < dials.late_hours, hours, delay)
    return received


def _ratings(
    dials: ShopDials, chances: Chances, rows: IntArray, began_ms: IntArray, rng: np.random.Generator
) -> Events:
    felt = chances.stars[rows] + dials.rating_residual * rng.standard_normal(len(rows))
    stars = np.clip(np.rint(felt * 2) / 2, 1.0, 5.0)
    return _events(RATING_KIND, rows, stars, began_ms + _delay(rng, len(rows), 5 * _HOUR_MS, 48 * _HOUR_MS))


def _refund_delay(rng: np.random.Generator, count: int) -> IntArray:
    soon = _delay(rng, count, 10 * _MINUTE_MS, 30 * _MINUTE_MS)
    later = _delay(rng, count, 24 * _HOUR_MS, 72 * _HOUR_MS)
    return np.where(rng.random(count) < 0.5, soon, later)


def _delay(rng: np.random.Generator, count: int, mean_ms: int, max_ms: int) -> IntArray:
    drawn = np.minimum(rng.standard_exponential(count) * mean_ms, max_ms - 1.0)
    return drawn.astype(np.int64)


def _events(kind: str, rows: IntArray, value: FloatArray, occurred_ms: IntArray) -> Events:
    return Events(kind=kind, row=rows, value=value, occurred_ms=occurred_ms)
