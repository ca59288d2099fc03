"""What the ranker reads of a row's past is what a server read then, and knows nothing of the row's label."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from features.build import build_snapshots, item_rows
from features.encode import Encoder
from features.fit import FitFrames, fit_encoder
from features.online import OnlineFeatures
from features.packing import pack_users
from features.store import Event, open_store
from recsys.config import StoreConfig
from recsys.log import InteractionLog, period_end
from recsys.metrics.pointwise import auc
from recsys.schema import empty
from recsys.stages import Stages
from recsys.user_past import UserPast
from training.data import encode_day, opened_day, scoring
from training.item_item import item_item_table, switched_on
from training.past_rows import DayPast, periods_of_a_table

DAY = 4
LEARN = {"repeat": "learn", "repeat_kinds": ["click"]}


@pytest.fixture(scope="module")
def read_config(make_config):
    """Clicks take an item; the ranker reads the past, repeats too."""
    return make_config(item_item={"feature": True, "penalty": 5.0}, policy=LEARN)


@pytest.fixture(scope="module")
def chain(shop_chain, read_config):
    """Take the tiny shop's days: they hold what this config takes."""
    assert set(read_config.taken_kinds) == {"click", "purchase"}
    return shop_chain


@pytest.fixture(scope="module")
def encoder(chain, read_config):
    frames = FitFrames.read(chain[2], chain[:3], read_config)
    return Encoder.from_config(read_config, fit_encoder(read_config, frames, None, 0))


def _served(chain, encoder, config, folder, rows):
    """Give what a bundle of the day before reads for some rows of the day, and where the items are new."""
    before, ids = chain[DAY - 1], chain[DAY - 1].table("items")["item_id"]
    store = open_store(StoreConfig(), folder)
    store.publish("v", pack_users(before, encoder), {}, 0)
    feedback = chain[DAY].table("feedback").with_columns(received_at_ms=pl.col("received_at").dt.epoch("ms"))
    names = ("feedback_id", "user_id", "item_id", "kind", "value", "received_at_ms")
    store.append([Event(**row) for row in feedback.select(names).iter_rows(named=True)])
    at_ms = int(period_end(before.day, "UTC").timestamp() * 1000)
    online = OnlineFeatures(store, "v", config, encoder, at_ms)
    row_of = {item: row for row, item in enumerate(ids)}
    past, found = UserPast.of(item_item_table(before, config, ids), config, switched_on(config)), []
    for row in rows.iter_rows(named=True):
        at_ms = int(row["shown_at"].timestamp() * 1000)
        taken = online.user(row["user_id"], at_ms).taken
        codes = np.array([row_of.get(item, -1) for item in taken.item_ids], np.int64)
        of_user = past.of_user(codes, taken.kinds, taken.at_ms, at_ms)
        found.append(of_user.read.of_rows(np.array([row_of.get(row["item_id"], len(ids))]))[0])
    return np.stack(found)


def test_a_training_row_reads_what_a_server_reads(chain, encoder, read_config, tmp_path):
    encoded = encode_day(encoder, chain.labelled_for(read_config.tasks), DAY, read_config.tasks)
    rows = np.random.default_rng(0).permutation(encoded.size)[:150]
    served = _served(chain, encoder, read_config, tmp_path, encoded.frame[rows])
    np.testing.assert_allclose(encoded.past[rows], served, atol=1e-5)
    assert (np.abs(served) > 0).mean(axis=0).min() > 0.05, "every number is compared where it is not 0"
    fresh = ~encoded.frame["item_id"].is_in(chain[DAY - 1].table("items")["item_id"].implode()).to_numpy()
    assert fresh.any()
    assert not encoded.past[fresh, :2].any(), "a new item has no neighbours"


def test_a_day_in_files_reads_the_same(chain, encoder, read_config, monkeypatch, tmp_path):
    whole = encode_day(encoder, chain.labelled_for(read_config.tasks), DAY, read_config.tasks)
    monkeypatch.setattr(scoring, "PIECE_ROWS", 701)
    days = chain.labelled_for(read_config.tasks)
    with opened_day(encoder, days, DAY, read_config.tasks, tmp_path) as files:
        found = files.read(np.array([[0, 10], [150, whole.size]]))
    np.testing.assert_array_equal(found.past, whole.past[np.r_[0:10, 150 : whole.size]])


