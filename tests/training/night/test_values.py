"""A night whose heads predict seconds and a ratio: neither is stars, and neither is rounded to them."""

from datetime import date

import numpy as np
import polars as pl
import pytest

from recsys.bundle import load_bundle
from recsys.log import InteractionLog
from recsys.snapshot import DaySnapshot
from training.night.run import Night, run_night
from training.publish import verify_version

NIGHT = date(2026, 1, 29)
HEADS = {
    "watch": {"low": 0.0, "high": 600.0, "step": 1.0},
    "share": {"low": 0.0, "high": 1.0, "step": 0.01},
}


@pytest.fixture(scope="module")
def log(shop_log, tmp_path_factory):
    """Give every click the seconds watched, long on a desktop, and the share of the film that they are."""
    log = InteractionLog(tmp_path_factory.mktemp("watched") / "log")
    for table in ("impressions", "users", "items"):
        for day in shop_log.days(table):
            log.write(table, day, shop_log.read(table, day))
    shown = pl.concat([shop_log.read("impressions", day) for day in shop_log.days("impressions")])
    devices = shown.select("impression_id", "user_id", "context_device")
    rng = np.random.default_rng(0)
    for day in shop_log.days("feedback"):
        rows = shop_log.read("feedback", day)
        clicks = rows.filter(pl.col("kind") == "click").join(
            devices, on=["impression_id", "user_id"], how="left"
        )
        longest = pl.when(pl.col("context_device") == "desktop").then(600.0).otherwise(150.0)
        clicks = clicks.with_columns(watch=longest * pl.Series(rng.random(clicks.height) ** 0.7))
        parts = [
            clicks.with_columns(
                feedback_id=pl.col("feedback_id") + f"-{kind}", kind=pl.lit(kind), value=value
            ).select(rows.columns)
            for kind, value in (("watch", pl.col("watch")), ("share", pl.col("watch") / 600))
        ]
        log.write("feedback", day, pl.concat([rows, *parts]))
    return log


@pytest.fixture(scope="module")
def night(make_config, log, tmp_path_factory):
    common = {"head": "regression", "window": "1h", "space": "observed"}
    tasks = [t.model_dump(mode="json") for t in make_config().tasks[:1]]
    tasks += [{"name": name, "feedback": name, **common, **options} for name, options in HEADS.items()]
    config = make_config(
        task=tasks,
        features={"history_kinds": ["click", *HEADS]},
        training={"epochs": 6, "learning_rate": 6e-3},
        gate={"min_rows": 20, "min_list_auc": 0.0, "max_ece": 0.5},
    )
    night = Night(config=config, log=log, runs=tmp_path_factory.mktemp("runs"), date=NIGHT)
    return night, run_night(night)


@pytest.fixture(scope="module")
def snapshot(night):
    folders = (night[0].stages.root / "features").iterdir()
    return next(s for s in (DaySnapshot(NIGHT, f) for f in folders) if s.manifest["day"] == str(NIGHT))


@pytest.fixture(scope="module")
def bundle(night):
    return load_bundle(night[0].registry.require(night[1].version))


@pytest.mark.parametrize("name", HEADS)
def test_aggregates_are_the_values_to_within_half_a_step_each(name, snapshot, bundle, log):
    days = [d for d in log.days("feedback") if d <= NIGHT]
    events = pl.concat([log.read("feedback", d) for d in days]).filter(
        pl.col("kind") == name, pl.col("received_at").dt.date() <= NIGHT
    )
    sums = events.group_by("item_id").agg(total=pl.col("value").sum(), events=pl.len())
    found = snapshot.table("items").join(sums, on="item_id", how="inner")
    step = HEADS[name]["step"]
    error = (found[f"{name}_steps_life"] * step - found["total"]).abs()
    assert (error <= step / 2 * found["events"]).all()
    assert found[f"{name}_count_life"].to_list() == found["events"].to_list()
    prior = bundle.encoder.numbers[f"item_{name}_mean_life"].prior
    assert prior == pytest.approx(events["value"].mean(), rel=0.1), "means are in the value's own unit"


@pytest.mark.parametrize("name", HEADS)
def test_histories_have_ten_bins_of_about_equal_mass(name, snapshot, bundle):
    edges = bundle.encoder.history[name]
    assert len(edges) == 9
    values = snapshot.table("tail").filter(pl.col("kind") == name)["value"].to_numpy()
    shares = np.bincount(np.searchsorted(edges, values, side="right"), minlength=10) / values.size
    # The bins were fitted on the last training day; these are two days later.
    assert shares.min() > 0.02
    assert shares.max() < 0.25
    assert bundle.manifest.inputs["history_kinds"] == [["click", 1], *([name, 10] for name in HEADS)]


@pytest.mark.parametrize("name", HEADS)
def test_predictions_are_in_the_unit_and_better_than_the_mean(name, night):
    check = next(c for c in night[1].decision.checks if c.name == f"{name} RMSE")
    low, high = HEADS[name]["low"], HEADS[name]["high"]
    assert 0.05 * (high - low) < check.numbers["rmse"] < 0.98 * check.numbers["mean"] < 0.5 * (high - low)


def test_the_online_store_gives_what_the_night_wrote_down(night, bundle):
    """Golden requests of the night: rows and histories of the store encode to what was written down."""
    _, found = verify_version(night[0].runs, bundle.version)
    assert found["max_difference"] < 1e-4
    kinds = bundle.golden["input_history_kinds"].explode().drop_nulls().unique().to_list()
    assert len([k for k in kinds if k > 1]) > 10, "the requests cover bins of both values"
