"""Slips in [events.kinds] are told: a word near a usual one, a value that no row has."""

import pytest

from features.sources.mapped.near import near
from recsys.errors import ConfigError

ROWS = "user_id,product_id,event,at\n" + "\n".join(
    f"u{n},a,{kind},2026-01-05 10:00:0{n}" for n, kind in enumerate(["view", "seen", "click", "orders"])
)
KINDS = {"view": "impression", "seen": "impression", "click": "click", "orders": "order"}


def found(bench, events, **kinds):
    bench.csv("e.csv", ROWS)
    bench.convert(events(kinds={**KINDS, **kinds}))
    findings = {f.code: f for f in bench.summary.findings}
    assert set(findings) <= {"near_kinds", "organic_feedback"}
    return findings


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("clik", "click", True), ("clcik", "click", True), ("clicks", "click", True), ("view", "veiw", True),
        ("prchse", "purchase", False), ("impresion", "impression", True), ("expression", "impression", True),
        ("unlike", "like", False), ("unsubscribe", "subscribe", False), ("buy", "by", False),
        ("click", "click", False), ("follow", "unfollow", False),
    ],
)  # fmt: skip
def test_words_a_slip_apart(one, other, expected):
    assert near(one, other) is expected
    assert near(other, one) is expected


def test_a_mapping_without_slips_has_no_findings(bench, events):
    assert "near_kinds" not in found(bench, events)


def test_a_kind_near_a_usual_one_is_told(bench, events):
    slip = found(bench, events, click="clcik")["near_kinds"]
    assert slip.severity == "warning"
    assert "'clcik' is a kind of its own (1 rows), and written nearly like 'click'" in slip.what
    assert "write 'click' in [events]" in slip.remedy


def test_a_kind_near_its_own_value_is_told(bench, events):
    bench.csv("e.csv", ROWS.replace("orders", "wishlist"))
    bench.convert(events(kinds={"view": "impression", "seen": "impression", "click": "click",
                                "wishlist": "wshlist"}))  # fmt: skip
    assert "nearly like 'wishlist'" in next(f.what for f in bench.summary.findings if f.code == "near_kinds")


def unused(bench):
    return [note for note in bench.summary.notes if "no row is" in note]


def test_a_value_that_no_row_has_is_told(bench, events):
    found(bench, events, veiw="impression", refund="refund")
    assert unused(bench) == ["[events.kinds]: no row is 'veiw' (rows are 'view'), 'refund'"]
    found(bench, events)
    assert not unused(bench)


def test_a_value_that_is_ignored_is_there(bench, events):
    found(bench, events, seen="ignore")
    assert not unused(bench)
    found(bench, events, seen="skim", refund="refund")
    assert unused(bench) == ["[events.kinds]: no row is 'refund'"]


@pytest.mark.parametrize("kind", ["impressions", "impresion", "ignored"])
def test_a_slip_of_what_is_no_kind_is_refused(bench, events, kind):
    with pytest.raises(
        ConfigError, match=f"view = '{kind}' would make a feedback kind of that name; did you"
    ):
        found(bench, events, view=kind)
