"""A conversion stops before it is published where its rows do not fit together, and never at a clean log."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from features.profile.profile_log import profile_log
from features.sources.mapped import convert
from features.sources.mapped.mapping import parse_mapping
from features.sources.mapped.suggest import suggest_config
from features.sources.summary_table import print_summary
from recsys.config import parse_config
from recsys.errors import ConfigError, DataError

START = datetime(2026, 1, 5, 8, tzinfo=UTC)
KINDS = {"view": "impression", "click": "click", "order": "purchase"}
CONFIG = {"task": [{"name": "click", "feedback": "click", "head": "binary", "window": "1d"}]}


def rows(n: int = 1_200, users: int = 40, items: int = 30, days: int = 5, seed: int = 1) -> pl.DataFrame:
    """Make lists of four items, one in three clicked, evenly over some days."""
    draw = np.random.default_rng(seed)
    lists = np.arange(n) // 4
    at = [START + timedelta(days=days * float(k) / n) for k in range(n)]
    shown = pl.DataFrame(
        {
            "user_id": [f"u{k}" for k in (lists * 7) % users],
            "product_id": [f"i{k}" for k in draw.integers(items, size=n)],
            "event": "view",
            "at": pl.Series(at).dt.cast_time_unit("ms"),
            "req": [f"r{k}" for k in lists],
        }
    ).unique(["user_id", "product_id", "req"], maintain_order=True)
    clicked = shown.filter(pl.int_range(pl.len()) % 3 == 0)
    after = pl.col("at") + timedelta(seconds=9)
    return pl.concat([shown, clicked.with_columns(after, event=pl.lit("click"))])


def put(bench, frame: pl.DataFrame, name: str = "events.parquet") -> None:
    bench.src.mkdir(exist_ok=True)
    frame.write_parquet(bench.src / name)


@pytest.fixture
def own(events) -> Callable[..., dict]:
    """Give a maker of mappings that name requests; arguments are further sections."""
    return lambda **more: {**events(files="events.parquet", request="req", kinds=KINDS), **more}


def stopped(bench, mapping) -> str:
    with pytest.raises(DataError) as caught:
        bench.convert(mapping, form="parquet")
    assert not list(bench.root.glob("log-*")), "nothing is published"
    return str(caught.value)


def shared_requests(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(req=pl.format("{}", pl.int_range(pl.len()) % 3))


def one_old_row(frame: pl.DataFrame) -> pl.DataFrame:
    old = pl.when(pl.int_range(pl.len()) == 0).then(pl.datetime(2000, 1, 1, time_zone="UTC"))
    return frame.with_columns(at=old.otherwise("at"))


def one_busy_user(frame: pl.DataFrame) -> pl.DataFrame:
    many = pl.col("req").str.slice(1).cast(pl.Int32, strict=False) % 5 < 3
    return frame.with_columns(user_id=pl.when(many).then(pl.lit("0")).otherwise("user_id"))


def half_in_capitals(frame: pl.DataFrame) -> pl.DataFrame:
    half = pl.int_range(pl.len()) % 2 == 0
    return frame.with_columns(
        user_id=pl.when(half).then(pl.col("user_id").str.to_uppercase()).otherwise("user_id"), req=None
    )


STOPS = {
    "ids_spelt_twice": (
        half_in_capitals,
        ["40 of 40 (100.0%) of the users of events", "'u13' (", "an id in one way"],
    ),
    "request_id_not_unique": (shared_requests, ["3 of 3 (100.0%) of the requests", "'0' of 'u", "`request`"]),
    "days_apart": (one_old_row, ["1 of 1,5", "those of 2000-01-01", "first_day = 2026-01-05"]),
    "one_user": (one_busy_user, ["user '0' has 60%"]),
}


@pytest.mark.parametrize("code", STOPS)
def test_stops_with_figures_an_example_and_the_remedy(bench, own, code):
    change, parts = STOPS[code]
    put(bench, change(rows()))
    said = stopped(bench, own())
    for part in (f"{code}: ", f'accept = ["{code}"]', *parts):
        assert part in said, said


@pytest.mark.parametrize("code", STOPS)
def test_a_finding_that_is_accepted_is_recorded_and_profiled(bench, own, code, capsys):
    put(bench, STOPS[code][0](rows()))
    log = bench.convert(own(checks={"accept": [code]}), form="parquet")
    found = json.loads((log.root / "conversion.parquet.json").read_text())["findings"]
    assert [(f["code"], f["severity"], f["accepted"]) for f in found] == [(code, "error", True)]
    print_summary(bench.summary, log.root)
    assert f"accepted [{code}]" in " ".join(capsys.readouterr().out.split())
    profile = profile_log(log.root, parse_config(CONFIG, {}), "CONFIG")
    assert [(f.code, f.accepted) for f in profile.findings if f.code == code] == [(code, True)]


def test_accepting_one_finding_is_not_accepting_another(bench, own):
    put(bench, one_old_row(shared_requests(rows())))
    said = stopped(bench, own(checks={"accept": ["days_apart"]}))
    assert "request_id_not_unique" in said
    assert "days_apart" not in said
    with pytest.raises(ConfigError, match="one_users"):
        bench.convert(own(checks={"accept": ["one_users"]}), form="parquet")


@pytest.mark.parametrize("table", ["items", "users"])
@pytest.mark.parametrize(("known", "severity"), [(1.0, None), (0.9, "warning"), (0.4, "error")])
def test_how_many_ids_of_events_the_file_has(bench, own, table, known, severity):
    frame, key = rows(), "product_id" if table == "items" else "user_id"
    ids = frame[key].unique().sort()
    spelt = (
        pl.when(pl.int_range(pl.len()) < known * pl.len())
        .then("id")
        .otherwise(pl.col("id").str.to_uppercase())
    )
    put(bench, frame)
    put(bench, ids.to_frame("id").select(spelt), "side.parquet")
    mapping = own(**{table: {"files": "side.parquet", "id": "id"}})
    code = f"{table}_not_in_file"
    if severity == "error":
        said = stopped(bench, mapping)
        assert f"{code}: " in said
        assert "' of an event may be '" in said
        return
    bench.convert(mapping, form="parquet")
    assert [(f.code, f.severity) for f in bench.summary.findings] == ([(code, severity)] if severity else [])


def test_ids_of_a_file_of_items_that_are_spelt_twice(bench, own):
    put(bench, rows())
    ids = rows()["product_id"].unique().sort()
    put(bench, pl.concat([ids, ids.str.to_uppercase().head(1)]).to_frame("id"), "items.parquet")
    mapping = own(items={"files": "items.parquet", "id": "id"})
    assert "1 of 30 (3.3%) of the items of the file are" in stopped(bench, mapping)


def test_a_finding_of_events_and_file_is_accepted_by_one_name(bench, own):
    frame = half_in_capitals(rows())
    put(bench, frame)
    put(bench, frame.select(id="user_id").unique(), "users.parquet")
    said = stopped(bench, own(users={"files": "users.parquet", "id": "id"}))
    assert "users of the file" in said
    assert 'accept = ["ids_spelt_twice"]' in said


def test_sessions_are_in_no_file_of_users(bench, own):
    frame = rows().with_columns(sid=pl.format("s-{}", "user_id"))
    anonymous = pl.int_range(pl.len()) % 4 > 0
    put(bench, frame.with_columns(user_id=pl.when(~anonymous).then("user_id")))
    put(bench, frame.select(id="user_id").unique(), "users.parquet")
    mapping = own(users={"files": "users.parquet", "id": "id"})
    mapping["events"] |= {"session": "sid", "request": None}
    bench.convert(mapping, form="parquet")
    assert bench.summary.findings == []


def test_a_small_log_is_warned_of_and_published(bench, own, capsys):
    put(bench, shared_requests(rows(n=40)))
    put(bench, pl.DataFrame({"id": ["I1", "I2"]}), "items.parquet")
    log = bench.convert(own(items={"files": "items.parquet", "id": "id"}), form="parquet")
    found = {f.code: f.severity for f in bench.summary.findings}
    assert found == {"request_id_not_unique": "warning", "items_not_in_file": "warning"}
    print_summary(bench.summary, log.root)
    assert "warning [items_not_in_file]" in capsys.readouterr().out


def test_ids_that_a_spreadsheet_wrote(bench, own):
    put(bench, rows(n=40).with_columns(product_id=pl.lit("1.23457E+15")))
    bench.convert(own(), form="parquet")
    assert [(f.code, f.severity) for f in bench.summary.findings] == [("spreadsheet_ids", "warning")]
    assert "'1.23457E+15'" in bench.summary.findings[0].what


def test_an_orders_number_is_no_events_id(bench, own):
    bought = rows(n=40).with_columns(event=pl.lit("order"), order=pl.lit("o-1"))
    put(bench, bought)
    mapping = own()
    mapping["events"] |= {"event": "order", "request": None, "kinds": {"order": "purchase"}}
    bench.convert(mapping, form="parquet")
    (found,) = bench.summary.findings
    assert found.code == "event_id_not_unique"
    assert found.severity == "warning", "a small log"
    assert "'o-1' of 'u" in found.what
    counts = bench.summary.accounting["events"]
    assert counts.adds_up
    assert counts.repeats["the event id of another user, item or kind"] > 30


def test_an_orders_number_in_a_log_of_its_size_stops(bench, own):
    put(bench, rows().with_columns(order=pl.format("o-{}", pl.int_range(pl.len()) // 3)))
    mapping = own()
    mapping["events"] |= {"event": "order", "request": None, "kinds": {"view": "click", "click": "like"}}
    said = stopped(bench, mapping)
    assert "event_id_not_unique: " in said
    assert "`event` out" in said


def test_an_impressions_number_that_starts_again(bench, own):
    put(bench, rows().with_columns(shown=pl.format("{}", pl.int_range(pl.len()) % 300)))
    mapping = own()
    mapping["events"] |= {"impression": "shown", "request": None}
    said = stopped(bench, mapping)
    assert "impression_id_not_unique: 300 of 300 (100.0%)" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            pl.col("product_id").str.replace("i", "sku-"),
            "30 of 30 items of feedback were shown nothing: 'sku-1' of an",
        ),
        (pl.col("at") + timedelta(days=40), "feedback of 2026-02-14"),
        (pl.col("at") - timedelta(days=40), "feedback of 2025-11-26"),
    ],
)
def test_feedback_that_finds_no_impression(bench, own, change, said):
    frame = rows()
    put(
        bench,
        frame.with_columns(
            pl.when(pl.col("event") == "click").then(change).otherwise(pl.col(change.meta.output_name()))
        ),
    )
    mapping = own()
    mapping["events"] |= {"request": None}
    told = stopped(bench, mapping)
    assert "organic_feedback: " in told
    assert said in told
    assert "[match] window" in told


def test_feedback_that_finds_no_impression_by_chance(bench, own):
    """Items of the same catalogue and days, and none of them shown to the user before: that may be so."""
    frame, draw = rows(users=300, items=2_000), np.random.default_rng(5)
    items = pl.Series([f"i{k}" for k in draw.integers(2_000, size=frame.height)])
    seen = frame.filter(event="view")["product_id"].unique()
    chosen = pl.when((pl.col("event") == "click") & items.is_in(seen.implode())).then(items)
    put(bench, frame.with_columns(product_id=chosen.otherwise("product_id")))
    mapping = own()
    mapping["events"] |= {"request": None}
    bench.convert({**mapping, "match": {"window": 1}}, form="parquet")
    assert [(f.code, f.severity) for f in bench.summary.findings] == [("organic_feedback", "warning")]


@pytest.mark.parametrize(("share", "severity"), [(1, "error"), (3, "warning"), (99, None)])
def test_clicks_of_another_clock_than_the_lists(bench, own, share, severity):
    """They name the list, so they find it, and become no label."""
    some = (pl.col("event") == "click") & (pl.int_range(pl.len()) % share == 0)
    put(bench, rows().with_columns(at=pl.when(some).then(pl.col("at") - timedelta(hours=1)).otherwise("at")))
    if severity == "error":
        said = stopped(bench, own())
        assert "feedback_before_impression: 3" in said
        assert ":09 and 2026-01-05 " in said
        return
    bench.convert(own(), form="parquet")
    found = {f.code: f.severity for f in bench.summary.findings}
    assert found.get("feedback_before_impression") == severity


def test_contradicting_rows_of_one_id_are_told(bench, own):
    put(bench, rows())
    frame = rows().select(id="product_id").unique().with_columns(name=pl.lit("x"))
    put(bench, pl.concat([frame, frame.head(4).with_columns(name=pl.lit("y"))]), "items.parquet")
    bench.convert(own(items={"files": "items.parquet", "id": "id", "title": "name"}), form="parquet")
    (found,) = bench.summary.findings
    assert (found.code, found.severity) == ("repeated_ids", "warning")
    assert "4 rows of the items file" in found.what


def test_a_log_without_feedback(bench, own):
    put(bench, rows().filter(event="view"))
    log = bench.convert(own(), form="parquet")
    assert [(f.code, f.severity) for f in bench.summary.findings] == [("no_feedback", "warning")]
    assert "no head to write" in suggest_config(log, parse_mapping(own(), "MAP")).text


def test_all_feedback_lost_is_no_log(bench, own):
    late = pl.when(pl.col("event") == "click").then(pl.col("at") - timedelta(hours=1)).otherwise("at")
    put(bench, rows().with_columns(got=late))
    mapping = own()
    mapping["events"] |= {"received": "got", "tolerate": 0.5}
    assert "no feedback is left" in stopped(bench, mapping)


def test_rows_that_break_the_schema_obey_tolerate(bench, own, monkeypatch):
    """No file is known to get so far: every rule is looked at when a row is read."""
    made = convert.make_feedback
    bad = pl.when(pl.int_range(pl.len()) == 0).then(float("inf")).otherwise("value")
    monkeypatch.setattr(convert, "make_feedback", lambda *a: made(*a).with_columns(value=bad))
    put(bench, rows())
    said = stopped(bench, own())
    assert "6 of 1,5" in said
    assert "rows of [events] break a rule: breaks value|inf: 6 rows, such as {" in said
    mapping = own()
    mapping["events"]["tolerate"] = 0.01
    bench.convert(mapping, form="parquet")
    assert bench.summary.accounting["events"].adds_up


def test_feedback_received_years_later(bench, own):
    """No bound of days helps there: they are of when a thing happened."""
    late = pl.when(pl.int_range(pl.len()) == pl.len() - 1).then(pl.col("at") + timedelta(days=9_000))
    put(bench, rows().with_columns(got=late.otherwise("at")))
    mapping = own()
    mapping["events"] |= {"received": "got"}
    said = stopped(bench, mapping)
    assert "days_apart: 1 of " in said
    assert "leave `received` out" in said


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"first_day": "2027-01-01"}, "quarantined: outside first_day to last_day"),
        ({"events": {"kinds": dict.fromkeys(KINDS, "ignore") | {"x": "click"}}}, "ignored: kind 'view'"),
        ({"events": {"kinds": {"x": "impression", "view": "click", "click": "like"}}}, "gives no impression"),
        ({"match": {"opens": ["x"]}, "events": {"kinds": {"x": "x", "view": "v", "click": "c"}}}, "opens"),
    ],
)
def test_a_mapping_that_leaves_nothing_says_what_became_of_the_rows(bench, own, sections, said):
    put(bench, rows(n=40))
    mapping = own()
    mapping["events"] |= sections.get("events", {})
    more = {name: section for name, section in sections.items() if name != "events"}
    assert said in stopped(bench, {**mapping, **more})
