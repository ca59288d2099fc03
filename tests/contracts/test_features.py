"""Every feature gives the same value offline and online, bit for bit, and never sees what comes later."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest

from features.build import build_snapshots, item_rows, user_rows
from features.encode import Encoder
from features.fit import FitFrames, fit_encoder
from features.kinds.feature import FitRows
from features.online import OnlineFeatures, encode_items, item_group
from features.packing import pack_users
from features.sequences import history_slices
from features.store import Event, FeatureStore, open_store
from recsys.config import RunConfig, StoreConfig
from recsys.log import period_end
from recsys.snapshot import DaySnapshot
from recsys.stages import Stages
from training.data import EncodedRows, encode_day

ROWS = 200
"""Impressions compared per day."""


@dataclass(frozen=True)
class Sides:
    """One day as training sees it, and a server that answers on that day."""

    encoded: EncodedRows
    online: OnlineFeatures
    encoder: Encoder
    config: RunConfig
    snapshot: DaySnapshot
    previous: DaySnapshot

    @property
    def items(self) -> pl.DataFrame:
        """Give the items of the day, in the order of the encoded."""
        return item_rows(self.previous, self.snapshot)


def _encoder(chain: list[DaySnapshot], last: int, config: RunConfig) -> Encoder:
    frames = FitFrames.read(chain[last], chain[: last + 1], config)
    return Encoder.from_config(config, fit_encoder(config, frames, None, 0))


def _events(feedback: pl.DataFrame) -> list[Event]:
    columns = ("feedback_id", "user_id", "item_id", "kind", "value", "received_at_ms")
    rows = feedback.with_columns(received_at_ms=pl.col("received_at").dt.epoch("ms"))
    return [Event(**row) for row in rows.select(columns).iter_rows(named=True)]


def _sides(chain, day, config, store: FeatureStore, fitted_on=2) -> Sides:
    encoder = _encoder(chain, fitted_on, config)
    snapshot, previous = chain[day], chain[day - 1]
    encoded = encode_day(encoder, chain.labelled_for(config.tasks), day, config.tasks)
    version = f"v{day}"
    store.publish(version, pack_users(previous, encoder), {}, 0)
    # The delta also holds what the base already has: it is pruned later than the base is published.
    store.append(_events(pl.concat([previous.table("feedback"), snapshot.table("feedback")])))
    at_ms = int(period_end(previous.day, "UTC").timestamp() * 1000)
    return Sides(
        encoded, OnlineFeatures(store, version, config, encoder, at_ms), encoder, config, snapshot, previous
    )


@pytest.fixture(params=[1, 4], ids=["second day", "fifth day"])
def sides(request, shop_chain, config, tmp_path) -> Sides:
    return _sides(shop_chain, request.param, config, open_store(StoreConfig(), tmp_path))


def _assert_equal(sides: Sides) -> None:
    encoded, features = sides.encoded, sides.config.features
    rows = np.random.default_rng(0).permutation(encoded.size)[:ROWS]
    offline = encoded.users.take(encoded.user_row[rows])
    history = history_slices(
        encoded.start[rows],
        encoded.stop[rows],
        features.history_length,
        encoded.shown_at[rows],
        1000 * features.ingestion_lag,
        encoded.events,
    )
    crosses = [table.gather(encoded.user_row[rows], encoded.item_row[rows]) for table in encoded.crosses]
    groups = [
        dict(zip(sides.items["item_id"], item_group(sides.items, c.group), strict=True))
        for c in sides.encoder.features.crosses
    ]
    for n, row in enumerate(rows):
        impression = encoded.frame.row(int(row), named=True)
        at_ms = int(encoded.shown_at[row])
        user = sides.online.user(impression["user_id"], at_ms)
        online = user.inputs
        np.testing.assert_array_equal(online.ids, offline.ids[n])
        np.testing.assert_array_equal(online.numbers, offline.numbers[n])
        for mine, theirs in zip(online.bags, offline.bags, strict=True):
            np.testing.assert_array_equal(mine, theirs.take(np.array([n])).values)
        own = slice(*history.offsets[n : n + 2])
        np.testing.assert_array_equal(online.history_items, history.items[own])
        np.testing.assert_array_equal(online.history_kinds, history.kinds[own])
        np.testing.assert_array_equal(online.history_ages, history.ages[own])
        for cross, group, expected in zip(online.crosses, groups, crosses, strict=True):
            key = group.get(impression["item_id"])
            at = cross.keys.index(key) if key in cross.keys else -1
            np.testing.assert_array_equal(cross.numbers[at], expected[n])
        given = {k.removeprefix("context_"): v for k, v in impression.items() if k.startswith("context_")}
        context = sides.online.context(given, at_ms, user.live)
        np.testing.assert_array_equal(context.ids, encoded.contexts.ids[row])
        np.testing.assert_array_equal(context.numbers, encoded.contexts.numbers[row])


def test_user_history_and_context_are_equal_bit_for_bit(sides):
    assert (sides.encoded.stop > sides.encoded.start).mean() > 0.3, "the comparison must cover histories"
    assert len(np.unique(sides.encoded.users.numbers)) > 50, "the comparison must cover numbers"
    _assert_equal(sides)


def test_histories_are_cut_by_length_on_both_sides(sides):
    full = sides.encoded.stop - sides.encoded.start == sides.config.features.history_length
    assert full.any()


def test_every_kind_of_feature_column_is_equal(shop_log, make_config, tmp_path):
    """Numbers, booleans, numeric ids; users without ids, a longer lag, events of one instant."""
    log = type(shop_log)(tmp_path / "log")
    for table in ("impressions", "feedback", "items", "users"):
        for day in shop_log.days(table):
            frame = shop_log.read(table, day)
            position = pl.int_range(pl.len())
            if table == "impressions":
                frame = frame.with_columns(context_tab=position % 7, context_battery=(position % 13) / 3.7)
            if table == "feedback":  # many events of one instant
                frame = frame.with_columns(pl.col("occurred_at", "received_at").dt.truncate("1h"))
            if table == "users":
                frame = frame.with_columns(
                    attribute_segment=pl.when(position % 5 > 0).then(position % 3),
                    attribute_age=pl.when(position % 4 > 0).then(20.5 + position / 7),
                    attribute_income=(position % 11) / 3.7,
                    attribute_vip=position % 2 == 0,
                    attribute_likes=pl.when(position % 3 > 0).then(
                        pl.concat_list((position % 4).cast(pl.String), (position % 2).cast(pl.String))
                    ),
                )
            log.write(table, day, frame)
    config = make_config(
        feature=[
            {"name": "tab", "entity": "context", "kind": "categorical"},
            {"name": "battery", "entity": "context", "kind": "number"},
            {"name": "segment", "entity": "user", "kind": "categorical"},
            {"name": "vip", "entity": "user", "kind": "categorical"},
            {"name": "age", "entity": "user", "kind": "number", "log": True},
            {"name": "likes", "entity": "user", "kind": "multi_hot"},
            {"name": "income", "entity": "user", "kind": "number", "bins": 5},
        ],
        features={"user_id_dim": 0, "ingestion_lag": "10m", "min_count": 1},
    )
    chain = build_snapshots(log, shop_log.days("impressions")[-1], config, Stages(tmp_path / "stages"))
    sides = _sides(chain, 3, config, open_store(StoreConfig(), tmp_path))
    assert np.unique(sides.encoded.users.ids).size > 2
    assert np.unique(sides.encoded.contexts.ids).size > 7
    _assert_equal(sides)


def test_a_whole_number_is_one_id_in_any_form(shop_chain, make_config):
    config = make_config(feature=[{"name": "tab", "entity": "context", "kind": "categorical"}])
    frames = FitFrames.read(shop_chain[0], [shop_chain[0]], config)
    chain_contexts = frames.contexts.frame.head(4).with_columns(context_tab=pl.Series([1.0, 1.0, 2.0, 2.0]))
    frames = dataclasses.replace(frames, contexts=FitRows(chain_contexts, lambda: np.ones(4)))
    encoder = Encoder.from_config(config, fit_encoder(config, frames, None, 0))
    one = encoder.encode("context", chain_contexts).ids[0]
    for value in (1, 1.0, "1", True):
        np.testing.assert_array_equal(encoder.encode_one("context", {"context_tab": value}).ids[0], one)


def test_a_new_user_is_the_unknown_row_on_both_sides(sides):
    known = set(user_rows(sides.previous, sides.snapshot)["user_id"])
    new = [n for n, user in enumerate(sides.encoded.frame["user_id"]) if user not in known]
    assert new, "the shop has users who come for the first time"
    row = new[0]
    online = sides.online.user(sides.encoded.frame["user_id"][row], int(sides.encoded.shown_at[row]))
    assert not online.known
    np.testing.assert_array_equal(online.inputs.ids, sides.encoded.users.ids[-1])
    np.testing.assert_array_equal(online.inputs.numbers, sides.encoded.users.numbers[-1])


def test_items_are_equal_to_the_catalogue_a_server_encodes(sides):
    """A bundle of the night before carries the previous snapshot's items."""
    catalogue = sides.previous.table("items")
    served = encode_items(sides.encoder, catalogue)
    number = len(catalogue)
    np.testing.assert_array_equal(served.ids, sides.encoded.items.ids[:number])
    np.testing.assert_array_equal(served.numbers, sides.encoded.items.numbers[:number])
    np.testing.assert_array_equal(served.text, sides.encoded.items.text[:number])
    position = {item: n for n, item in enumerate(catalogue["item_id"])}
    for row in np.random.default_rng(1).permutation(sides.encoded.size)[:50]:
        item = sides.encoded.frame["item_id"][int(row)]
        if item in position:
            assert sides.encoded.item_row[row] == position[item]


