"""Planted corruptions: each spoils one day of a simulated log; the night must stop before it learns."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta

import polars as pl
import pytest

from features.build import build_snapshots
from features.validation.ingest import ACCEPTED, Acceptances, Ingest
from recsys.errors import DataError
from recsys.log import InteractionLog
from recsys.simulator.dials import ShopDials
from recsys.simulator.log_writer import write_log
from recsys.simulator.shop import Shop
from recsys.stages import Stages
from training.night.night import Night
from training.night.run import run_night

LAST = date(2026, 1, 30)
DIALS = ShopDials(users=600, items=800, days=22, candidates=80, last_day=LAST)
CAP = 2_000


@dataclass(frozen=True)
class Workshop:
    """A log to spoil, and what was built of it while it was clean."""

    log: InteractionLog
    config: object
    runs: object

    def change(self, table, edit):
        """Rewrite the last day's rows of one table."""
        path = self.log.root / table / f"date={LAST}"
        frame = self.log.read(table, LAST)
        shutil.rmtree(path)
        self.log.write(table, LAST, edit(frame))

    def yesterday(self, table):
        return self.log.read(table, LAST - timedelta(days=1))

    def run(self):
        """Run the night; give its error and report."""
        night = Night(config=self.config, log=self.log, runs=self.runs, date=LAST)
        with pytest.raises(DataError) as caught:
            run_night(night)
        report = json.loads((self.runs / "reports" / f"validation-{LAST}.json").read_text())
        assert not (self.runs / "stages" / "train").exists(), "nothing may be trained"
        return str(caught.value), report

    def check(self):
        """Check the last day without a night."""
        stages = Stages(self.runs / "stages")
        chain = build_snapshots(self.log, LAST, self.config, stages)
        accepted = Acceptances(self.runs / "registry" / ACCEPTED)
        ingest = Ingest(log=self.log, config=self.config, stages=stages, accepted=accepted)
        return ingest.check_days(chain, LAST - timedelta(days=1))


@pytest.fixture(scope="module")
def clean(make_config, tmp_path_factory):
    """Simulate a shop, build and profile all its days."""
    root = tmp_path_factory.mktemp("planted")
    log = InteractionLog(root / "log")
    for _ in write_log(Shop.from_seed(DIALS, 7), log):
        pass
    for table in ("impressions", "feedback"):
        for day in log.days(table):
            if day > LAST:
                shutil.rmtree(log.root / table / f"date={day}")
    config = make_config(features={"daily_cap": CAP, "history_length": 5})
    shop = Workshop(log, config, root / "runs")
    validation = shop.check()
    assert not validation.findings, [f.line for f in validation.findings]
    return shop


@pytest.fixture
def shop(clean, tmp_path):
    """Copy the clean shop, so that a test may spoil it."""
    log = InteractionLog(shutil.copytree(clean.log.root, tmp_path / "log"))
    return Workshop(log, clean.config, shutil.copytree(clean.runs, tmp_path / "runs", copy_function=os.link))


def _moved(frame, **delta):
    instants = [c for c in ("shown_at", "occurred_at", "received_at") if c in frame.columns]
    return frame.with_columns(pl.col(instants) + timedelta(**delta))


def _renamed(frame, prefix):
    ids = [c for c in ("impression_id", "request_id", "feedback_id") if c in frame.columns]
    return frame.with_columns((prefix + pl.col(c)).alias(c) for c in ids)


def _hour(column="shown_at"):
    return pl.col(column).dt.hour()


def _both(shop, edit):
    for table in ("impressions", "feedback"):
        shop.change(table, edit)


def _column_missing(shop):
    shop.change("impressions", lambda f: f.drop("position"))


def _column_of_wrong_type(shop):
    edit = (
        pl.when(pl.col("position") == 3).then(pl.lit("third")).otherwise(pl.col("position").cast(pl.String))
    )
    shop.change("impressions", lambda f: f.with_columns(edit.alias("position")))


def _context_became_a_number(shop):
    shop.change("impressions", lambda f: f.with_columns(context_device=pl.col("position") * 1.5))


def _not_parquet(shop):
    path = shop.log.files("feedback", LAST)[0]
    path.write_bytes(path.read_bytes()[:1000])


def _morning_missing(shop):
    shop.change("impressions", lambda f: f.filter(_hour() >= 14))


def _half_the_requests_missing(shop):
    shop.change("impressions", lambda f: f.filter(pl.col("request_id").hash(1) % 2 == 0))


