"""Ids made of several parts: different parts, different ids; feedback finds its own."""

import itertools
from datetime import date, timedelta

import numpy as np
import polars as pl

from features.sources.mapped.keys import Requests

PARTS = ["a", "-", "a-", "-a", "a-a", "~", "a~0", "~1", "~@a", "~#a", ":1", "a:1", "1", "%2D"]
AT = "2026-01-05 10:00:00"


def raw(bench, rows, columns):
    """Write rows as Parquet: parts may hold any character."""
    bench.src.mkdir()
    pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row").write_parquet(
        bench.src / "x.parquet"
    )


def distinct(frame, column):
    assert frame[column].n_unique() == frame.height, frame.filter(pl.col(column).is_duplicated()).sort(column)


def test_users_and_items_of_any_form(bench, events):
    pairs = list(itertools.product(PARTS, PARTS))
    rows = [(u, i, kind, AT) for u, i in pairs for kind in ("view", "click", "order")]
    raw(bench, rows, ["user_id", "product_id", "event", "at"])
    log = bench.convert(events(), form="parquet")
    shown, done = bench.read(log, "impressions"), bench.read(log, "feedback")
    assert (shown.height, done.height) == (len(pairs), 2 * len(pairs))
    distinct(shown, "request_id")
    distinct(shown, "impression_id")
    distinct(done, "feedback_id")


def test_derived_and_drawn_impressions_of_any_form(bench, events):
    rows = [(u, i, "click", AT) for n, u in enumerate(PARTS) for i in PARTS[n % 2 :: 2]]
    raw(bench, rows, ["user_id", "product_id", "event", "at"])
    log = bench.convert(events(kinds={"click": "click"}), form="parquet")
    shown = bench.read(log, "impressions")
    assert shown["sampled"].any()
    distinct(shown, "impression_id")
    distinct(shown, "request_id")


def test_requests_of_any_form_and_of_several_users_and_days(bench, events):
    days = ["2026-01-05", "2026-01-06"]
    parts = [*PARTS, "a~@a~@2026-01-06"]
    shown_to = list(itertools.product(parts, ["a", "~@a", "-"], days))
    rows = [
        (user, item, kind, f"{day} 10:{minute}:0{n}", request, "1")
        for minute, (request, user, day) in zip(itertools.cycle(range(10, 60)), shown_to, strict=False)
        for item in ("x", "y", "x~#y")
        for n, kind in enumerate(("view", "click"))
    ]
    raw(bench, rows, ["user_id", "product_id", "event", "at", "req", "rank"])
    log = bench.convert(events(request="req", position="rank"), form="parquet")
    shown = bench.read(log, "impressions")
    assert shown.height == 3 * len(shown_to), "one place of a page has several items: none is lost"
    distinct(shown, "impression_id")
    assert shown["request_id"].n_unique() == len(shown_to)
    done = bench.read(log, "feedback").join(shown, on="impression_id", suffix="_shown")
    assert done.height == shown.height, "an id of one impression needs no second key"
    for own in ("user_id", "item_id", "day"):
        assert (done[own] == done[f"{own}_shown"]).all(), own


def test_a_request_of_one_user_and_day_keeps_its_id(bench, events):
    rows = [("u", i, "view", f"2026-01-0{d} 10:00:00", f"r-{d}") for d in (5, 6) for i in "ab"]
    raw(bench, rows, ["user_id", "product_id", "event", "at", "req"])
    shown = bench.read(bench.convert(events(request="req"), form="parquet"), "impressions")
    assert shown["impression_id"].to_list() == ["r-5:1", "r-5:2", "r-6:1", "r-6:2"]


def test_a_page_number_that_starts_again_finds_its_own_list(bench, events):
    """A click belongs to the latest list of that number, also where the first is within reach."""
    rows = [
        ("u", "a", kind, f"2026-01-0{day} 10:0{n}:00", "1")
        for day in (5, 6, 7)
        for n, kind in enumerate(("view", "click"))
    ]
    raw(bench, rows, ["user_id", "product_id", "event", "at", "page"])
    log = bench.convert({**events(request="page"), "match": {"window": "1m"}}, form="parquet")
    shown = bench.read(log, "impressions")
    done = bench.read(log, "feedback").join(shown, on="impression_id", suffix="_shown")
    assert (done["day"] == done["day_shown"]).all()
    assert done.height == 3


def test_a_request_that_looks_like_a_made_one(bench, events):
    rows = [("u", "a", "view", f"2026-01-0{day} 10:00:00", "r") for day in (5, 6)]
    rows.append(("u", "a", "view", "2026-01-06 11:00:00", "r~@u~@2026-01-06"))
    raw(bench, rows, ["user_id", "product_id", "event", "at", "req"])
    shown = bench.read(bench.convert(events(request="req"), form="parquet"), "impressions")
    assert shown.height == 3
    distinct(shown, "request_id")
    distinct(shown, "impression_id")


def test_every_earlier_day_is_remembered():
    """Against a set: ids of 40 days, some of which come again days later."""
    draw, seen, requests = np.random.default_rng(3), set(), Requests()
    for n in range(40):
        told = [f"r{k}" for k in draw.integers(n * 50, n * 50 + 400, size=int(draw.integers(1, 90)))]
        rows = pl.DataFrame({"request": [*told, None], "user_id": "u"})
        day = date(2026, 1, 1) + timedelta(days=n)
        made = requests.ids(rows, day)["request_id"].to_list()
        assert made == [*(f"{r}~@u~@{day}" if r in seen else r for r in told), None]
        seen |= set(told)
