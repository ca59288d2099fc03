"""The online read by hand; that it equals training's is proved in tests/contracts/test_features.py."""

import json

import numpy as np
import polars as pl
import pytest

from features.encode import Encoder
from features.online import STORE_UNAVAILABLE, OnlineFeatures
from features.packing import pack_users, unpack_user
from features.store import Event, StoredUser
from recsys.bundle import load_bundle
from recsys.errors import StoreError

NIGHT = 1_000_000_000
NOON = NIGHT + 12 * 3_600_000


class Store:
    """A store of one user, or a dead one."""

    def __init__(self, user=None):
        self.user = user

    def get_many(self, version, user_ids, within_s=None):
        if self.user is None:
            raise StoreError("down")
        return [self.user] * len(user_ids)


@pytest.fixture(scope="module")
def read(bundle_folder):
    """Give a reader of a user with a base and a delta."""
    bundle = load_bundle(bundle_folder)
    encoder = Encoder.from_config(bundle.config, bundle.encoder)

    def run(base=None, events=(), at=NOON, store=None):
        packed = None if base is None else json.dumps([base[0], base[1], {}, {}, *base[2:]]).encode()
        stored = StoredUser(packed, tuple(events))
        online = OnlineFeatures(store or Store(stored), "v", bundle.config, encoder, NIGHT)
        return online.user("u000001", at)

    run.items = bundle.items["item_id"].to_list()
    return run


def _click(name, at, kind="click", item="i000001"):
    return Event(feedback_id=name, user_id="u", item_id=item, kind=kind, value=None, received_at_ms=at)


def _ids(user):
    return [e.feedback_id for e in user.history]


def test_base_and_delta_are_one_history_newest_first(read):
    tail = [
        [NIGHT - 50, "old", "i000001", "click", None, None],
        [NIGHT - 10, "late", "i000002", "rating", 4.0, None],
    ]
    user = read(
        [{"impressions_life": 3}, tail], [_click("c", NIGHT), _click("a", NIGHT + 5), _click("b", NIGHT + 5)]
    )
    assert _ids(user) == ["b", "a", "c", "late", "old"]
    assert user.known
    assert user.inputs.history_kinds.tolist() == [1, 1, 1, 8, 1], "4 is the sixth of the half stars seen"


def test_the_delta_before_the_snapshot_is_already_in_the_base(read):
    assert _ids(read([{"impressions_life": 3}, []], [_click("before", NIGHT - 1), _click("at", NIGHT)])) == [
        "at"
    ]


def test_the_ingestion_lag_is_strict(read):
    """The default lag is none: what was received before the request is seen, what came with it is not."""
    events = [_click("seen", NOON - 1), _click("edge", NOON), _click("later", NOON + 1)]
    assert _ids(read([{}, []], events)) == ["seen"]


def test_length_and_kinds_are_the_configs(read):
    events = [_click(f"{n}", NIGHT + n) for n in range(9)] + [_click("view", NIGHT + 99, kind="view")]
    user = read([{}, []], events)
    assert _ids(user) == ["8", "7", "6", "5", "4"]
    assert user.inputs.history_items.shape == (5,)


def test_an_event_of_the_base_that_comes_again_counts_once(read):
    tail = [[NIGHT - 50, "retried", "i000001", "click", None, None]]
    user = read([{"impressions_life": 3}, tail], [_click("retried", NIGHT + 9), _click("new", NIGHT + 10)])
    assert _ids(user) == ["new", "retried"]
    assert user.live["live_click_count"] == 1


def test_what_was_taken_back_leaves_history_and_counters(read):
    tail = [
        [NIGHT - 50, "refunded before", "i000001", "purchase", None, NIGHT - 20],
        [NIGHT - 40, "bought before", "i000002", "purchase", None, None],
    ]
    bought = _click("bought today", NIGHT + 10, kind="purchase", item="i000003")
    undone = [_click(f"undo {n}", NIGHT + 20, kind="refund", item=f"i00000{n}") for n in (2, 3)]
    before = read([{"impressions_life": 3}, tail], [bought])
    assert _ids(before) == ["bought today", "bought before"]
    assert before.live["live_purchase_count"] == 1
    after = read([{"impressions_life": 3}, tail], [bought, *undone])
    assert _ids(after) == []
    assert after.live["live_purchase_count"] == -1, "one bought and two taken back since the night"
    assert after.inputs.history_kinds.size == 0
    edge = [_click("undo 3", NOON, kind="refund", item="i000003")]
    assert _ids(read([{"impressions_life": 3}, []], [bought, *edge])) == ["bought today"]


