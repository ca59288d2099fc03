"""Histories as arrays: each row's last events, newest first, concatenated; ages in buckets."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedHistories:
    """Histories of B rows, concatenated, the newest event of each first.

    items, kinds (from 1), ages (buckets), rows (whose event it is), events (which of the day's): int64 [E];
    row b's events are those in offsets[b] : offsets[b + 1].
    """

    items: np.ndarray
    kinds: np.ndarray
    ages: np.ndarray
    rows: np.ndarray
    offsets: np.ndarray
    events: np.ndarray
    whole: np.ndarray
    """bool [B]: no event of the row was taken back, so it has all between its oldest and its newest."""


def history_slices(
    start: np.ndarray,
    stop: np.ndarray,
    length: int,
    state_at: np.ndarray,
    lag_ms: int,
    events: EncodedEvents,
) -> EncodedHistories:
    """Gather the last `length` events of each row, without those of no kind or visibly taken back.

    Args: start, stop, state_at (ms): [B].
    """
    positions, row = _last(start.astype(np.int64), stop.astype(np.int64), length)
    kinds = events.kinds[positions]
    undone = (kinds > 0) & (events.void[positions] < state_at[row] - lag_ms)
    used = (kinds > 0) & ~undone
    whole = np.bincount(row[undone], minlength=start.size) == 0
    positions, row = positions[used], row[used]
    return EncodedHistories(
        items=events.items[positions],
        kinds=kinds[used],
        ages=age_buckets(state_at[row] - events.at[positions]),
        rows=row,
        offsets=np.append(0, np.cumsum(np.bincount(row, minlength=start.size))),
        events=positions,
        whole=whole,
    )


def minutes_of(at_ms: np.ndarray) -> np.ndarray:
    """Give instants in whole minutes, as the time between two events is read."""
    minutes: np.ndarray = at_ms // 60_000
    return minutes


def _last(start: np.ndarray, stop: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """List the last `length` of each row's positions, newest first, and the row of each."""
    lengths = np.clip(stop - start, 0, length)
    row = np.repeat(np.arange(lengths.size), lengths)
    # Within a row, positions fall as the place in the concatenation rises.
    highest = stop - 1 + np.cumsum(lengths) - lengths
    return highest[row] - np.arange(row.size), row


def age_buckets(age_ms: np.ndarray) -> np.ndarray:
    """Map ages in milliseconds to powers of two minutes."""
    minutes = np.maximum(age_ms, 0) // 60_000
    buckets: np.ndarray = np.minimum(np.frexp(minutes.astype(np.float64))[1], HISTORY_AGE_BUCKETS - 1).astype(
        np.int64
    )
    return buckets
