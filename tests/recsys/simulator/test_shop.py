"""The shop: rebuilt from its seed, extended past its log, and users who behave as the truth says."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from recsys.errors import DataError
from recsys.simulator.dials import ShopDials
from recsys.simulator.ground_truth import ImpressionArrays
from recsys.simulator.item_texts import pole_words
from recsys.simulator.population import CLICK, PURCHASE, RATING
from recsys.simulator.randomness import keyed_normal
from recsys.simulator.shop import Shop

AT = datetime(2026, 1, 30, 12, 30, tzinfo=UTC)


def test_rebuilt_from_its_log(simulated):
    again = Shop.from_log(simulated.log.root)
    assert again.dials == simulated.shop.dials
    np.testing.assert_array_equal(again.items.factors, simulated.shop.items.factors)
    np.testing.assert_array_equal(again.items.withdrawal_day, simulated.shop.items.withdrawal_day)
    assert again.items.titles == simulated.shop.items.titles
    np.testing.assert_array_equal(again.users.own_taste, simulated.shop.users.own_taste)


def test_a_log_without_a_shop_is_refused(tmp_path):
    with pytest.raises(DataError, match="recsys simulate"):
        Shop.from_log(tmp_path)


def test_a_longer_horizon_changes_no_earlier_day():
    dials = ShopDials(users=50, items=100, days=3)
    short, long = Shop.from_seed(dials, 9, extra_days=2), Shop.from_seed(dials, 9, extra_days=30)
    for number in range(short.horizon):
        day = dials.date_of(number)
        assert short.items_frame(day).equals(long.items_frame(day))
        assert short.users_frame(day).equals(long.users_frame(day))
        np.testing.assert_array_equal(short.items.available(number), long.items.available(number))
    assert long.items_frame(dials.date_of(20)).height > 0


def test_days_outside_the_horizon_are_refused(small):
    with pytest.raises(DataError, match="extra_days"):
        small.items_frame(small.dials.date_of(small.horizon))
    with pytest.raises(DataError, match=", not "):
        small.users_frame(small.dials.first_day - timedelta(days=1))


def _click_probability(shop, users, items, day, positions=None, hour=12):
    """Give true click probabilities on each user's usual device; no positions: examined with certainty."""
    arrays = ImpressionArrays(
        users=users,
        items=items,
        days=np.full(len(users), day),
        hours=np.full(len(users), hour),
        devices=shop.users.device[users],
        positions=positions,
    )
    return shop.truth.probabilities(arrays).click


def test_respond_matches_click_probability(small):
    rng = np.random.default_rng(3)
    items = small.items.available(3)[:10]
    ids, positions = small.item_ids(items), np.arange(1, 11)
    day = small.dials.day_number(AT.date())
    expected = _click_probability(small, np.full(10, 7), items, day, positions, hour=12)
    times = 2_500
    clicks: Counter[str] = Counter()
    for _ in range(times):
        actions = small.respond("u000007", ids, positions.tolist(), AT, rng)
        clicks.update(action.item_id for action in actions if action.kind == "click")
    observed = np.array([clicks[item] for item in ids]) / times
    assert np.all(np.abs(observed - expected) < 4.5 * np.sqrt(expected * (1 - expected) / times))
    assert np.std(expected) > 0


def test_actions_come_in_order_with_their_values(simulated):
    shop, rng = simulated.shop, np.random.default_rng(4)
    ids = shop.item_ids(shop.items.available(29)[:50])
    seen: Counter[str] = Counter()
    for user in shop.user_ids(shop.draw_users(29, 200, rng)):
        actions = shop.respond(user, ids, range(1, 51), AT, rng, device="desktop")
        assert [a.occurred_at for a in actions] == sorted(a.occurred_at for a in actions)
        for action in actions:
            seen[action.kind] += 1
            assert ids[action.position - 1] == action.item_id
            assert action.occurred_at >= AT
            assert (action.value is None) == (action.kind == "click")
    assert seen["click"] > seen["purchase"] > 0
    assert seen["rating"] > 0


def test_unknown_ids_are_refused(small):
    rng = np.random.default_rng(0)
    for user, item in (
        ("u999999", "i000001"),
        ("u000001", "i999999"),
        ("nobody", "i000001"),
        ("u000001", "u000001"),
    ):
        with pytest.raises(DataError, match="not of this simulated shop"):
            small.respond(user, [item], [1], AT, rng)


def test_a_lower_position_is_examined_less(small):
    users, items = np.zeros(10, dtype=np.int64), np.full(10, 3)
    probabilities = _click_probability(small, users, items, 0, np.arange(1, 11))
    assert (np.diff(probabilities) < 0).all()
    assert probabilities[0] == _click_probability(small, users[:1], items[:1], 0)[0]


