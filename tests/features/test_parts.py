"""What users have done: remembered period by period as if all periods had been one."""

import polars as pl
from polars.testing import assert_frame_equal

from features import parts


def test_what_was_done_is_the_same_by_periods_and_at_once(frames, at, monkeypatch):
    monkeypatch.setattr(parts, "MAX_SEEN", 2)
    done = frames.feedback(
        {"user_id": "b", "item_id": "i", "occurred_at": at(hours=1)},
        {"user_id": "a", "item_id": "i", "occurred_at": at(hours=2)},
        {"user_id": "c", "item_id": "i", "occurred_at": at(hours=3)},
        {"user_id": "b", "item_id": "j", "occurred_at": at(hours=4)},
        {"user_id": "b", "item_id": "i", "occurred_at": at(hours=5)},
        {"user_id": "b", "item_id": "k", "occurred_at": at(hours=6)},
        {"user_id": "b", "item_id": "k", "occurred_at": at(hours=6), "kind": "view"},
    )
    earlier = parts._seen(None, done[:3], ["click"])
    found = parts._seen(earlier, done[3:], ["click"])
    assert_frame_equal(found, parts._seen(None, done, ["click"]))
    assert found.select("user_id", "item_id").rows() == [("a", "i"), ("b", "k"), ("b", "i"), ("c", "i")]
    assert_frame_equal(parts._seen(found, pl.DataFrame(schema=done.schema), ["click"]), found)