def test_a_bots_flood_is_cut_at_the_daily_cap(read):
    flood = [_click(f"{n:05d}", NIGHT + n) for n in range(5_002)]
    user = read([{"impressions_life": 3}, []], flood)
    assert _ids(user)[0] == "04999"
    assert user.live["live_click_count"] == 5_000


def test_what_was_seen_is_listed_by_kind(read):
    user = read([{}, []], [_click("a", NIGHT, item="x"), _click("b", NIGHT, kind="purchase", item="y")])
    assert user.seen == {"click": frozenset({"x"}), "purchase": frozenset({"y"})}


def test_a_user_of_today_has_a_history_but_no_row(read):
    user = read(None, [_click("a", NIGHT)])
    assert not user.known
    assert _ids(user) == ["a"]
    assert user.inputs.ids[0] == 0
    assert not user.inputs.numbers.any()


def test_a_dead_store_gives_an_unknown_user_and_says_so(read):
    user = read(store=Store())
    assert user.degraded == (STORE_UNAVAILABLE,)
    assert not user.known
    assert user.history == ()
    np.testing.assert_array_equal(user.inputs.history_kinds, np.zeros(0, np.int64))


def test_the_context_may_miss_anything(bundle_folder):
    bundle = load_bundle(bundle_folder)
    online = OnlineFeatures(
        Store(), "v", bundle.config, Encoder.from_config(bundle.config, bundle.encoder), NIGHT
    )
    known = online.context({"device": "phone"}, NOON).ids
    missing = online.context({}, NOON).ids
    extra = online.context({"device": "phone", "unknown": 5.0}, NOON).ids
    assert (known == extra).all()
    assert (known != missing).sum() == 1


def test_a_context_is_encoded_once_while_nothing_of_it_changes(bundle_folder, monkeypatch):
    bundle = load_bundle(bundle_folder)
    encoder = Encoder.from_config(bundle.config, bundle.encoder)
    asked = []
    encode_one = Encoder.encode_one
    monkeypatch.setattr(
        Encoder, "encode_one", lambda self, entity, row: asked.append(row) or encode_one(self, entity, row)
    )
    online = OnlineFeatures(Store(), "v", bundle.config, encoder, NIGHT)
    first = online.context({"device": "phone"}, NOON)
    assert online.context({"device": "phone"}, NOON + 1_000) is first
    others = [
        online.context({"device": "tablet"}, NOON),
        online.context({"device": "phone"}, NOON + 3_600_000),
        online.context({"device": "phone"}, NOON, {"live_clicks": 3}),
    ]
    assert len(asked) == 4
    assert all(other is not first for other in others)
    with pytest.raises(ValueError, match="read-only"):
        first.ids[0] = 7


def test_a_purchase_is_remembered_longer_than_any_history(shop_log, shop_chain, config, bundle_folder):
    day = shop_chain[4].day
    feedback = pl.concat([shop_log.read("feedback", d) for d in shop_log.days("feedback") if d <= day])
    bought = feedback.filter(pl.col("kind") == "purchase")
    wanted = dict(bought.group_by("user_id").agg(pl.col("item_id").unique()).iter_rows())
    bundle = load_bundle(bundle_folder)
    packed = dict(pack_users(shop_chain[4], Encoder.from_config(bundle.config, bundle.encoder)))
    found = {user: set(unpack_user(value).seen.get("purchase", ())) for user, value in packed.items()}
    assert {user: items for user, items in found.items() if items} == {u: set(i) for u, i in wanted.items()}
    assert max(len(items) for items in wanted.values()) > 1


def test_what_was_taken_is_read_longer_than_the_history_without_what_was_taken_back(read):
    taken = {"purchase": {"i000001": [NIGHT - 9_000, NIGHT - 5_000], "i000002": [NIGHT - 4_000]}}
    events = [
        _click("a", NIGHT + 10, item="i000003"),
        _click("b", NIGHT + 20, kind="rating", item="i000004"),
        _click("c", NIGHT + 30, kind="refund", item="i000002"),
        _click("d", NIGHT + 40, kind="purchase", item="i000002"),
    ]
    user = read([{"impressions_life": 3}, [], taken], events)
    found = sorted(zip(user.taken.at_ms.tolist(), user.taken.item_ids, user.taken.kinds, strict=True))
    assert found == [
        (NIGHT - 9_000, "i000001", "purchase"),
        (NIGHT - 5_000, "i000001", "purchase"),
        (NIGHT + 10, "i000003", "click"),
        (NIGHT + 40, "i000002", "purchase"),
    ]
    assert len(user.history) == 3
    assert not len(read([{"impressions_life": 3}, []]).taken)
