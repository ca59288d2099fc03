"""What the bench compares with computes the same numbers, or its ratios would mean nothing."""

from datetime import timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from benchmarks.speed.features.in_polars import training_rows
from benchmarks.speed.features.large_log import FIRST_DAY, LogDials, write_log
from features.build import build_snapshots
from recsys.config import default_config
from recsys.log import InteractionLog, period_end
from recsys.stages import Stages

DAYS = 12
NAMES = {"user": "users", "item": "items", "cross": "cross_category"}


@pytest.fixture(scope="module")
def config():
    """Let tiles leave windows within the few days."""
    base = default_config()
    windows = base.features.model_copy(update={"window_days": (1, 3, 7), "history_length": 4})
    return base.model_copy(update={"features": windows})


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Write a small log; of a quarter of the feedback nobody knows an impression, but of refunds.

    The peers match no reversal without one: the log of the bench has none.
    """
    made = InteractionLog(tmp_path_factory.mktemp("bench") / "log")
    for day in write_log(LogDials(rows=6_000, days=DAYS), made):
        organic = (pl.int_range(pl.len()) % 4 == 0) & (pl.col("kind") != "refund")
        named = pl.when(~organic).then("impression_id").alias("impression_id")
        made.write("feedback", day, made.read("feedback", day).with_columns(named))
    return made


@pytest.fixture(scope="module")
def chain(log, config, tmp_path_factory):
    """Build our snapshots of it."""
    last = FIRST_DAY + timedelta(days=DAYS - 1)
    return build_snapshots(log, last, config, Stages(tmp_path_factory.mktemp("stages")))


@pytest.fixture(scope="module")
def nights(log, config, tmp_path_factory):
    """Build the same nights in SQL."""
    pytest.importorskip("duckdb", reason="duckdb is not installed: pip install '.[bench]'")
    from benchmarks.speed.features.in_duckdb import DuckNights

    made = DuckNights(log, tmp_path_factory.mktemp("duck"), config, threads=1)
    for number in range(DAYS):
        made.night(FIRST_DAY + timedelta(days=number))
    return made


def _same(ours, theirs, key):
    columns = [c for c in theirs.columns if c in ours.columns]
    assert set(columns) >= set(ours.columns) - {"live_click_count"} - {c for c in ours.columns if "live" in c}
    assert_frame_equal(
        theirs.select(columns).sort(key),
        ours.select(columns).sort(key),
        check_dtypes=False,
    )


@pytest.mark.parametrize("number", [0, 1, 5, 11])
@pytest.mark.parametrize("entity", ["user", "item", "cross"])
def test_duckdb_has_our_tiles_and_windows(chain, nights, entity, number):
    snapshot, name = chain[number], NAMES[entity]
    key = {"user": ["user_id"], "item": ["item_id"], "cross": ["user_id", "category"]}[entity]
    tile = f"{'cross_category' if entity == 'cross' else entity}_tile"
    assert 0 < snapshot.table(tile)["click_shown"].sum() < snapshot.table(tile)["click_count"].sum()
    _same(snapshot.table(tile), pl.read_parquet(nights.table(snapshot.day, f"{entity}_tile")), key)
    _same(snapshot.table(name), pl.read_parquet(nights.table(snapshot.day, entity)), key)


@pytest.mark.parametrize("number", [0, 1, 11])
def test_duckdb_has_our_histories(chain, nights, number):
    snapshot = chain[number]
    order = ["user_id", "received_at", "feedback_id"]
    theirs = {
        name: pl.read_parquet(nights.table(snapshot.day, name)) for name in ("events", "tail", "examples")
    }
    ours = snapshot.table("tail").drop("void_at")
    assert_frame_equal(theirs["tail"].sort(order), ours.sort(order), check_dtypes=False)
    assert _seen(theirs["examples"], theirs["events"]) == _seen(
        snapshot.table("examples"), snapshot.table("events")
    )


def _seen(examples, events):
    """Give each impression's visible events; which other users' events lie around them does not matter."""
    ids = events["feedback_id"].to_list()
    bounds = examples.select("impression_id", "history_start", "history_stop").iter_rows()
    found = {impression: ids[start:stop] for impression, start, stop in bounds}
    assert any(found.values())
    return found


def test_duckdb_has_our_training_rows(chain, nights, config, tmp_path):
    day = chain[-3].day
    as_of = period_end(chain[-1].day, "UTC")
    nights.training_rows([day], as_of, tmp_path)
    theirs = pl.read_parquet(tmp_path / f"{day}.parquet").sort("impression_id")
    ours = training_rows(chain, len(chain) - 3, 0, config).sort("impression_id")
    labels = [t.label for t in config.tasks]
    assert_frame_equal(theirs.select(labels), ours.select(labels), check_dtypes=False)
    assert ours["label_purchase"].sum() > 0
    assert ours["label_rating"].null_count() < ours.height
    for theirs_name, our_name in (
        ("impressions_life", "user_impressions_life"),
        ("by_category__click_count_7", "item_by_category__click_count_7"),
    ):
        assert_frame_equal(
            theirs.select(theirs_name), ours.select(pl.col(our_name).alias(theirs_name)), check_dtypes=False
        )
    assert len(theirs.columns) > 90


@pytest.fixture(scope="module")
def pandas_nights(log, config):
    """Build the same nights in pandas."""
    pytest.importorskip("pandas", reason="pandas is not installed: pip install '.[bench]'")
    from benchmarks.speed.features.in_pandas import PandasNights

    made = PandasNights(log, config)
    for number in range(DAYS):
        day = FIRST_DAY + timedelta(days=number)
        made.read(day)
        made.night(day)
    return made


def _polars(frame):
    """Bring a pandas frame over; an instant's null is NaT there."""
    return pl.DataFrame(
        {str(c): [None if v is None or v != v else v for v in frame[c].tolist()] for c in frame.columns}
    )


