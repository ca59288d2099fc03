"""Propensities are exact: they are the frequencies that the policy shows."""

import itertools

import numpy as np
import polars as pl
import pytest

from recsys.simulator.logging_policy import (
    Candidates,
    conditional_propensity,
    draw_candidates,
    draw_slates,
    utilities,
)

UTILITY = np.array([0.0, 1.0, -1.0, 2.0, -np.inf, 0.5], dtype=np.float32)


def repeated(times):
    place = np.tile(np.arange(len(UTILITY)), (times, 1))
    first = np.tile(np.isfinite(UTILITY), (times, 1))
    candidates = Candidates(
        available=np.arange(len(UTILITY)) + 10, place=place, source=place * 0, first=first
    )
    return candidates, np.tile(UTILITY, (times, 1))


def test_propensities_are_frequencies():
    times = 60_000
    candidates, utility = repeated(times)
    slates = draw_slates(candidates, utility, 2, np.random.default_rng(0))
    pairs, index, counts = np.unique(slates.items, axis=0, return_index=True, return_counts=True)
    assert len(pairs) == 5 * 4
    for pair, row, count in zip(pairs, index, counts, strict=True):
        expected = slates.propensity[row].prod()
        error = np.sqrt(expected * (1 - expected) / times)
        assert abs(count / times - expected) < 4.5 * error, pair


def test_propensities_of_all_pages_sum_to_one():
    orders = np.array(list(itertools.permutations([0, 1, 2, 3, 5], 3)))
    propensity = conditional_propensity(np.tile(UTILITY, (len(orders), 1)), orders)
    assert propensity.prod(axis=1).sum() == pytest.approx(1.0, abs=1e-12)
    first = np.unique(np.column_stack([orders[:, 0], propensity[:, 0]]), axis=0)
    weight = np.exp(UTILITY[first[:, 0].astype(int)].astype(float))
    np.testing.assert_allclose(first[:, 1], weight / np.exp(UTILITY[np.isfinite(UTILITY)]).sum(), rtol=1e-6)


def test_a_last_candidate_is_certain():
    propensity = conditional_propensity(
        np.array([[50.0, 0.0, -50.0]], dtype=np.float32), np.array([[0, 1, 2]])
    )
    assert propensity[0, 2] == 1.0
    assert ((propensity > 0) & (propensity <= 1)).all()


def test_pages_hold_distinct_available_candidates(small):
    rng = np.random.default_rng(1)
    users = small.draw_users(2, 50, rng)
    candidates = draw_candidates(small, 2, 50, rng)
    slates = draw_slates(candidates, utilities(small, 2, users, candidates), 10, rng)
    assert slates.items.shape == (50, 10)
    assert np.isin(slates.items, small.items.available(2)).all()
    assert (np.diff(np.sort(slates.items, axis=1), axis=1) > 0).all()


def test_logged_propensities_are_those_of_the_candidates(simulated):
    """Rebuild a page's propensities from what the log and the shop know."""
    shop, day = simulated.shop, simulated.shop.dials.last_day
    request = simulated.log.read("requests", day).filter(pl.col("candidates").is_not_null()).head(1)
    page = simulated.log.read("impressions", day).filter(pl.col("request_id") == request["request_id"][0])
    members = shop.item_numbers(request["candidates"].explode())
    alone = Candidates(
        available=members,
        place=np.arange(len(members))[None, :],
        source=np.zeros((1, len(members)), dtype=np.int64),
        first=np.ones((1, len(members)), dtype=bool),
    )
    utility = utilities(shop, shop.dials.day_number(day), shop.user_numbers(request["user_id"]), alone)
    chosen = np.searchsorted(members, shop.item_numbers(page["item_id"]))[None, :]
    np.testing.assert_allclose(conditional_propensity(utility, chosen)[0], page["propensity"], rtol=1e-4)
