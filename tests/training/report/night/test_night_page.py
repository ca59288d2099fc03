"""The page of a night: whole, small, without network, and saying what the record says."""

import re
from datetime import date, timedelta
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from recsys.records import Check, DayData, Lineage, NightRecord, PowerAt, Verdict
from training.report.night.night_page import DataHealth, NightPage, render
from training.report.night.night_plots import day_lines, verdict_strip

LAST = date(2026, 1, 30)
VOID = {"meta", "br"}
NIGHTS = [LAST - timedelta(days=n) for n in range(27, -1, -1)]


class Tags(HTMLParser):
    """Checks that tags close in order; keeps attributes and visible text."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.said = [], [], []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.said.append(data)


def record(night, verdict=Verdict.PROMOTE, click=0.55):
    return NightRecord(
        version=f"{night}-x", night=night, verdict=verdict, champion=f"{night - timedelta(days=1)}-x",
        evaluated=f"{night}-e", cold_since=NIGHTS[0], start="warm", trained_until={}, lags={},
        checks=(
            Check(name="click AUC inside lists", outcome=verdict, detail="0.55 <b>", numbers={}),
            Check(name="click ECE", outcome=Verdict.PROMOTE, detail="0.02", numbers={}),
        ),
        beside={"click AUC inside lists": {"model": click, "linear": 0.5}, "items": {"hidden": 2.0}},
        list_value=0.3, findings={}, accepted=(), seconds=9.0,
        power=(
            PowerAt(users=412, stated_rate=0.91, deciding=("click",), detectable={"click": 0.123}),
            PowerAt(users=20_000, stated_rate=0.99, deciding=("click",), detectable={}),
        ),
        lineage=Lineage(
            code="1", python="3.11", libraries={"polars": "2"}, host="h", seed=0,
            days={str(night): DayData(snapshot="abc", rows={"impressions": 1_234, "feedback": 56})},
            seconds={"train": 8.0, "gate": 0.01},
        ),
    )  # fmt: skip


@pytest.fixture
def page():
    health = DataHealth(
        days=tuple(NIGHTS),
        rows={"impressions": [1_000.0 + n for n in range(28)], "feedback": [10.0] * 28},
        bad={"impressions": [0.0] * 27 + [0.2]},
        rates={"click": [0.1] * 27 + [None]},
        new={"new users": [None] + [0.1] * 27},
        drift={f"impressions.context_{n}": [None] * 8 + [0.01 * n] * 20 for n in range(6)},
        findings=("2026-01-30 warning [volume] impressions: rows is 3, expected 5 (3 rows)",),
    )
    earlier = [record(night, Verdict.HOLD if night.day == 20 else Verdict.PROMOTE) for night in NIGHTS]
    return NightPage(
        night=LAST, verdict=Verdict.HOLD, live="2026-01-29-x", record=earlier[-1],
        reasons=("click: 0.1 < 0.2 & <script>alert(1)</script>",), earlier=tuple(earlier), data=health,
    )  # fmt: skip


def test_the_page_is_whole_small_and_needs_no_network(page):
    html = render(page)
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    assert (tags.links, "url(" in html, "@import" in html) == ([], False, False)
    assert len(html.encode()) < 200_000
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) == 9
    for drawing in drawings:
        ET.fromstring(drawing)


def test_the_page_says_how_the_night_ended_and_why(page):
    html = render(page)
    tags = Tags()
    tags.feed(html)
    said = " ".join(" ".join(tags.said).split())
    assert "The night's version was held; 2026-01-29-x is live." in said
    assert "click: 0.1 < 0.2 & <script>alert(1)</script>" in said, "as text"
    assert "<script>" not in html
    assert "1,234" in said
    assert "train 8.0" in said
    assert "412 (this night) 91 % click 12 %" in said
    assert "20,000 99 % none" in said
    assert "gate 0.0" not in said, "stages that took nothing are left out"
    assert "[volume] impressions: rows is 3" in said
    assert '<td class="outcome-promote">PROMOTE</td>' in html


def test_quality_has_the_model_and_simple_systems_of_each_night(page):
    value = "what the fused order gains over a random one"
    assert [*page.quality] == ["click AUC inside lists", value], "counts are no figure of the model"
    nights, lines = page.quality["click AUC inside lists"]
    assert (nights, [*lines], lines["model"]) == (NIGHTS, ["model", "linear"], [0.55] * 28)
    assert [verdict for _, verdict, _ in page.strip].count("HOLD") == 1


def test_a_day_without_a_value_is_a_gap_and_not_zero():
    drawn = ET.fromstring(day_lines("x", NIGHTS[:5], {"a": [1.0, 2.0, None, float("nan"), 3.0]}))
    paths = [shape.attrib["d"] for shape in drawn.iter("path")]
    assert [len(path.split("L")) for path in paths] == [2, 1]
    assert len([*drawn.iter("circle")]) == 3
    assert day_lines("x", NIGHTS, {"a": [None] * 28}) == ""


def test_marks_lie_inside_the_frame_and_say_their_value():
    for values in ([5.0], [0.0, 0.0], [-2.0, 3.0], [1e-9, 2e-9], [1e6, 3e6]):
        drawn = ET.fromstring(day_lines("x", NIGHTS[: len(values)], {"a": values}, zero=False))
        frame = {k: float(v) for k, v in next(drawn.iter("rect")).attrib.items() if k != "class"}
        for mark in drawn.iter("circle"):
            assert frame["x"] <= float(mark.attrib["cx"]) <= frame["x"] + frame["width"]
            assert frame["y"] <= float(mark.attrib["cy"]) <= frame["y"] + frame["height"]
            assert mark[0].text.startswith("a, 2026-01-0")


@pytest.mark.parametrize(("values", "lowest"), [([0.02, 0.6], 0.0), ([0.0, 0.0], 0.0), ([-0.1, 0.6], -0.184)])
def test_no_axis_goes_below_zero_where_no_value_does(values, lowest):
    drawn = ET.fromstring(day_lines("x", NIGHTS[:2], {"a": values}, zero=False))
    assert float(next(drawn.iter("text")).text) == lowest


def test_each_night_is_a_square_of_its_verdict():
    nights = [(NIGHTS[0], "PROMOTE", ""), (NIGHTS[1], "CHECK_FAILED", "a < b")]
    squares = [*ET.fromstring(verdict_strip(nights)).iter("rect")]
    assert [s.attrib["class"] for s in squares] == ["verdict promote", "verdict check-failed"]
    assert squares[1][0].text == "2026-01-04: CHECK_FAILED. a < b"
    assert len([*ET.fromstring(verdict_strip([])).iter("rect")]) == 0
