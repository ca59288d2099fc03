"""Logs made by hand: a clean one, and changes to it."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from features.profile.findings import find
from features.profile.measure import measure_log
from features.profile.model import LogProfile
from recsys.config import RunConfig, parse_config
from recsys.log import InteractionLog

FIRST = date(2026, 1, 5)
DAYS = 6
CONFIG = {
    "task": [
        {"name": "click", "feedback": "click", "head": "binary", "window": "1h"},
        {"name": "stars", "feedback": "rating", "head": "regression", "window": "1h", "space": "observed"},
    ],
    "feature": [{"name": "device", "entity": "context", "kind": "categorical"}],
}
Change = Callable[[pl.DataFrame], pl.DataFrame]


def _same(frame: pl.DataFrame) -> pl.DataFrame:
    return frame


class Shop:
    """Six days: 40 users see 30 items, two a request; every third impression is clicked, some are rated."""

    def __init__(self, root: Path, frames) -> None:
        self.log = InteractionLog(root)
        self._frames = frames

    def write(
        self, impressions: Change = lambda f: f, feedback: Change = lambda f: f, days: int = DAYS
    ) -> None:
        """Write the log; the changes are made to every day's tables."""
        for n in range(days):
            day = FIRST + timedelta(days=n)
            shown, done = self._day(n)
            self.log.write("impressions", day, impressions(shown))
            self.log.write("feedback", day, feedback(done))
        items = self._frames.items(*[{"item_id": f"i{i}"} for i in range(30)])
        self.log.write("items", FIRST - timedelta(days=1), items)
        users = self._frames.users(*[{"user_id": f"u{u}"} for u in range(40)])
        self.log.write("users", FIRST - timedelta(days=1), users)

    def _day(self, n: int) -> tuple[pl.DataFrame, pl.DataFrame]:
        start = datetime(2026, 1, 5, tzinfo=UTC) + timedelta(days=n)
        shown, done = [], []
        for k in range(480):
            at = start + timedelta(minutes=3 * k)
            name = f"r{n}-{k // 2}:{k % 2 + 1}"
            row = {"user_id": f"u{k // 2 % 40}", "item_id": f"i{(k * 7 + n) % 30}"}
            shown.append({**row, "impression_id": name, "shown_at": at, "position": k % 2 + 1,
                          "propensity": 0.5, "propensity_kind": "exact", "context_device": "tv"})  # fmt: skip
            if k % 3 == 0:
                later = {"occurred_at": at + timedelta(seconds=30), "impression_id": name, **row}
                done.append({**later, "feedback_id": f"c-{name}", "kind": "click"})
                if k % 6 == 0:
                    stars = float(k % 5 + 1)
                    done.append({**later, "feedback_id": f"s-{name}", "kind": "rating", "value": stars})
        return self._frames.impressions(*shown), self._frames.feedback(*done)

    def profile(self, **config: object) -> LogProfile:
        """Measure the log and look for findings."""
        measured = measure_log(self.log, lambda what, share: None)
        checked: RunConfig = parse_config({**CONFIG, **config}, "CONFIG")
        return measured.model_copy(update={"findings": find(measured, checked, "CONFIG")})

    def codes(self, **config: object) -> set[str]:
        """Give the codes of the findings."""
        return {finding.code for finding in self.profile(**config).findings}


@pytest.fixture
def shop(tmp_path: Path, frames) -> Shop:
    """Give a shop whose log is not written yet."""
    return Shop(tmp_path / "log", frames)
