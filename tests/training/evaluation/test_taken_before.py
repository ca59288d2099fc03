"""Recall and NDCG split by whether the user had the wanted item before."""

import dataclasses

import numpy as np
import polars as pl
import pytest

from training.baselines.simple_systems import system_lists
from training.evaluation.audience import find_audience
from training.evaluation.list_metrics import mean_metrics

LAST = 5


@pytest.fixture(scope="module")
def audience(shop_chain, config):
    return find_audience(shop_chain, LAST, config, max_users=None, seed=0)


def pairs(audience, offsets, codes):
    users = np.repeat(audience.requests["user_id"].to_numpy(), np.diff(offsets))
    items = audience.catalogue["item_id"].to_numpy()
    return {(u, items[c]) for u, c in zip(users, codes, strict=True) if c < items.size}


def test_items_had_before_are_those_with_the_tasks_earlier_feedback(shop_chain, config, audience):
    wanted = pairs(audience, audience.offsets, audience.codes)
    feedback = pl.concat([s.table("feedback") for s in shop_chain[:LAST]]).filter(pl.col("kind") == "click")
    before = set(feedback.select("user_id", "item_id").iter_rows())
    users, items = zip(*sorted(wanted - before)[:3], strict=True)
    extra = pl.DataFrame({"user_id": users, "item_id": items, "kind": ["click", "click", "view"]})
    first = shop_chain[0]

    class Planted:
        """The first day with a second share that has some clicks more; all else as it is."""

        num_parts = 2

        def table(self, name, part=None, columns=None):
            found = first.table(name, 0 if part == 0 else None, columns)
            if name != "feedback" or part == 0:
                return found
            return pl.concat(
                [found, extra.select(found.columns) if columns else extra], how="diagonal_relaxed"
            )

        def __getattr__(self, name):
            return getattr(first, name)

    days = dataclasses.replace(shop_chain, snapshots=(Planted(), *shop_chain.snapshots[1:]))
    found = find_audience(days, LAST, config, max_users=None, seed=0)
    assert pairs(audience, *audience.again) == wanted & before
    planted = {(users[0], items[0]), (users[1], items[1])}
    assert pairs(found, *found.again) == wanted & (before | planted)


def test_the_parts_make_the_whole(shop_chain, config, audience):
    first = audience.offsets[:-1]
    counts = (np.diff(audience.offsets) > 0).astype(np.int64)
    split = dataclasses.replace(
        audience, again=(np.concatenate([[0], np.cumsum(counts)]), audience.codes[first[counts > 0]])
    )
    (scored,) = system_lists("popular", [split], shop_chain, config.tasks[0])
    values = {
        name: scored.values[name].to_numpy() for name in scored.values.columns if "recall_at_50" in name
    }
    sizes = np.diff(audience.offsets)
    again, new = np.nan_to_num(values["recall_at_50_again"]), np.nan_to_num(values["recall_at_50_new"])
    np.testing.assert_allclose(again + new * (sizes - 1), values["recall_at_50"] * sizes)
    assert 0 < again.sum() < again.size
    assert np.isnan(values["recall_at_50_new"][sizes == 1]).all()
    assert np.isnan(scored.values["ndcg_at_10_new"].to_numpy()[sizes == 1]).all()
    whole = mean_metrics([scored]).values
    alone = whole["ndcg_at_10"], whole["ndcg_at_10_again"], whole["ndcg_at_10_new"]
    assert min(alone) > 0


def test_where_nobody_takes_anything_again_there_is_no_figure(shop_chain, config, audience):
    nothing = (np.zeros(audience.num_users + 1, np.int64), np.zeros(0, np.int64))
    scored = system_lists(
        "popular", [dataclasses.replace(audience, again=nothing)], shop_chain, config.tasks[0]
    )
    values = mean_metrics(scored).values
    assert values["recall_at_50_again"] is None
    assert values["ndcg_at_10_again"] is None
    assert values["recall_at_50_new"] == values["recall_at_50"]


def test_a_bundle_of_another_policy_is_measured_by_its_own(shop_chain, config, audience):
    """A champion that never shows clicked items again, in a night whose snapshots keep purchases alone."""
    other = config.policy.model_copy(update={"repeat_kinds": ("click",)})
    champion = config.model_copy(update={"policy": other})
    found = find_audience(shop_chain, LAST, champion, max_users=None, seed=0)
    given = pl.concat([s.table("feedback") for s in shop_chain[:LAST]]).filter(pl.col("kind") == "click")
    users, items = audience.requests["user_id"].to_list(), audience.catalogue["item_id"].to_list()
    clicked = {(u, i) for u, i in given.select("user_id", "item_id").iter_rows() if u in set(users)}
    assert {(users[u], items[i]) for u, i in zip(*found.hidden, strict=True)} == clicked
    assert len(found.hidden[0]) == len(clicked) > 0
    # Lists that only fit weights ask for no feedback of all days.
    assert not find_audience(shop_chain, LAST, champion, max_users=None, seed=0, again=False).hidden[0].size