def _repeated_with_the_same_ids(shop):
    _both(shop, lambda f: pl.concat([f, f]))


def _repeated_with_new_ids(shop):
    _both(shop, lambda f: pl.concat([f, _renamed(f, "again-")]))


def _yesterdays_files(shop):
    for table in ("impressions", "feedback"):
        frame = shop.yesterday(table)
        shop.change(table, lambda _, frame=frame: frame)


def _yesterday_under_todays_date(shop):
    for table in ("impressions", "feedback"):
        frame = _renamed(_moved(shop.yesterday(table), days=1), "new-")
        shop.change(table, lambda _, frame=frame: frame)


def _ratings(factor):
    is_rating = pl.col("kind") == "rating"
    edit = pl.when(is_rating).then(pl.col("value") * factor).otherwise(pl.col("value"))
    return lambda shop: shop.change("feedback", lambda f: f.with_columns(edit.alias("value")))


def _clicks_lost(shop):
    shop.change(
        "feedback", lambda f: f.filter((pl.col("kind") != "click") | (pl.col("user_id").hash(1) % 5 == 0))
    )


def _feedback_names_no_impression(shop):
    shop.change("feedback", lambda f: f.with_columns(impression_id=pl.lit(None, dtype=pl.String)))


def _users_hashed_anew(shop):
    _both(shop, lambda f: f.with_columns(user_id=pl.lit("h") + pl.col("user_id").hash(5).cast(pl.String)))


