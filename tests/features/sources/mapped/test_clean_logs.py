"""No check stops a clean log, whatever its form; each of these has enough rows for the checks to stop it."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from features.profile.findings import CHECKS
from features.profile.measure import measure_log
from features.relations import MIN_ROWS
from features.sources.conversion import silent
from recsys.log import InteractionLog

VIEWS = {"view": "impression", "click": "click", "order": "purchase"}
CLICKS = {"click": "click", "order": "purchase"}


@dataclass(frozen=True)
class Clean:
    """How a log is made: who sees what, when, and how ids are written."""

    rows: int = 1_200
    users: int = 60
    items: int = 50
    days: float = 6.0
    skew: float = 1.0
    """Of the popularity of users: the share of the first grows with it."""
    a_list: int = 4
    name_user: Callable[[int], str] = "u{}".format
    name_item: Callable[[int], str] = "i{}".format
    kinds: dict[str, str] = field(default_factory=lambda: VIEWS)
    section: dict[str, Any] = field(default_factory=dict)
    bursts: tuple[float, ...] = (0.0,)
    """Days after the start at which rows begin again."""
    listed: float = 1.0
    """Share of the items that the items' file has."""


def _uuid(n: int) -> str:
    return str(uuid.UUID(int=n * 2**97 % 2**128))


CLEAN = {
    "views and clicks": Clean(),
    "clicks alone": Clean(kinds=CLICKS),
    "purchases alone, on Saturdays": Clean(
        kinds={"click": "purchase"}, bursts=tuple(range(0, 56, 7)), days=0.5
    ),
    "a day of each month": Clean(bursts=tuple(range(0, 365, 31)), days=0.9),
    "some days of twenty years": Clean(bursts=(0, 700, 900, 2_500, 4_000, 7_300), days=0.9),
    "one day": Clean(days=0.9),
    "one hour": Clean(days=0.04),
    "a week and the same one a year later": Clean(bursts=(0, 365)),
    "a pilot half a year before": Clean(bursts=(0, *[180] * 30), days=4),
    "busy users": Clean(skew=1.5),
    "one list a user": Clean(users=300),
    "long lists": Clean(a_list=40),
    "UUIDs": Clean(name_user=_uuid, name_item=lambda n: _uuid(n + 5).upper()),
    "snowflakes": Clean(name_user=lambda n: str(1_700_000_000_123_456_789 + n * 7_919)),
    "leading zeros": Clean(name_item="{:06d}".format),
    "addresses": Clean(name_user="user.{}+news@example.org".format),
    "hexadecimal": Clean(name_item="{:x}e1".format),
    "sections": Clean(name_item=lambda n: f"{n // 7}.{n % 7}"),
    "an items' file with gaps": Clean(listed=0.6),
    "many items": Clean(items=5_000, kinds=CLICKS),
    "item numbers": Clean(name_item=str, name_user=str),
    "no requests": Clean(section={"request": None}),
}


def make(clean: Clean) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Make events and items."""
    draw = np.random.default_rng(7)
    lists = -(-clean.rows // clean.a_list)
    weights = 1 / np.arange(1, clean.users + 1) ** clean.skew
    users = draw.choice(clean.users, size=lists, p=weights / weights.sum())
    begin = draw.choice(clean.bursts, size=lists) + draw.random(lists) * clean.days
    start = datetime(2024, 1, 5, tzinfo=UTC)
    told = []
    for number in range(lists):
        at = start + timedelta(days=float(begin[number]))
        for item in draw.choice(clean.items, size=clean.a_list, replace=False):
            row = (clean.name_user(int(users[number])), clean.name_item(int(item)), f"r{number}")
            told += [(*row, kind, at + timedelta(seconds=9 * n)) for n, kind in enumerate(clean.kinds)
                     if n == 0 or draw.random() < 0.3]  # fmt: skip
    events = pl.DataFrame(told, schema=["user_id", "product_id", "req", "event", "at"], orient="row")
    ids = events["product_id"].unique().sort()
    return events, ids.head(round(clean.listed * len(ids))).to_frame("id")


@pytest.mark.parametrize("name", CLEAN)
def test_no_check_stops_a_clean_log(bench, events, name):
    clean = CLEAN[name]
    told, items = make(clean)
    assert told.height >= MIN_ROWS
    bench.src.mkdir()
    told.write_parquet(bench.src / "events.parquet")
    items.write_parquet(bench.src / "items.parquet")
    mapping = events(files="events.parquet", request="req", kinds=clean.kinds)
    mapping["events"] |= clean.section
    log = bench.convert({**mapping, "items": {"files": "items.parquet", "id": "id"}}, form="parquet")
    expected = ["items_not_in_file"] if clean.listed < 1 else []
    assert [finding.code for finding in bench.summary.findings] == expected
    assert not stopping(log)
    assert all(tally.adds_up for tally in bench.summary.accounting.values())


def stopping(log: InteractionLog) -> list[str]:
    """List what the profile calls an error."""
    profile = measure_log(log, silent)
    return [finding.what for check in CHECKS if (finding := check(profile)) and finding.stops]
