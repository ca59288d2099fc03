"""Small random histories for the tests of this folder."""

import numpy as np

from recsys.item_item.histories import Histories


def random_histories(num_users=60, num_items=25, events=700, seed=0, timed=False):
    """Draw events in which items of one residue go together."""
    rng = np.random.default_rng(seed)
    users = rng.integers(0, num_users, events)
    items = (rng.integers(0, num_items // 5, events) * 5 + users % 5) % num_items
    stray = rng.random(events) < 0.2
    items[stray] = rng.integers(0, num_items, int(stray.sum()))
    days = rng.uniform(0, 100, events) if timed else None
    return Histories.of(users, items, num_users=num_users, days=days)
