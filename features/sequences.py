"""Histories as arrays: each row's last events, newest first, padded; ages in buckets."""

from dataclasses import dataclass

import numpy as np

from features.definitions import HISTORY_AGE_BUCKETS

NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedEvents:
    """Events in order: item numbers, kind codes (0 = not used), received_at and void_at in ms; int64 [E]."""

    items: np.ndarray
    kinds: np.ndarray
    at: np.ndarray
    void: np.ndarray
    """When the event was taken back; NEVER where it stands."""


def history_slices(
    start: np.ndarray,
    stop: np.ndarray,
    length: int,
    shown_at: np.ndarray,
    lag_ms: int,
    events: EncodedEvents,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gather each row's events, newest first, padded with kind 0; what was visibly taken back is padding too.

    Args: start, stop, shown_at (ms): [B]. Returns: items, kinds, age buckets, each int64 [B, L].
    """
    positions = stop.astype(np.int64)[:, None] - 1 - np.arange(length)
    valid = positions >= start[:, None]
    if events.items.size == 0:
        empty = np.zeros(positions.shape, np.int64)
        return empty, empty, empty
    positions = np.where(valid, positions, 0)
    stands = events.void[positions] >= shown_at[:, None] - lag_ms
    kinds = np.where(valid & stands, events.kinds[positions], 0)
    items = np.where(kinds > 0, events.items[positions], 0)
    ages = np.where(kinds > 0, age_buckets(shown_at[:, None] - events.at[positions]), 0)
    return items, kinds, ages


def age_buckets(age_ms: np.ndarray) -> np.ndarray:
    """Map ages in milliseconds to powers of two minutes."""
    minutes = np.maximum(age_ms, 0) // 60_000
    buckets: np.ndarray = np.minimum(np.frexp(minutes.astype(np.float64))[1], HISTORY_AGE_BUCKETS - 1).astype(
        np.int64
    )
    return buckets
