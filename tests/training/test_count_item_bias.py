"""What heads miss of items is counted on days before the calibration day, against each place's own level."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from recsys.calibration import Identity
from recsys.config import default_config
from training import count_item_bias as module
from training.count_item_bias import count_item_bias

CONFIG = default_config()
AS_IT_IS = {task.name: Identity() for task in CONFIG.tasks}


def shown(item, position):
    return pl.DataFrame({"item_id": item, "position": position}).with_columns(
        sampled=pl.lit(value=False), propensity=pl.lit(0.1)
    )


class Days:
    """Days of 4,000 rows: twice as much is chosen at place 1 as at place 2, and of "a" as of "b"."""

    def __init__(self, rows=4_000):
        self.rows = rows
        self.scored = []

    def num_impressions(self, i):
        return self.rows

    def __getitem__(self, i):
        return SimpleNamespace(table=lambda _name, columns: self.examples(i).select(columns))

    def examples(self, i):
        item = np.where(np.arange(self.rows) % 2 == 0, "a", "b")
        position = 1 + np.arange(self.rows) // 2 % 2
        return shown(item, position)

    def labels(self, i):
        shown = self.examples(i)
        rate = 0.2 * np.where(shown["item_id"] == "a", 2, 1) * np.where(shown["position"] == 1, 1.0, 0.5)
        return (np.random.default_rng(i).random(self.rows) < rate).astype(np.float32)


@pytest.fixture
def count(monkeypatch):
    """Count with heads that say the same of all rows, or what a function says of a day's rows."""

    def count(days, calibrated=4, said=0.3, examples=None):
        def score(_trained, of, i, config, _folder):
            of.scored.append(i)
            odds = np.full(of.rows, np.log(said / (1 - said)), np.float32)
            nothing = np.full(of.rows, np.nan, np.float32)
            labels = {task.name: nothing for task in config.tasks} | {"click": of.labels(i)}
            logits = {task.name: odds for task in config.tasks}
            scored = SimpleNamespace(labels=labels, weight=np.ones(of.rows, np.float32), items=None)
            return logits, scored

        monkeypatch.setattr(module, "day_logits", score)
        found = count_item_bias(SimpleNamespace(), AS_IT_IS, days, calibrated, CONFIG)
        return dict(found.iter_rows())

    return count


def test_an_item_that_is_chosen_twice_as_often_is_above_the_other_by_the_logarithm_of_two(count):
    found = count(Days())
    assert found["a"] - found["b"] == pytest.approx(np.log(2), abs=0.1)
    assert found["a"] == pytest.approx(np.log(4 / 3), abs=0.1)


@pytest.mark.parametrize("said", [0.05, 0.9])
def test_the_level_of_the_heads_says_nothing_of_items(count, said):
    assert count(Days(), said=said)["a"] == pytest.approx(np.log(4 / 3), abs=0.1)


def test_a_good_place_and_a_good_day_are_no_merit_of_the_item_that_had_them(count):
    class Unfair(Days):
        """Both items are alike; "a" has the first place, and is shown more on days of twice the choices."""

        def examples(self, i):
            good = np.arange(self.rows) < (0.9 if i == 2 else 0.2) * self.rows
            return shown(np.where(good, "a", "b"), np.where(good, 1, 2))

        def labels(self, i):
            rate = np.where(self.examples(i)["position"] == 1, 0.2, 0.1) * (2 if i == 2 else 1)
            return (np.random.default_rng(i).random(self.rows) < rate).astype(np.float32)

    assert count(Unfair()) == pytest.approx({"a": 0.0, "b": 0.0}, abs=0.05)


def test_the_calibration_day_and_later_ones_are_not_read(count):
    days = Days()
    count(days, calibrated=3)
    assert days.scored == [2, 1, 0]


def test_no_more_days_are_scored_than_the_rows_allow(count, monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 9_000)
    days = Days()
    count(days)
    assert days.scored == [3, 2]
    monkeypatch.setattr(module, "MOST_ROWS", 10)
    few = Days()
    count(few)
    assert few.scored == [3], "one day always"
    monkeypatch.setattr(module, "MOST_ROWS", 10**9)
    monkeypatch.setattr(module, "MOST_PERIODS", 3)
    long = Days()
    count(long)
    assert long.scored == [3, 2, 1]


def test_drawn_negatives_were_never_shown(count):
    class Drawn(Days):
        def examples(self, i):
            rows = super().examples(i)
            drawn = (np.arange(self.rows) % 4 == 1) & (self.labels_of(rows, i) == 0)
            return rows.with_columns(sampled=pl.Series(drawn))

        def labels(self, i):
            return self.labels_of(super().examples(i), i)

        def labels_of(self, rows, i):
            return (np.random.default_rng(i).random(self.rows) < 0.2).astype(np.float32)

    found = count(Drawn())
    assert found["b"] > found["a"] + 0.3, "half of the rows of b that nobody chose are left out"


def test_what_was_shown_for_certain_says_nothing_of_an_item(count):
    """Of "a" half of the rows were chosen by their score, and nobody wants those."""

    class Greedy(Days):
        share = 0.95

        def examples(self, i):
            return (
                super()
                .examples(i)
                .with_columns(propensity=pl.when(pl.Series(self.chosen())).then(self.share).otherwise(0.02))
            )

        def chosen(self):
            return np.arange(self.rows) % 4 == 0

        def labels(self, i):
            drawn = (np.random.default_rng(i).random(self.rows) < 0.2) & ~self.chosen()
            return drawn.astype(np.float32)

    assert count(Greedy()) == pytest.approx({"a": 0.0, "b": 0.0}, abs=0.1)
    days = Greedy()
    days.share = 0.4
    assert count(days)["a"] < -0.3, "rows that were drawn count"


def test_a_log_that_does_not_say_how_likely_its_rows_were_is_counted_whole(count):
    class Unknown(Days):
        def examples(self, i):
            return super().examples(i).with_columns(propensity=pl.lit(None, pl.Float64))

    assert count(Unknown()) == count(Days())


def test_before_there_is_a_day_to_count_there_is_no_bias(count):
    assert count(Days(), calibrated=0) == {}
