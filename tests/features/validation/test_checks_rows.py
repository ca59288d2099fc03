"""A copied day is found, and customers who buy the same again are not taken for one; days without times."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from features.validation.checks_rows import check_copied_day
from features.validation.checks_volume import check_clock, check_hours
from features.validation.measure import profile_day
from features.validation.reference import compare
from features.validation.tables import DayTables
from recsys.log import period_end

DAYS = [date(2026, 1, 1) + timedelta(n) for n in range(8)]
USERS, ITEMS, LIST = 120, 60, 5


def baskets(again: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Give each day's lists [users, LIST]: so much of it is what the user had the day before."""
    days = [np.array([rng.choice(ITEMS, LIST, replace=False) for _ in range(USERS)])]
    for _ in DAYS[1:]:
        fresh = np.array([rng.choice(ITEMS, LIST, replace=False) for _ in range(USERS)])
        days.append(np.where(rng.random((USERS, LIST)) < again, days[-1], fresh))
    return days


def profile(day, lists, seconds, zone="UTC", drawn=0):
    """Profile a day of lists, each shown at its user's second of the day; some negatives are drawn."""
    start = period_end(day - timedelta(1), zone)
    shown = {
        "user_id": np.repeat([f"u{n}" for n in range(USERS)], LIST),
        "item_id": [f"i{n}" for n in lists.ravel()],
        "position": [1] * lists.size,
        "sampled": [False] * lists.size,
        "shown_at": [start + timedelta(seconds=int(s)) for s in np.repeat(seconds, LIST)],
    }
    frame = pl.DataFrame(shown)
    other = frame.with_columns(
        item_id=pl.format("d{}-{}", pl.int_range(pl.len()), pl.lit(str(day))), sampled=True
    )
    frame = pl.concat([frame, *[other] * drawn]).with_columns(
        request_id=pl.col("user_id"),
        hour=pl.col("shown_at").dt.convert_time_zone(zone).dt.hour(),
        new_user_id=False,
        new_item_id=False,
    )
    nothing = frame.clear().select("user_id", "item_id", kind="user_id", value=pl.lit(0.0))
    good = {"impressions": frame, "feedback": nothing}
    tables = DayTables(
        day=day, days=(day,), as_of=start, good=good, quarantine={t: pl.DataFrame() for t in good}
    )
    return profile_day(tables, {}, (), zone)


def found(profiles, config):
    """Check every day against those before."""
    return [
        (finding.severity, day.day)
        for n, day in enumerate(profiles)
        for finding in check_copied_day(compare(day, profiles[:n], config))
    ]


def seconds(kind, rng):
    return {
        "date": np.zeros(USERS),
        "delivery": np.full(USERS, 7 * 3600),
        "hour": rng.integers(8, 20, USERS) * 3600,
        "three loads": rng.integers(0, 3, USERS) * 28_800,
        "second": rng.integers(0, 86_400, USERS),
    }[kind]


@pytest.mark.parametrize("kind", ["date", "delivery", "hour", "three loads"])
@pytest.mark.parametrize("again", [1 / 3, 0.8])
def test_customers_who_buy_the_same_again_are_no_copied_day(make_config, kind, again):
    rng = np.random.default_rng(1)
    days = [profile(d, b, seconds(kind, rng)) for d, b in zip(DAYS, baskets(again, rng), strict=True)]
    assert found(days, make_config()) == []


def test_the_same_deliveries_every_day_are_no_copies(make_config):
    rng = np.random.default_rng(1)
    days = [profile(d, b, seconds("delivery", rng)) for d, b in zip(DAYS, baskets(0.99, rng), strict=True)]
    assert found(days, make_config()) == []


@pytest.mark.parametrize("drawn", [0, 4])
@pytest.mark.parametrize("kind", ["date", "hour", "second"])
def test_a_copied_day_is_found_whatever_was_drawn_for_it(make_config, kind, drawn):
    rng = np.random.default_rng(1)
    lists = baskets(1 / 3, rng)
    times = [seconds(kind, rng) for _ in DAYS]
    lists[6], times[6] = lists[5], times[5]
    days = [profile(d, b, t, drawn=drawn) for d, b, t in zip(DAYS, lists, times, strict=True)]
    assert found(days, make_config()) == [("error", DAYS[6])]


def test_with_times_half_a_copied_day_is_found(make_config):
    rng = np.random.default_rng(1)
    lists, times = baskets(1 / 3, rng), [seconds("second", rng) for _ in DAYS]
    half = np.arange(USERS) < USERS // 2
    lists[6] = np.where(half[:, None], lists[5], lists[6])
    times[6] = np.where(half, times[5], times[6])
    days = [profile(d, b, t) for d, b, t in zip(DAYS, lists, times, strict=True)]
    assert found(days, make_config()) == [("error", DAYS[6])]


@pytest.mark.parametrize(("kind", "alarms"), [("date", 0), ("second", 1)])
def test_a_day_whose_midnight_does_not_exist_has_lost_no_hour(make_config, kind, alarms):
    rng = np.random.default_rng(1)
    config = make_config(timezone="Africa/Cairo")
    days = [date(2026, 4, 24) - timedelta(n) for n in range(7, -1, -1)]
    profiles = []
    for day, lists in zip(days, baskets(0, rng), strict=True):
        times = seconds(kind, rng) / 24  # within the first hour
        profiles.append(profile(day, lists, times, "Africa/Cairo"))
    assert (profiles[0].hours.index(USERS), profiles[-1].hours.index(USERS)) == (0, 1)
    compared = compare(profiles[-1], profiles[:-1], config)
    hours = [*check_hours(compared)]
    assert len(hours) == alarms
    assert all(f"({USERS:,} usual users)" in finding.line for finding in hours)
    assert len([*check_clock(compared)]) == alarms
