"""What a user took most often: counted by hand, and lists from which nothing is hidden."""

import dataclasses
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from training.baselines.own_history import HALF_LIFE_DAYS, OwnHistory
from training.baselines.simple_systems import OWN_HISTORY, system_lists
from training.evaluation.audience import find_audience
from training.evaluation.console import hidden_line
from training.evaluation.list_metrics import mean_metrics

LAST = 5
ITEMS = pl.Series(["a", "b", "c", "d"])


@pytest.fixture
def own():
    events = pl.DataFrame(
        {
            "user_id": ["u", "u", "u", "v", "v", "v"],
            "item_id": ["a", "a", "b", "a", "c", "c"],
            "age_days": [2 * HALF_LIFE_DAYS, 2 * HALF_LIFE_DAYS, 0.0, 5.0, 5.0, 5.0],
        }
    )
    return OwnHistory(events, pl.DataFrame({"item_id": ["a", "b", "c"], "count": [3, 1, 2]}))


def test_one_recent_event_outweighs_two_old_ones_and_popularity_breaks_ties(own) -> None:
    lists = own.of_lists(pl.Series(["u", "v", "nobody"]), ITEMS)
    order = [[ITEMS[i] for i in np.argsort(-row, kind="stable").tolist()] for row in lists]
    assert order == [["b", "a", "c", "d"], ["c", "a", "b", "d"], ["a", "c", "b", "d"]]
    assert lists[0, 0] == pytest.approx(0.5, abs=1e-5)
    users = pl.Series(["u", "v", "nobody", "v"])
    np.testing.assert_allclose(own.of_pairs(users, ITEMS), [lists[0, 0], lists[1, 1], lists[2, 2], 0.0])


def test_popularity_never_outweighs_an_event() -> None:
    events = pl.DataFrame({"user_id": ["u"], "item_id": ["b"], "age_days": [40 * HALF_LIFE_DAYS]})
    own = OwnHistory(events, pl.DataFrame({"item_id": ["a", "b"], "count": [10**9, 1]}))
    assert np.argmax(own.of_lists(pl.Series(["u"]), ITEMS)[0]) == 1


def test_without_any_event_nothing_is_scored() -> None:
    schema = {"user_id": pl.String, "item_id": pl.String, "age_days": pl.Float64}
    nothing = pl.DataFrame(schema={"item_id": pl.String, "count": pl.UInt32})
    own = OwnHistory(pl.DataFrame(schema=schema), nothing)
    assert own.of_lists(pl.Series(["u"]), ITEMS).tolist() == [[0.0] * 4]


def test_only_what_came_before_the_day_counts(shop_chain, config) -> None:
    click = config.tasks[0]
    own = OwnHistory.before(shop_chain, LAST, click)
    feedback = pl.concat([s.table("feedback") for s in shop_chain[:LAST]])
    clicks = feedback.filter(pl.col("kind") == "click")
    pair = clicks.row(0, named=True)
    mine = clicks.filter(pl.col("user_id") == pair["user_id"], pl.col("item_id") == pair["item_id"])
    ages = (clicks["occurred_at"].max() - mine["occurred_at"]) / timedelta(days=1)
    expected = (0.5 ** (ages.to_numpy() / HALF_LIFE_DAYS)).sum()
    found = own.of_pairs(pl.Series([pair["user_id"]]), pl.Series([pair["item_id"]]))
    assert found[0] == pytest.approx(expected, rel=1e-4)


def test_wanted_items_that_the_policy_hides_are_counted_and_own_history_hides_none(shop_chain, config):
    audience = find_audience(shop_chain, LAST, config, max_users=None, seed=0)
    wanted = int(audience.codes[0])
    other = next(
        i for i in range(audience.catalogue.height) if i not in audience.codes[: audience.offsets[1]]
    )
    hidden = (np.array([0, 0, 0]), np.array([wanted, wanted, other]))
    hiding = dataclasses.replace(audience, hidden=hidden)
    assert hiding.num_hidden == 1
    click = config.tasks[0]
    popular = mean_metrics(system_lists("popular", [hiding], shop_chain, click))
    own = mean_metrics(system_lists(OWN_HISTORY, [hiding], shop_chain, click))
    assert (popular.hidden, own.hidden) == (1, 0)
    assert f"hidden: 1 of the {popular.relevant:,} wanted items" in hidden_line(popular)
    assert hidden_line(popular).endswith("the baseline own_history does")
    free = mean_metrics(system_lists(OWN_HISTORY, [hiding.without_exclusion()], shop_chain, click))
    assert own == free
