"""Where keys lie: even over a cluster's slots, a user's together, every bucket found by counting."""

from collections import Counter

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from features.store import Event
from features.store.codec import Codec
from features.store.redis_keys import (
    NUM_TAGS,
    Base,
    Keys,
    buckets_for,
    pack_event,
    read_base,
    tags,
    unpack_event,
)

KEYS = Keys("shop")


def _base(**values):
    base = {"version": "v1", "generation": "0123456789ab", "buckets": 3, "codec": Codec(b"abc"), "meta": {}}
    return Base(**{**base, **values})


def test_tags_are_spread_evenly_over_the_slots():
    slots = [key_slot(b"%d" % tag) for tag in tags()]
    for nodes in (2, 3, 6, 10):
        shares = Counter(slot * nodes // REDIS_CLUSTER_HASH_SLOTS for slot in slots)
        assert max(shares.values()) - min(shares.values()) <= 2, nodes
    assert len(set(tags())) == NUM_TAGS


def test_a_users_base_and_delta_are_on_one_node_and_the_pointers_on_one():
    for user in ("u", "ünï", "u{1}2", "}{"):
        assert key_slot(KEYS.bucket(_base(), user).encode()) == key_slot(KEYS.delta(user).encode())
    pointers = (KEYS.current, KEYS.ready, KEYS.written, KEYS.delta_before, KEYS.lease("g"))
    assert len({key_slot(key.encode()) for key in pointers}) == 1


def test_every_users_bucket_is_among_those_that_collection_removes():
    base = _base()
    every = list(KEYS.buckets(base))
    assert len(every) == len(set(every)) == NUM_TAGS * 3
    used = {KEYS.bucket(base, f"u{n}") for n in range(20_000)}
    assert used == set(every)


def test_the_number_of_buckets_follows_the_users():
    assert [buckets_for(n) for n in (0, 1, 4096, 4097, 200_000, 10_000_000)] == [1, 1, 1, 2, 49, 2442]


def test_a_record_comes_back():
    base = _base(users=7, meta={"day": "2026-01-05"})
    record = base.record()
    found = read_base(record)
    assert record.startswith(b"0123456789ab {")
    assert (found.version, found.generation, found.buckets, found.users) == ("v1", "0123456789ab", 3, 7)
    assert (found.meta, found.codec.dictionary) == ({"day": "2026-01-05"}, b"abc")


def test_an_event_comes_back_and_is_small():
    event = Event(
        feedback_id="r20260128-001883:2:rating", user_id="u", item_id="ü'\"", kind="rating", value=4.5,
        received_at_ms=1_769_616_646_838,
    )  # fmt: skip
    packed = pack_event(event)
    assert unpack_event("u", event.feedback_id.encode(), packed) == event
    assert len(packed) <= 64  # beyond, the server's default would take the hash out of its small form