def test_the_past_is_of_the_instant_that_is_asked_for(chain, encoder):
    past = DayPast.of(encoder, chain, DAY)
    examples = chain[DAY].examples()
    row = item_rows(chain[DAY - 1], chain[DAY])["item_id"].to_list()
    item_row = np.array([row.index(item) for item in examples["item_id"]])
    end = np.full(examples.height, examples["shown_at"].dt.epoch("ms").max())
    later = past.numbers(examples, end, item_row)
    own = past.numbers(examples, examples["shown_at"].dt.epoch("ms").to_numpy(), item_row)
    took = later[:, 2] > own[:, 2] + 0.1  # a click is worth log 2
    clicks = chain[DAY].table("feedback").filter(pl.col("kind") == "click").select("user_id", "item_id")
    pairs = set(clicks.iter_rows())
    taken = [pair in pairs for pair in examples.select("user_id", "item_id").iter_rows()]
    assert took.any()
    assert not (took & ~np.array(taken)).any(), "only what was clicked that day is clicked more often"


def test_periods_that_share_a_table_take_an_older_one(chain, encoder):
    own, shared = (DayPast.of(encoder, chain, 3, every) for every in (1, 2))
    assert (own.counted, shared.counted) == (chain[2], chain[1])
    assert DayPast.of(encoder, chain, 1, 7).counted == chain[0], "without any table nothing would be learned"
    assert DayPast.of(encoder, chain, 0).numbers(chain[0].examples(), np.zeros(0), np.zeros(0)).any() == 0
    assert [periods_of_a_table(n) for n in (1, 28, 29, 365)] == [1, 1, 2, 14]


def _write(log, table, day, rows):
    log.write(table, day, pl.concat([empty(table), rows], how="diagonal_relaxed"), stem="simulated")


@pytest.fixture(scope="module")
def guessed(make_config, tmp_path_factory):
    """Five days on which everybody clicks one of eight items at random: labels as good as shuffled."""
    rng, log = np.random.default_rng(5), InteractionLog(tmp_path_factory.mktemp("guessed") / "log")
    first, users, items = date(2026, 1, 5), 120, 30
    catalogue = pl.DataFrame({"item_id": [f"i{n:02d}" for n in range(items)]})
    _write(log, "items", first, catalogue)
    for day in range(5):
        noon = pl.datetime(2026, 1, 5 + day, 12, time_unit="ms", time_zone="UTC")
        shown = np.stack([rng.permutation(items)[:8] for _ in range(users)])
        rows = pl.DataFrame(
            {
                "user_id": np.repeat([f"u{n:03d}" for n in range(users)], 8),
                "item_id": [f"i{n:02d}" for n in shown.ravel()],
                "position": np.tile(np.arange(1, 9), users),
            }
        ).with_columns(
            request_id=pl.format("{}-{}", "user_id", pl.lit(day)),
            shown_at=noon,
            explored=False,
            sampled=False,
            sampling_rate=1.0,
            propensity_kind=pl.lit("unknown"),
        )
        rows = rows.with_columns(impression_id=pl.format("{}:{}", "request_id", "position"))
        clicked = np.arange(users) * 8 + rng.integers(0, 8, users)
        feedback = rows[clicked].select(
            "impression_id", "user_id", "item_id",
            feedback_id=pl.format("f{}", "impression_id"), kind=pl.lit("click"),
            value=pl.lit(None, pl.Float64), occurred_at=noon + timedelta(minutes=1),
            received_at=noon + timedelta(minutes=1),
        )  # fmt: skip
        _write(log, "impressions", first + timedelta(days=day), rows)
        _write(log, "feedback", first + timedelta(days=day), feedback)
    config = make_config(item_item={"feature": True, "penalty": 5.0}, feature=[])
    days = build_snapshots(log, first + timedelta(days=4), config, Stages(tmp_path_factory.mktemp("stages")))
    frames = FitFrames.read(days[0], days[:1], config)
    return days, Encoder.from_config(config, fit_encoder(config, frames, None, 0)), config


def test_shuffled_labels_show_no_gain(guessed):
    """A table that had counted the row's own day would know its label."""
    days, encoder, config = guessed
    found = {"before": [], "of the day itself": []}
    labels = []
    for i in (2, 3, 4):
        encoded = encode_day(encoder, days.labelled_for(config.tasks), i, config.tasks)
        past = replace(DayPast.of(encoder, days, i), counted=days[i])
        labels.append(encoded.labels["click"])
        found["before"].append(encoded.past[:, 0])
        found["of the day itself"].append(
            past.numbers(encoded.frame, encoded.state_at, encoded.item_row)[:, 0]
        )
    label = np.concatenate(labels)
    assert label.mean() == pytest.approx(1 / 8)
    areas = {name: auc(label, np.concatenate(values)) for name, values in found.items()}
    assert areas["of the day itself"] > 0.65
    assert areas["before"] == pytest.approx(0.5, abs=0.05)