def test_users_with_requests_exist_and_are_skewed(simulated):
    shop, rng = simulated.shop, np.random.default_rng(5)
    drawn = Counter(shop.user_ids(shop.draw_users(0, 20_000, rng)))
    assert all(shop.users.arrival_day[int(user[1:])] == 0 for user in drawn)
    counts = np.sort(list(drawn.values()))[::-1]
    assert counts[: len(counts) // 10].sum() > 0.25 * counts.sum()


@pytest.mark.parametrize("relatedness", [1.0, 0.5, 0.0, -1.0])
def test_relatedness_is_the_cosine_of_item_factors(relatedness):
    shop = Shop.from_seed(ShopDials(users=10, items=2_000, days=1, relatedness=relatedness), 1, extra_days=0)
    click = shop.items.factors[CLICK]
    for task in (PURCHASE, RATING):
        other = shop.items.factors[task]
        cosine = (click * other).sum() / np.sqrt((click**2).sum() * (other**2).sum())
        assert cosine == pytest.approx(relatedness, abs=0.15)


def test_tastes_drift_and_keep_their_spread(simulated):
    users = np.arange(1_200)
    first, last = (simulated.shop.users.taste_on(users, day) for day in (0, 29))
    assert 0.9 < np.corrcoef(first.ravel(), last.ravel())[0, 1] < 0.99
    assert last.std() == pytest.approx(first.std(), rel=0.05)


def test_words_carry_part_of_the_taste(simulated):
    """A ridge regression from words to factors, fitted on old items, explains much of new ones, not all."""
    items = simulated.shop.items
    vocabulary = {word: n for n, word in enumerate(w for pole in pole_words(16) for w in pole)}
    counts = np.zeros((len(items.titles), len(vocabulary)))
    for row, text in enumerate(zip(items.titles, items.descriptions, strict=True)):
        for word in " ".join(text).lower().replace(".", "").split():
            if word in vocabulary:
                counts[row, vocabulary[word]] += 1
    old = items.arrival_day == 0
    gram = counts[old].T @ counts[old] + 3 * np.eye(len(vocabulary))
    weights = np.linalg.solve(gram, counts[old].T @ items.factors[CLICK, old])
    new = items.factors[CLICK, ~old]
    left = ((new - counts[~old] @ weights) ** 2).sum() / (new**2).sum()
    assert 0.1 < left < 0.6


def test_pole_words_are_distinct():
    words = [word for pole in pole_words(16) for word in pole]
    assert len(set(words)) == len(words) == 320


def test_keyed_noise_is_fixed_and_normal():
    users, items = np.repeat(np.arange(300), 300), np.tile(np.arange(300), 300)
    noise = keyed_normal(1, 0, users, items)
    np.testing.assert_array_equal(noise[::7], keyed_normal(1, 0, users[::7], items[::7]))
    assert abs(noise.mean()) < 0.02
    assert noise.std() == pytest.approx(1.0, abs=0.02)
    grid = noise.reshape(300, 300)
    assert abs(np.corrcoef(grid[:, 0], grid[:, 1])[0, 1]) < 0.25
    assert np.abs(grid.mean(axis=0)).max() < 5 / np.sqrt(300)
    assert abs(np.corrcoef(noise, keyed_normal(1, 1, users, items))[0, 1]) < 0.02
    assert abs(np.corrcoef(noise, keyed_normal(2, 0, users, items))[0, 1]) < 0.02


def test_frames_have_the_rows_of_their_day(small):
    first = small.items_frame(small.dials.first_day)
    assert first.height == small.dials.items
    assert first["available_until"].null_count() == first.height
    second = small.items_frame(small.dials.date_of(1))
    withdrawn = second.filter(pl.col("available_until").is_not_null())
    assert withdrawn.height == second.height - withdrawn.height == round(0.025 * small.dials.items)
    assert small.users_frame(small.dials.first_day).height == small.dials.users


def test_contrary_users_buy_and_rate_against_what_they_click():
    """The same shop, the same clicks; half the users' match with an item turns for purchases and ratings."""
    base = {"users": 200, "items": 100, "days": 2, "relatedness": 1.0}
    plain = Shop.from_seed(ShopDials(**base), 1, extra_days=0)
    half = Shop.from_seed(ShopDials(**base, contrary_users=0.5), 1, extra_days=0)
    contrary = half.users.contrary
    assert 0.35 < contrary.mean() < 0.65
    assert not plain.users.contrary.any()
    np.testing.assert_array_equal(half.users.own_taste, plain.users.own_taste)
    np.testing.assert_array_equal(half.users.activity, plain.users.activity)
    users = np.repeat(np.arange(200), 5)
    arrays = ImpressionArrays(
        users=users,
        items=np.arange(1000) % 100,
        days=np.zeros(1000, dtype=np.int64),
        hours=np.full(1000, 12),
        devices=np.zeros(1000, dtype=np.int64),
        positions=None,
    )
    one, other = plain.truth.probabilities(arrays), half.truth.probabilities(arrays)
    np.testing.assert_array_equal(one.click, other.click)
    turned = contrary[users]
    np.testing.assert_array_equal(one.stars[~turned], other.stars[~turned])
    for name in ("stars", "purchase_given_click"):
        a, b = getattr(one, name)[turned], getattr(other, name)[turned]
        assert (a != b).all()
    match = np.einsum("nr,nr->n", plain.users.taste_on(users, 0), plain.items.factors[2, arrays.items])
    np.testing.assert_allclose((one.stars - other.stars)[turned], 2 * 0.6 * match[turned], atol=1e-9)
