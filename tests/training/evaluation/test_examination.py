"""How likely a position is looked at: read off explored rows alone, whatever the policy puts there."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from tests.conftest import TASKS
from training.evaluation.examination import Told, examination_for_lists, examination_of
from training.evaluation.head_metrics import head_metrics

LOOKED_AT = np.array([1.0, 0.5])


def logged(num_lists=20_000, seed=0):
    """Lists of two explored rows: good items, clicked five times as often, are mostly put on top."""
    rng = np.random.default_rng(seed)
    position = np.tile([1, 2], num_lists)
    chance_of_good = np.where(position == 1, 0.8, 0.2)
    good = rng.random(position.size) < chance_of_good
    rate = np.where(good, 0.5, 0.1)
    return pl.DataFrame(
        {
            "user_id": [f"u{n // 2 % 500}" for n in range(position.size)],
            "weight": 1.0,
            "list_group": np.arange(position.size) // 2,
            "position": position,
            "explored": True,
            "propensity": np.where(good, chance_of_good, 1 - chance_of_good),
            "propensity_kind": "exact",
            "label_click": (rng.random(position.size) < rate * LOOKED_AT[position - 1]).astype(float),
            "by_position": -position.astype(float),
        }
    )


def test_explored_rows_tell_it_and_all_others_do_not(config):
    rows = logged()
    others = rows.with_columns(
        label_click=pl.lit(1.0),
        explored=pl.col("list_group") % 2 == 0,
        propensity_kind=pl.when(pl.col("list_group") % 2 == 0)
        .then(pl.lit("pinned"))
        .otherwise("propensity_kind"),
    ).filter(pl.col("position") == 2)
    found = examination_of(pl.concat([rows, others]), config.tasks[:1])
    assert found.to_list()[:2] == pytest.approx(LOOKED_AT.tolist(), rel=0.1)
    assert found.len() == rows.height + others.height


def test_uniformly_drawn_items_tell_it_whatever_else_is_explored(config):
    """Their propensity does not matter: every position has the same items. Others may have better ones."""
    rng = np.random.default_rng(3)
    drawn = logged(16_000).with_columns(
        explored=pl.lit(value=False),
        propensity_kind=pl.lit("uniform"),
        propensity=pl.Series(np.where(rng.random(32_000) < 0.01, 0.9, 1e-4)),
    )
    clicked = rng.random(32_000) < 0.3 * LOOKED_AT[drawn["position"].to_numpy() - 1]
    drawn = drawn.with_columns(label_click=pl.Series(clicked.astype(float)))
    expected = pytest.approx(LOOKED_AT.tolist(), rel=0.1)
    assert examination_of(drawn, config.tasks[:1]).to_list()[:2] == expected
    mostly_on_top = logged(16_000).filter((pl.col("position") == 1) | (pl.col("list_group") % 4 == 0))
    assert examination_of(pl.concat([drawn, mostly_on_top]), config.tasks[:1]).to_list()[:2] == expected
    assert examination_of(drawn[:150], config.tasks[:1]).unique().to_list() == [1.0], "too few"


def test_few_explored_clicks_say_nothing(config):
    assert examination_of(logged(100), config.tasks[:1]).to_list() == [1.0] * 200
    rows = logged().with_columns(explored=pl.lit(value=False))
    assert examination_of(rows, config.tasks[:1]).unique().to_list() == [1.0]


def test_a_position_that_was_not_explored_is_looked_at_like_the_last_one_that_was(config):
    rows = pl.concat(
        [logged(), logged(1).with_columns(position=pl.lit(9, dtype=pl.Int64), explored=pl.lit(value=False))]
    )
    found = examination_of(rows, config.tasks[:1]).to_list()
    assert found[-1] == found[1] < 0.6


def test_an_order_by_position_that_knows_nothing_has_half(config):
    """Both items of a list are equally good: the upper one is clicked more because it is seen."""
    rng = np.random.default_rng(1)
    rows = logged().with_columns(propensity=pl.lit(0.5))
    clicked = rng.random(rows.height) < 0.4 * LOOKED_AT[rows["position"].to_numpy() - 1]
    rows = rows.with_columns(label_click=clicked.astype(float))
    plain = head_metrics(
        config.tasks[0], rows.with_columns(examination=pl.lit(1.0)), "by_position", probability=False
    )
    assert plain.values["list_auc"] > 0.65
    weighed = rows.with_columns(examination_of(rows, config.tasks[:1]))
    found = head_metrics(config.tasks[0], weighed, "by_position", probability=False)
    assert found.values["list_auc"] == pytest.approx(0.5, abs=0.01)


def ten_places(num_lists, seed=0):
    """Lists of ten rows by chance, place p looked at with p ** -.3."""
    rng = np.random.default_rng(seed)
    position = np.tile(np.arange(1, 11), num_lists)
    clicked = rng.random(position.size) < 0.15 * position**-0.3
    return pl.DataFrame(
        {
            "user_id": [f"u{n // 10}" for n in range(position.size)],
            "weight": 1.0,
            "position": position,
            "explored": True,
            "propensity": 0.1,
            "propensity_kind": "exact",
            "label_click": clicked.astype(float),
        }
    )


def test_few_explored_clicks_tell_one_number_for_all_places(config):
    curves = []
    for seed in range(20):
        rows = ten_places(100, seed)
        assert 50 <= rows["label_click"].sum() < 200
        curves.append(examination_of(rows, config.tasks[:1])[:10].to_numpy())
        power = -np.log(curves[-1][1:]) / np.log(np.arange(2, 11))
        assert power == pytest.approx(power[0]), "one number"
    assert np.mean(curves, axis=0)[9] == pytest.approx(0.5, abs=0.1)
    upside_down = ten_places(100).with_columns(position=11 - pl.col("position"))
    assert examination_of(upside_down, config.tasks[:1]).unique().to_list() == [1.0], "it never rises"


def test_explored_rows_of_earlier_days_are_read_where_one_day_has_too_few(config):
    tasks, days = config.tasks[:1], LoggedDays(logged(400))
    few = logged(60)
    assert examination_of(few, tasks).unique().to_list() == [1.0]
    found = examination_of(few, tasks, days, 28)
    assert found[:2].to_list() == pytest.approx(LOOKED_AT.tolist(), abs=0.2)
    assert days.read == list(range(27, min(days.read) - 1, -1))
    assert 2 <= len(days.read) < 20, "the latest first, and no more than are needed"
    days.read.clear()
    examination_of(logged(), tasks, days, 28)
    assert days.read == [], "a day that tells by itself"
    assert examination_of(few, tasks, days, 0).unique().to_list() == [1.0], "there is no day before"


def test_what_one_bundle_is_told_the_next_one_is_not_told_again(config):
    proved: list[int] = []
    tasks, days = config.tasks[:1], LoggedDays(logged(400))
    few, told = logged(60), Told(require=lambda day: proved.append(day.place))
    first = examination_of(few, tasks, days, 28, told)
    assert proved == sorted(set(days.read), reverse=True), "each day, the latest first, before it is read"
    days.read.clear()
    assert examination_of(few[::-1], tasks, days, 28, told).equals(first.reverse())
    scored = few.with_columns(first).filter(pl.col("position") == 2)
    again = Told.of(scored)
    assert examination_of(few.filter(pl.col("position") == 2), tasks, days, 28, again).equals(
        scored["examination"]
    )
    assert days.read == []


def test_what_earlier_days_cost(config):
    tasks, few = config.tasks[:1], logged(60)
    days = LoggedDays(logged(400))
    examination_of(few, tasks, days, 28)
    assert days.labelled == [(i, False) for i in days.read], "labels of many days are not held at once"
    plain = LoggedDays(logged(400).with_columns(explored=pl.lit(value=False)))
    assert examination_of(few, tasks, plain, 40).unique().to_list() == [1.0]
    assert plain.read == list(range(39, 11, -1)), "28 days at most"
    assert plain.labelled == [], "a log without exploration: no day is labelled for nothing"


class LoggedDays:
    """Days of which each has the same rows; labels come in pieces, in another order."""

    def __init__(self, rows):
        self.rows = rows.with_row_index("n").with_columns(
            impression_id=pl.format("i{}", "n"), sampling_rate=pl.lit(1.0), label_purchase=pl.lit(0.0)
        )
        self.read, self.labelled, self.kept = [], [], True

    def apart(self):
        other = LoggedDays(self.rows.drop("n", "impression_id"))
        other.read, other.labelled, other.kept = self.read, self.labelled, False
        return other

    def labelled_for(self, tasks):
        return self

    def __getitem__(self, i):
        self.read.append(i)
        return SimpleNamespace(place=i, table=lambda name, columns: self.rows.select(columns))

    def labels_in_pieces(self, i, piece_rows):
        self.labelled.append((i, self.kept))
        labels = self.rows.select("impression_id", "user_id", "label_click", "label_purchase").reverse()
        yield from (labels[:7], labels[7:])


def test_days_whose_lists_are_learned_tell_it_unless_a_position_bias_does(make_config):
    def found(rows, *, weight=0.3, bias=False, places=(0, 1)):
        tasks = [task | {"list_weight": weight} for task in TASKS[:2]]
        config = make_config(task=tasks, model={"position_bias": bias})
        return examination_for_lists(LoggedDays(rows), places, config)

    rows = logged()
    assert found(rows)[1:] == pytest.approx(LOOKED_AT.tolist(), rel=0.1)
    for same in (found(rows, bias=True), found(rows, weight=0.0), found(rows, places=())):
        assert same == (1.0,)
    assert found(rows.with_columns(explored=pl.lit(value=False))) == (1.0,)
    uniform = rows.with_columns(explored=pl.lit(value=False), propensity_kind=pl.lit("uniform"))
    assert found(uniform) != (1.0,)
