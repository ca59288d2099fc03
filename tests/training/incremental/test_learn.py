"""When a label became known, where two users share an impression id."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from training.incremental.learn import any_closed

NOON = datetime(2026, 1, 30, 12, tzinfo=UTC)


class OneDay:
    """A day on which u and v saw impression x, half a day apart; the label of one of them is known."""

    last = 0

    def __init__(self, config, known):
        self.tasks, self.known = config.tasks, known

    def labelled_for(self, tasks):
        assert tasks == self.tasks
        return self

    def labels(self, i):
        labels = {task.label: [1.0 if user == self.known else None for user in "uv"] for task in self.tasks}
        return pl.DataFrame({"impression_id": ["x", "x"], "user_id": ["u", "v"], **labels})

    def __getitem__(self, i):
        return self

    def table(self, name):
        shown_at = [NOON - timedelta(hours=12), NOON]
        return pl.DataFrame({"impression_id": ["x", "x"], "user_id": ["u", "v"], "shown_at": shown_at})


@pytest.mark.parametrize("known", ["u", "v"])
def test_a_label_became_known_when_its_own_impressions_window_closed(config, known):
    """Of the labels known by then: u's has been so for hours, v's closes within the hour before."""
    days = OneDay(config, known)
    until = NOON + timedelta(seconds=config.tasks[0].window)
    assert any_closed(days, config, until - timedelta(minutes=1), until) is (known == "v")
