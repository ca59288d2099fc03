"""Labels by shares are those of all rows together, also where a reversal names no impression."""

from datetime import timedelta

import numpy as np
import polars as pl

from features.label_shares import PLACE, LabelShares
from features.labels import make_labels
from recsys.tasks import TaskSpec

LIKE = TaskSpec(name="like", feedback="like", reversal="unlike", head="binary", window="1h")
OTHER = TaskSpec(name="view", feedback="view", head="binary", window="1h")


def test_what_takes_a_label_back_is_in_its_share(frames, tmp_path):
    """40 users see each of 5 items twice and like both; half take one back, without naming an impression."""
    shown, done = [], []
    for n in range(400):
        owner = {"user_id": f"u{n % 40}", "item_id": f"i{n // 40 % 5}"}
        at = frames.noon + timedelta(seconds=n)
        shown.append({**owner, "impression_id": f"r{n}:1", "shown_at": at})
        done.append({**owner, "kind": "like", "occurred_at": at, "impression_id": f"r{n}:1"})
        done.append({**owner, "kind": "view", "occurred_at": at})
        if n >= 200 and n % 2:
            done.append({**owner, "kind": "unlike", "occurred_at": at + timedelta(minutes=9)})
    impressions, feedback = frames.impressions(*shown), frames.feedback(*done)
    as_of = frames.noon + timedelta(days=1)
    shares = LabelShares(tmp_path / "shares", 7)
    shares.add_impressions(impressions, pl.Series(PLACE, np.arange(400)))
    shares.add_feedback([feedback[:100], feedback[100:]], [LIKE, OTHER], as_of)
    found = [labels.with_columns(places) for places, labels in shares.labels([LIKE, OTHER], as_of)]
    assert len(found) == 7
    together = make_labels(impressions, feedback, [LIKE, OTHER], as_of)[0]
    assert pl.concat(found).sort(PLACE).drop(PLACE).equals(together)
    assert together["label_like"].to_list() == [float(n < 200 or n % 2 == 0) for n in range(400)]
    assert together["label_view"].sum() == 0, "organic"
