"""Negatives for sets that log only what users chose: a simple random sample, with its exact rate."""

import zlib

import numpy as np
import polars as pl


def sample_negatives(
    positives: pl.DataFrame, catalogue: pl.DataFrame, *, per_positive: int, seed: int, again: bool = False
) -> pl.DataFrame:
    """Draw, per user and day, `per_positive` times the positives from what the user has not chosen so far.

    The pool of a (user, day) is the catalogue as known on that day without the items that the user has chosen
    up to and including that day. Where items are chosen again it is without those of that day alone: else a
    model would learn that what its user had before is chosen for certain. Nothing after the day is looked at:
    an item chosen later may be drawn. The draw is without replacement; every item of the pool has the same
    chance,

        sampling_rate = drawn / size of the pool,

    so a weight of 1 / sampling_rate gives back the user's day (chosen and not chosen), and the true log-odds
    of a choice are those on the sample plus log(sampling_rate). The draw depends on seed, user and day only:
    more days change no earlier day.

    Args:
        positives: user_id, item_id, day (Date), shown_at; at most one row per (user, item, instant).
        catalogue: item_id, known_day (Date): the first day on which the item may be drawn.
        again: users choose items again: what they chose on earlier days is in the pool, too.

    Returns: user_id, item_id, day, shown_at (of one of the day's positives), sampling_rate.
    """
    catalogue = catalogue.sort("known_day", "item_id").with_row_index("number")
    ordered = positives.join(catalogue.select("item_id", "number"), on="item_id", how="left")
    ordered = ordered.sort("user_id", "day", "shown_at", "item_id")
    numbers = ordered["number"].to_numpy()
    days = (ordered["day"].cast(pl.Int32)).to_numpy()
    known_days = catalogue["known_day"].cast(pl.Int32).to_numpy()
    drawn: list[np.ndarray] = []
    sources: list[np.ndarray] = []
    rates: list[np.ndarray] = []
    chosen = np.zeros(catalogue.height, dtype=bool)
    last_user = None
    for user, start, stop in _user_days(ordered):
        if again or user != last_user:
            chosen[:] = False
            last_user = user
        chosen[numbers[start:stop]] = True
        day = int(days[start])
        pool = np.flatnonzero(~chosen[: np.searchsorted(known_days, day, side="right")])
        count = min(per_positive * (stop - start), pool.size)
        generator = np.random.default_rng([seed, zlib.crc32(user.encode()), day])
        drawn.append(generator.choice(pool, size=count, replace=False))
        sources.append(start + np.arange(count) // per_positive)
        rates.append(np.full(count, count / pool.size if pool.size else 1.0))
    if not drawn:
        return positives.head(0).with_columns(sampling_rate=pl.lit(1.0))
    rows = ordered[np.concatenate(sources)].select("user_id", "day", "shown_at")
    items = catalogue["item_id"].gather(np.concatenate(drawn))
    return rows.with_columns(item_id=items, sampling_rate=pl.Series(np.concatenate(rates)))


def _user_days(ordered: pl.DataFrame) -> list[tuple[str, int, int]]:
    """List (user, first row, row after the last) of each user's days, in order."""
    groups = ordered.group_by("user_id", "day", maintain_order=True).len()
    stops = groups["len"].cum_sum()
    return list(zip(groups["user_id"], stops - groups["len"], stops, strict=True))
