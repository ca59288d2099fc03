"""Packed users: everything the snapshot says of a user, and nothing lost on the way back."""

import polars as pl

from features.encode import Encoder, raw_columns
from features.packing import NOBODY, pack_one, pack_users, unpack_user
from recsys.bundle import load_bundle


def test_packed_users_hold_what_the_snapshot_holds(bundle_folder, shop_chain):
    bundle = load_bundle(bundle_folder)
    encoder = Encoder.from_config(bundle.config, bundle.encoder)
    snapshot = shop_chain[4]
    packed = dict(pack_users(snapshot, encoder))
    assert sorted(packed) == list(packed)
    users = {user: unpack_user(value) for user, value in packed.items()}
    rows = {r["user_id"]: r for r in snapshot.table("users").iter_rows(named=True)}
    for user_id, user in users.items():
        assert "user_id" not in user.row
        assert all(rows[user_id][column] == value for column, value in user.row.items())
    assert sum(len(u.tail) for u in users.values()) == snapshot.table("tail").height
    assert sum(len(i) for u in users.values() for i in u.seen.values()) == snapshot.table("seen").height
    cross = snapshot.table("cross_category")
    columns = raw_columns(encoder.features.crosses[0].numbers)
    for row in cross.iter_rows(named=True):
        found = {r[0]: r[1:] for r in users[row["user_id"]].crosses["category"]}
        assert found[row["category"]] == [row[c] for c in columns]
    assert cross.height > 10


def test_what_was_taken_back_travels_with_the_tail(shop_chain, bundle_folder):
    bundle = load_bundle(bundle_folder)
    encoder = Encoder.from_config(bundle.config, bundle.encoder)
    voided = shop_chain[4].table("tail").filter(pl.col("void_at").is_not_null())
    assert voided.height > 0, "the shop has refunds"
    packed = dict(pack_users(shop_chain[4], encoder))
    for row in voided.iter_rows(named=True):
        at_ms = int(row["void_at"].timestamp() * 1000)
        assert unpack_user(packed[row["user_id"]]).void_at[row["feedback_id"]] == at_ms


def test_packing_one_user_is_packing_that_user(shop_chain, bundle_folder):
    bundle = load_bundle(bundle_folder)
    for value in dict(pack_users(shop_chain[4], Encoder.from_config(bundle.config, bundle.encoder))).values():
        assert pack_one(unpack_user(value)) == value
    assert unpack_user(None) is NOBODY
