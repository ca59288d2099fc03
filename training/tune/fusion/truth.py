"""On the simulated shop: the true value of a fusion's top k, by the simulator's probabilities."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from recsys.fusion import Fusion
from recsys.simulator.shop import Shop
from training.evaluation.choices import Choice
from training.tune.fusion.value import Value

MEASURES = ("p_click", "p_purchase", "expected_rating")
"""Clicks and purchases expected per request; mean expected stars of what is shown."""


def true_values(
    shop: Shop, choices: Sequence[Choice], fusion: Fusion, users: Mapping[str, int], k: int
) -> dict[str, Value]:
    """Show each request the k best of its candidates; give what is truly expected of it, per user."""
    frames = []
    for choice in choices:
        top = choice.item_ids[choice.ranked(fusion)[:k]]
        frames.append(
            pl.DataFrame(
                {"item_id": top, "position": np.arange(1, top.len() + 1), "request_id": choice.request_id}
            ).with_columns(
                user_id=pl.lit(choice.user_id), shown_at=pl.lit(choice.shown_at), impression_id=pl.lit("")
            )
        )
    shown = pl.concat(frames)
    truth = shop.true_predictions(shown)
    user = shown["user_id"].replace_strict(users, return_dtype=pl.Int64).to_numpy()
    requests = np.bincount([users[c.user_id] for c in choices], minlength=len(users)).astype(np.float64)
    places = np.bincount(user, minlength=len(users)).astype(np.float64)
    return {
        name: Value(
            np.bincount(user, truth[name].to_numpy(), minlength=len(users)).astype(np.float64),
            places if name == "expected_rating" else requests,
        )
        for name in MEASURES
    }