def _price_in_major_units(shop):
    shop.change("items", lambda f: f.with_columns(price=pl.col("price") // 100))


def _everybody_on_a_tv(shop):
    shop.change("impressions", lambda f: f.with_columns(context_device=pl.lit("tv")))


def _bot(rows):
    def plant(shop):
        def edit(frame):
            fake = pl.concat([frame] * (1 + rows // frame.height)).head(rows)
            number = pl.int_range(pl.len()).cast(pl.String)
            fake = fake.with_columns(
                user_id=pl.lit("bot"), impression_id="bot" + number + ":1", request_id="bot" + number,
                shown_at=pl.col("shown_at") + pl.duration(milliseconds=pl.int_range(pl.len()) % 1000),
            )  # fmt: skip
            return pl.concat([frame, fake.filter(pl.col("shown_at").dt.date() == LAST)]).sort("shown_at")

        shop.change("impressions", edit)

    return plant


def _clock(hours):
    return lambda shop: _both(shop, lambda f: _moved(f, hours=hours))


def _nulls_flood(shop):
    edit = pl.when(pl.col("user_id").hash(3) % 2 == 0).then(pl.col("context_device"))
    shop.change("impressions", lambda f: f.with_columns(context_device=edit))


def _context_gone(shop):
    shop.change("impressions", lambda f: f.drop("context_device"))


def _propensities_in_percent(shop):
    shop.change("impressions", lambda f: f.with_columns(propensity=pl.col("propensity") * 10_000))


def _feedback_stops_at_noon(shop):
    shop.change("feedback", lambda f: f.filter(_hour("received_at") < 12))


@dataclass(frozen=True)
class Planted:
    """What is planted, and what must be said of it: code, table, column, and what a named row looks like."""

    plant: Callable
    code: str
    table: str
    column: str | None = None
    row: Callable = field(default=lambda row: True)
    counted: bool = True


PLANTED = {
    "column missing": Planted(_column_missing, "schema", "impressions", "position"),
    "column of wrong type": Planted(
        _column_of_wrong_type, "schema", "impressions", "position", lambda r: r["position"] == "third"
    ),
    "text became numbers": Planted(_context_became_a_number, "schema", "impressions", "context_device"),
    "file cut off": Planted(
        _not_parquet, "schema", "feedback", None, lambda r: r["file"].startswith("feedback/"), counted=False
    ),
    "morning missing": Planted(
        _morning_missing, "hours", "impressions", "shown_at", lambda r: "14:" in r["shown_at"]
    ),
    "half the requests missing": Planted(_half_the_requests_missing, "volume", "impressions"),
    "repeated, same ids": Planted(
        _repeated_with_the_same_ids,
        "duplicates",
        "impressions",
        None,
        lambda r: r["quarantine_reason"] == "duplicate",
    ),
    "repeated, new ids": Planted(
        _repeated_with_new_ids,
        "duplicates",
        "feedback",
        None,
        lambda r: r["feedback_id"].startswith("again-"),
    ),
    "yesterday's files": Planted(
        _yesterdays_files, "misfiled", "impressions", None, lambda r: r["shown_at"].startswith("2026-01-29")
    ),
    "yesterday under today's date": Planted(_yesterday_under_todays_date, "copied_day", "impressions"),
    "ratings times two": Planted(
        _ratings(2), "ranges", "feedback", "value[rating]", lambda r: r["value"] > 5
    ),
    "ratings times twenty": Planted(
        _ratings(20), "ranges", "feedback", "value[rating]", lambda r: r["value"] > 5
    ),
    "ratings from 0 to 1": Planted(
        _ratings(0.2), "ranges", "feedback", "value[rating]", lambda r: r["value"] < 1
    ),
    "clicks lost": Planted(
        _clicks_lost, "feedback_rate", "feedback", "click", lambda r: r["kind"] == "click"
    ),
    "labels lost": Planted(_feedback_names_no_impression, "label_rate", "feedback", "click"),
    "users hashed anew": Planted(
        _users_hashed_anew, "new_ids", "impressions", "user_id", lambda r: r["user_id"].startswith("h")
    ),
    "price in major units": Planted(
        _price_in_major_units, "drift", "items", "price", lambda r: r["price"] < 500
    ),
    "everybody on a tv": Planted(
        _everybody_on_a_tv, "drift", "impressions", "context_device", lambda r: r["context_device"] == "tv"
    ),
    "a bot below the cap": Planted(
        _bot(1_900), "bots", "impressions", "user_id", lambda r: r["user_id"] == "bot"
    ),
    "a clock eight hours ahead": Planted(_clock(8), "clock", "impressions", "shown_at"),
    "a clock five hours behind": Planted(_clock(-5), "clock", "impressions", "shown_at"),
    "half a day filed too late": Planted(
        _clock(-12), "misfiled", "impressions", None, lambda r: r["shown_at"].startswith("2026-01-29")
    ),
    "nulls flood a column": Planted(
        _nulls_flood, "nulls", "impressions", "context_device", lambda r: r["context_device"] is None
    ),
    "a context column gone": Planted(_context_gone, "nulls", "impressions", "context_device"),
    "propensities in percent": Planted(
        _propensities_in_percent,
        "ranges",
        "impressions",
        "propensity|max",
        lambda r: "propensity" in r["quarantine_reason"],
    ),
    "feedback stops at noon": Planted(_feedback_stops_at_noon, "freshness", "feedback", "received_at"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_corruption_stops_the_night_and_names_rows(shop, name):
    planted = PLANTED[name]
    planted.plant(shop)
    message, report = shop.run()
    found = [
        f
        for f in report["findings"]
        if (f["code"], f["table"], f["column"], f["severity"])
        == (planted.code, planted.table, planted.column, "error")
    ]
    said = [(f["code"], f["severity"], f["table"], f["column"]) for f in report["findings"]]
    print(name, said)
    assert len(found) == 1, said
    assert (found[0]["rows"] > 0) == planted.counted
    assert found[0]["examples"]
    for row in found[0]["examples"]:
        assert (shop.log.root / row["file"]).is_file(), row
        assert planted.row(row), row
    assert f"validation-{LAST}.md" in message
    assert report["stops"]


def test_every_check_has_a_planted_corruption():
    from features.validation.checks import CHECKS

    assert {p.code for p in PLANTED.values()} | {"empty"} == set(CHECKS)


def test_a_day_with_nothing_usable_cannot_be_accepted(shop):
    _yesterdays_files(shop)
    night = Night(config=shop.config, log=shop.log, runs=shop.runs, date=LAST)
    night.ingest.accepted.accept(LAST, ["misfiled"], LAST)
    message, report = shop.run()
    assert [f["code"] for f in report["findings"] if not f["accepted"]] == ["empty"]
    assert "--accept-findings" not in message


WARNED = {
    "a bot that the cap has stopped": (_bot(CAP + 400), "bots", None, "warning"),
    "one hour missing": (
        lambda s: s.change("impressions", lambda f: f.filter(_hour() != 20)),
        "hours",
        "shown_at",
        "warning",
    ),
}


@pytest.mark.parametrize("name", WARNED)
def test_what_is_odd_but_does_no_harm_is_a_warning(shop, name):
    plant, code, column, severity = WARNED[name]
    plant(shop)
    found = [f for f in shop.check().findings if (f.code, f.column) == (code, column)]
    assert [f.severity for f in found] == [severity]
    assert found[0].examples
