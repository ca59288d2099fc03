"""The value of logged lists in another order."""

import numpy as np
import polars as pl
import pytest

from recsys.errors import DataError
from recsys.fusion import Fusion, Term
from recsys.metrics.columns import effective_rows
from recsys.metrics.examination import examination_curve
from training.tune.fusion.value import (
    effective_labels,
    list_values,
    lists_of,
    places,
)


def fusion(**weights):
    return Fusion(terms={task: Term(weight=w, low=0.0, high=5.0) for task, w in weights.items()})


def rows(config, requests):
    """Make scored impressions: {request: [(click label, click prediction, purchase prediction, stars)]}."""
    made = []
    for request, shown in requests.items():
        for position, (click, p_click, p_purchase, stars) in enumerate(shown, 1):
            made.append(
                {
                    "impression_id": f"{request}:{position}",
                    "request_id": request,
                    "user_id": f"u{request}",
                    "position": position,
                    "weight": 1.0,
                    "label_click": click,
                    "label_purchase": 0.0,
                    "label_rating": stars,
                    "prediction_click": p_click,
                    "prediction_purchase": p_purchase,
                    "prediction_rating": 3.0,
                }
            )
    return pl.DataFrame(made, schema_overrides={"label_rating": pl.Float64, "label_click": pl.Float64})


@pytest.fixture
def lists(config):
    two = {
        "a": [(0.0, 0.1, 0.9, None), (1.0, 0.2, 0.1, 4.0)],
        "b": [(1.0, 0.3, 0.2, 2.0), (0.0, 0.1, 0.1, None)],
    }
    return lists_of(rows(config, two), config.tasks, None)


def test_places_follow_the_score_inside_each_list(lists):
    assert places(lists, fusion(click=1.0, purchase=0.0, rating=0.0)).tolist() == [2, 1, 1, 2]
    assert places(lists, fusion(click=0.0, purchase=1.0, rating=0.0)).tolist() == [1, 2, 1, 2]
    assert places(lists, fusion(click=0.0, purchase=0.0, rating=0.0)).tolist() == [1, 2, 1, 2]


def test_the_value_is_the_discounted_rate_of_the_top(lists):
    by_click, by_purchase = fusion(click=1.0, purchase=0.0), fusion(click=0.0, purchase=1.0)
    assert list_values(lists, by_click, 1)["click"].mean == 1.0
    assert list_values(lists, by_purchase, 1)["click"].mean == 0.5
    second = 1 / np.log2(3)
    assert list_values(lists, by_purchase, 2)["click"].mean == pytest.approx((second + 1) / (2 + 2 * second))


def test_a_task_of_observed_labels_is_their_mean_on_top(lists):
    assert list_values(lists, fusion(click=1.0), 1)["rating"].mean == 3.0
    assert list_values(lists, fusion(purchase=1.0), 1)["rating"].mean == 2.0, "the other is not on top"


def test_a_request_id_of_two_users_is_two_lists(config):
    shown = {"a": [(1.0, 0.1, 0.1, None), (0.0, 0.9, 0.1, None)], "b": [(0.0, 0.2, 0.1, None)] * 2}
    made = rows(config, shown).with_columns(request_id=pl.lit("r"))
    shared = lists_of(made, config.tasks, None)
    assert np.bincount(shared.request).tolist() == [2, 2]
    assert places(shared, fusion(click=1.0)).tolist() == [2, 1, 1, 2]


def test_an_unknown_label_is_no_zero(config):
    open_window = rows(config, {"a": [(None, 0.9, 0.1, None), (1.0, 0.2, 0.1, None)]})
    found = lists_of(open_window, config.tasks, None)
    assert list_values(found, fusion(click=1.0), 2)["click"].mean == 1.0


def test_examination_needs_no_label_of_its_task_to_be_valued(config):
    click, _, rating = config.tasks
    made = rows(config, {"a": [(None, 0.4, 0.1, 2.0), (None, 0.4, 0.1, 3.0)]})
    found = lists_of(made, [rating], click)
    assert found.examination.tolist() == [1.0, 1.0]
    assert set(found.labels) == {"rating"}
    assert set(found.predictions) == {"click", "purchase", "rating"}


def test_lists_of_one_item_cannot_be_ordered(config):
    with pytest.raises(DataError, match="no request of these days shows two items"):
        lists_of(rows(config, {"a": [(0.0, 0.1, 0.1, None)]}), config.tasks, None)


def test_examination_is_read_off_the_log_and_undone(config):
    """Clicks fall by half at position 2 while predictions say alike: a label seen there counts double."""
    rng = np.random.default_rng(0)
    position = np.tile([1, 2, 3], 20_000)
    chance = rng.uniform(0.05, 0.4, position.size).astype(np.float32)
    label = (rng.random(position.size) < chance / position).astype(np.float64)
    curve = examination_curve(position, label, chance.astype(np.float64), np.ones(position.size))
    assert curve[1:] == pytest.approx([1.0, 0.5, 1 / 3], rel=0.08)
    assert (np.diff(curve) <= 0).all()
    found = lists_of(rows(config, {"a": [(0.0, 0.4, 0.1, None), (1.0, 0.4, 0.1, None)]}), config.tasks, None)
    seen_below = found.__class__(
        **{**{s: getattr(found, s) for s in found.__slots__}, "examination": curve[1:3]}
    )
    doubled = list_values(seen_below, fusion(click=1.0), 2)["click"].total.sum()
    assert doubled == pytest.approx(2.0 / np.log2(3), rel=0.08)
    assert effective_labels(seen_below, config.tasks[0]) == pytest.approx(1.0)
    assert effective_rows(np.array([1.0, 1.0, 2.0])) == pytest.approx(16 / 6)
