"""The figures of a profile, on a log whose figures are known."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from features.profile.measure import measure_log
from recsys.errors import DataError
from recsys.log import InteractionLog


def test_counts_rates_and_times(shop):
    shop.write()
    p = shop.profile()
    assert (len(p.days), p.impressions, p.sampled, p.users, p.items) == (6, 6 * 480, 0, 40, 30)
    assert p.first_at == datetime(2026, 1, 5, tzinfo=UTC)
    assert p.last_at.date() == date(2026, 1, 10)
    kinds = {k.kind: k for k in p.kinds}
    assert kinds["click"].rows == 6 * 160
    assert kinds["click"].per_impression == pytest.approx(1 / 3)
    assert kinds["rating"].values == {"1": 96, "2": 96, "3": 96, "4": 96, "5": 96}
    assert (kinds["rating"].low, kinds["rating"].high, kinds["rating"].mean) == (1.0, 5.0, 3.0)
    assert p.organic == p.not_found == p.before_impression == 0
    assert p.propensity == 1.0
    assert p.positions == {"1": 1440, "2": 1440}
    assert (p.responses, p.per_response) == (1440, 2.0)
    assert sum(p.hours) == p.impressions + p.feedback
    assert p.utc_offsets == (0, 0)
    assert p.missing_days == ()
    assert p.unlisted_items == p.unlisted_users == 0


def test_sparsity_is_of_distinct_pairs(shop):
    shop.write()
    shown = pl.concat([shop.log.read("impressions", day) for day in shop.log.days("impressions")])
    pairs = shown.select("user_id", "item_id").unique().height
    assert shop.profile().density == pytest.approx(pairs / (40 * 30), rel=0.05)


def test_feedback_that_names_another_users_impression_is_not_found(shop):
    """All impressions share one id; what u0 did is filed under a user to whom nothing was shown."""
    one = pl.lit("shared").alias("impression_id")
    nobody = pl.col("user_id").replace("u0", "nobody")
    shop.write(impressions=lambda f: f.with_columns(one), feedback=lambda f: f.with_columns(one, nobody))
    done = pl.concat([shop.log.read("feedback", day) for day in shop.log.days("feedback")])
    theirs = (done["user_id"] == "nobody").mean()
    assert theirs > 0
    assert shop.profile().not_found == pytest.approx(theirs)


def test_distributions_and_new_shares(shop):
    shop.write()
    p = shop.profile()
    assert p.per_user.entities == 40
    assert p.per_user.mean * 40 == p.impressions + p.feedback
    assert p.per_user.quantiles["100%"] >= p.per_user.quantiles["50%"] >= p.per_user.quantiles["0%"] > 0
    assert [day.new_users for day in p.days] == [1.0, 0, 0, 0, 0, 0]


def test_drawn_negatives_are_counted_apart(shop):
    drawn = pl.col("position") == 2
    shop.write(
        impressions=lambda f: f.with_columns(sampled=drawn, propensity=None).cast({"propensity": pl.Float64})
    )
    p = shop.profile()
    assert (p.impressions, p.sampled) == (1440, 1440)
    assert p.positions == {"1": 1440}
    assert p.propensity == 0


def test_partitions_of_another_time_zone(shop):
    for n in range(3):
        day = date(2026, 1, 5) + timedelta(days=n)
        start = datetime(2026, 1, 4, 16, tzinfo=UTC) + timedelta(days=n)
        shown, _ = shop._day(n)
        at = pl.lit(start) + pl.duration(minutes=3 * pl.int_range(pl.len()))
        shop.log.write("impressions", day, shown.with_columns(shown_at=at.cast(pl.Datetime("ms", "UTC"))))
    assert shop.profile().utc_offsets == (8, 8)


def test_columns_that_are_always_or_sometimes_missing(shop):
    shop.write()
    tables = {t.name: t for t in shop.profile().tables}
    missing = {c.name: c.missing for c in tables["items"].columns}
    assert missing["title"] == 1
    assert missing["category"] == 0
    kinds = {c.name: c.missing for c in tables["feedback"].columns}
    assert kinds["value"] == pytest.approx(2 / 3)
    assert tables["impressions"].repeated_keys == 0
    assert tables["impressions"].megabytes > 0


def test_a_column_that_the_files_of_some_days_lack_is_missing_there(shop):
    shop.write()
    for day in shop.log.days("impressions")[:3]:
        shown = shop.log.read("impressions", day)
        shop.log.write("impressions", day, shown.with_columns(context_app=pl.lit("web")))
    columns = next(t for t in shop.profile().tables if t.name == "impressions").columns
    assert {c.name: c.missing for c in columns}["context_app"] == 0.5


def test_a_log_without_impressions_or_with_a_broken_file(shop, tmp_path):
    with pytest.raises(DataError, match="no impressions in the log"):
        measure_log(InteractionLog(tmp_path / "nothing"), lambda *_: None)
    shop.write(days=2)
    broken = shop.log.files("feedback", date(2026, 1, 6))[0]
    broken.write_bytes(b"not parquet")
    with pytest.raises(DataError, match="2026-01-06 cannot be read"):
        shop.profile()