def test_nightly_values_of_a_days_examples_are_yesterdays(sides):
    """Nothing of the day itself: the encoded's numbers are those of the snapshot before."""
    yesterday = sides.encoder.encode("user", sides.previous.table("users"))
    today = sides.encoder.encode("user", sides.snapshot.table("users"))
    np.testing.assert_array_equal(sides.encoded.users.numbers[:-1], yesterday.numbers)
    assert not np.array_equal(yesterday.numbers, today.numbers[: len(yesterday.numbers)])


def test_feedback_received_later_never_changes_an_answer(sides):
    row = int(np.argmax(sides.encoded.stop - sides.encoded.start))
    user, at_ms = sides.encoded.frame["user_id"][row], int(sides.encoded.shown_at[row])
    before = sides.online.user(user, at_ms).inputs
    edge = at_ms - 1000 * sides.config.features.ingestion_lag
    for number, received in enumerate((edge, edge + 1, at_ms, at_ms + 10**8)):
        sides.online.store.append(
            [
                Event(
                    feedback_id=f"later{number}",
                    user_id=user,
                    item_id="i000001",
                    kind="click",
                    value=None,
                    received_at_ms=received,
                )
            ]
        )
    after = sides.online.user(user, at_ms).inputs
    np.testing.assert_array_equal(before.history_items, after.history_items)
    np.testing.assert_array_equal(before.history_ages, after.history_ages)
    sides.online.store.append(
        [
            Event(
                feedback_id="seen",
                user_id=user,
                item_id="i000001",
                kind="click",
                value=None,
                received_at_ms=edge - 1,
            )
        ]
    )
    assert sides.online.user(user, at_ms).history[0].feedback_id == "seen"