@pytest.mark.parametrize("number", [0, 5, 11])
@pytest.mark.parametrize("entity", ["user", "item", "cross"])
def test_pandas_has_our_tiles_and_windows(chain, pandas_nights, entity, number):
    snapshot, theirs = chain[number], pandas_nights.days[chain[number].day]
    key = {"user": ["user_id"], "item": ["item_id"], "cross": ["user_id", "category"]}[entity]
    tile = f"{'cross_category' if entity == 'cross' else entity}_tile"
    for name, found in ((tile, theirs[f"{entity}_tile"]), (NAMES[entity], theirs[entity])):
        ours = snapshot.table(name).sort(key)
        counts = [c for c in ours.columns if ours[c].dtype == pl.Int64 and c != "price"]
        found = _polars(found.reset_index()).sort(key)
        assert found.select(key).equals(ours.select(key))
        assert_frame_equal(found.select(counts), ours.select(counts), check_dtypes=False)


def test_pandas_has_our_histories_and_labels(chain, pandas_nights, config):
    snapshot = chain[-3]
    theirs = pandas_nights.days[snapshot.day]
    columns = ["impression_id", "history_start", "history_stop"]
    assert _seen(_polars(theirs["examples"][columns]), _polars(theirs["events"][["feedback_id"]])) == _seen(
        snapshot.table("examples"), snapshot.table("events")
    )
    as_of = period_end(chain[-1].day, "UTC")
    rows = _polars(pandas_nights.training_rows([snapshot.day], as_of)[0]).sort("impression_id")
    ours = training_rows(chain, len(chain) - 3, 0, config).sort("impression_id")
    shared = [*(t.label for t in config.tasks), "user_click_count_7", "item_by_category__impressions_life"]
    assert_frame_equal(rows.select(shared), ours.select(shared), check_dtypes=False)
    crossed = [f"impressions_{w}" for w in (1, 3, 7, "life")]
    assert_frame_equal(
        rows.select(pl.col(f"cross_{c}").alias(c) for c in crossed),
        ours.select(pl.col(f"cross_category_{c}").alias(c) for c in crossed),
        check_dtypes=False,
    )
