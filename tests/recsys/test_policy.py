import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ConfigError
from recsys.policy import PolicyInput, PolicyParameters, draw_ranking

ANGLES = np.array([0.0, 0.2, 1.5, 1.7])
UNIT = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(np.float32)


def policy_input(scores, categories=None, **more) -> PolicyInput:
    categories = [-1] * len(scores) if categories is None else categories
    return PolicyInput(scores=np.array(scores, dtype=float), categories=np.array(categories), **more)


def test_the_conditional_is_the_ratio_of_two_prefixes_by_hand() -> None:
    weights = np.exp([1.0, 0.5, 0.0])
    candidates, parameters = policy_input([1.0, 0.5, 0.0]), PolicyParameters(epsilon=0.2, temperature=1.0)
    results = (draw_ranking(candidates, parameters, 2, seed) for seed in itertools.count())
    result = next(r for r in results if r.order.tolist() == [0, 2])
    first = 0.8 + 0.2 * weights[0] / weights.sum()
    both = 0.2 * weights[0] / weights.sum() * weights[2] / (weights[1] + weights[2])
    assert result.propensity == pytest.approx([first, both / first])
    assert result.explored


def test_greedy_is_certain() -> None:
    result = draw_ranking(
        policy_input([0.1, 0.3, 0.2]), PolicyParameters(name="greedy", epsilon=0.5), 3, seed=1
    )
    assert (result.order.tolist(), result.propensity.tolist(), result.explored) == (
        [1, 2, 0],
        [1, 1, 1],
        False,
    )


def test_a_longer_page_begins_with_the_shorter_one() -> None:
    candidates = policy_input(np.linspace(0, 1, 50), np.arange(50) % 5)
    parameters = PolicyParameters(epsilon=1.0, max_per_category=3)
    for start in (0, 7):
        long = draw_ranking(candidates, parameters, 40, 7, start=start)
        short = draw_ranking(candidates, parameters, 10, 7, start=start)
        assert long.order[:10].tolist() == short.order.tolist()
        assert long.propensity[:10] == pytest.approx(short.propensity)
        assert len(set(long.order.tolist())) == 40


def test_pages_of_one_seed_draw_with_numbers_of_their_own() -> None:
    candidates, parameters = policy_input(np.zeros(50)), PolicyParameters(epsilon=1.0)
    pages = [draw_ranking(candidates, parameters, 20, 7, start=start).order.tolist() for start in (0, 20)]
    assert pages[0] != pages[1]


def test_a_page_that_must_not_explore_tells_nothing_of_the_coin() -> None:
    parameters = PolicyParameters(epsilon=0.5, temperature=1.0)
    first = draw_ranking(policy_input([1.0, 0.0]), parameters, 1, 3)
    page = draw_ranking(
        policy_input([0.0, 2.0, 1.0]), parameters.greedy(), 2, 3, start=1, prefix=first.prefix
    )
    assert (page.order.tolist(), page.propensity.tolist(), page.explored) == ([1, 2], [1.0, 1.0], False)
    assert page.prefix == first.prefix


def test_a_uniform_item_may_be_any_and_the_rest_is_greedy() -> None:
    candidates = policy_input([4.0, 3.0, 2.0, 1.0], [0, 0, 1, 2])
    parameters = PolicyParameters(name="greedy", uniform_share=1.0, max_per_category=1)
    results = [draw_ranking(candidates, parameters, 2, seed) for seed in range(300)]
    orders = {tuple(r.order.tolist()): r for r in results}
    assert set(orders) == {(0, 2), (1, 2), (2, 0), (3, 0), (0, 3)}
    by_hand = {
        (0, 2): (0.1 / 4 + 0.9, 0.1 / 4 + 0.1 / 2 + 0.8),
        (0, 3): (0.1 / 4 + 0.9, 0.1 / 2),
        (1, 2): (0.1 / 4, 1),
    }
    for order, (first, second) in by_hand.items():
        both = [first, second if second == 1 else second / first]
        assert orders[order].propensity == pytest.approx(both), order
    assert all(not result.explored for result in results)


def test_a_list_that_began_without_exploration_goes_on_without() -> None:
    first = draw_ranking(policy_input([1.0, 0.0]), PolicyParameters(name="greedy"), 1, 3)
    page = draw_ranking(
        policy_input([0.0, 2.0, 1.0]), PolicyParameters(epsilon=1.0), 3, 3, start=1, prefix=first.prefix
    )
    assert (page.order.tolist(), page.propensity.tolist(), page.explored) == ([1, 2, 0], [1.0] * 3, False)


def test_caps_yield_when_only_capped_items_are_left() -> None:
    candidates = policy_input(np.arange(12.0), [0] * 6 + [1, 1, 1, 2, 2, 2])
    result = draw_ranking(candidates, PolicyParameters(name="greedy", max_per_category=2), 12, 0)
    categories = candidates.categories[result.order]
    assert np.bincount(categories[:6]).tolist() == [2, 2, 2]
    assert len(categories) == 12


def test_repeats_are_capped_while_there_are_others() -> None:
    candidates = policy_input([5.0, 4.0, 3.0, 2.0, 1.0], repeats=np.array([True, True, True, False, False]))
    capped = PolicyParameters(name="greedy", max_repeats=1)
    assert draw_ranking(candidates, capped, 3, 0).order.tolist() == [0, 3, 4]
    assert draw_ranking(candidates, capped, 5, 0).order.tolist() == [0, 3, 4, 1, 2]
    assert draw_ranking(candidates, PolicyParameters(name="greedy"), 3, 0).order.tolist() == [0, 1, 2]


def test_mmr_spreads_the_list() -> None:
    candidates = policy_input([1.0, 0.99, 0.9, 0.0], embeddings=UNIT)
    assert draw_ranking(candidates, PolicyParameters(name="greedy"), 2, 0).order.tolist() == [0, 1]
    assert draw_ranking(candidates, PolicyParameters(name="greedy", mmr=0.5), 2, 0).order.tolist() == [0, 2]


def test_pins_keep_their_positions_and_move_up_in_a_short_list() -> None:
    candidates = policy_input([4.0, 3.0, 2.0, 1.0], pins={1: 3, 9: 0})
    result = draw_ranking(candidates, PolicyParameters(name="greedy"), 10, 0)
    assert result.order.tolist() == [1, 3, 2, 0]
    assert result.kinds == ("exact", "pinned", "exact", "pinned")
    assert result.propensity.tolist() == [1.0] * 4


@settings(deadline=None)
@given(
    scores=st.lists(st.floats(-1e6, 1e6), min_size=0, max_size=30),
    epsilon=st.floats(0, 1),
    temperature=st.floats(1e-3, 100),
    seed=st.integers(0, 2**64 - 1),
    cap=st.integers(0, 3),
)
def test_whatever_the_scores_every_item_comes_once_with_a_propensity(
    scores, epsilon, temperature, seed, cap
) -> None:
    categories = [i % 4 - 1 for i in range(len(scores))]
    parameters = PolicyParameters(epsilon=epsilon, temperature=temperature, max_per_category=cap)
    result = draw_ranking(policy_input(scores, categories), parameters, 1_000, seed)
    assert sorted(result.order.tolist()) == list(range(len(scores)))
    assert ((result.propensity > 0) & (result.propensity <= 1)).all()


def test_an_unknown_policy_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="known: greedy, epsilon_plackett_luce"):
        PolicyParameters(name="thompson")
