import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ConfigError
from serving.policy import PolicyInput, PolicyParameters, draw_ranking

NUM_DRAWS = 6_000
ANGLES = np.array([0.0, 0.2, 1.5, 1.7])
UNIT = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(np.float32)


def policy_input(scores, categories=None, **more) -> PolicyInput:
    categories = [-1] * len(scores) if categories is None else categories
    return PolicyInput(scores=np.array(scores, dtype=float), categories=np.array(categories), **more)


CASES = {
    "plain": (policy_input([1.0, 0.5, 0.0, -1.0]), PolicyParameters(epsilon=0.4, temperature=1.0)),
    "always explores": (policy_input([1.0, 0.5, 0.0, -1.0]), PolicyParameters(epsilon=1.0, temperature=0.7)),
    "ties": (policy_input([0.0, 0.0, 0.0, 0.0]), PolicyParameters(epsilon=0.5, temperature=1.0)),
    "cap": (
        policy_input([1.0, 0.9, 0.8, 0.0], [7, 7, 7, 8]),
        PolicyParameters(epsilon=0.6, temperature=0.5, max_per_category=1),
    ),
    "mmr": (
        policy_input([1.0, 0.9, 0.5, 0.4], embeddings=UNIT),
        PolicyParameters(epsilon=0.6, temperature=0.5, mmr=0.8),
    ),
    "pin": (policy_input([1.0, 0.9, 0.5, 0.4], pins={1: 3}), PolicyParameters(epsilon=0.6, temperature=0.5)),
    "pin, cap and mmr": (
        policy_input([1.0, 0.9, 0.5, 0.4], [1, 1, 2, 2], embeddings=UNIT, pins={0: 2}),
        PolicyParameters(epsilon=0.7, temperature=0.5, mmr=0.5, max_per_category=1),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_logged_propensities_are_the_frequencies_of_lists(case) -> None:
    """The product of a list's conditional propensities is the probability of that list."""
    candidates, parameters = CASES[case]
    counts: dict[tuple[int, ...], int] = {}
    logged: dict[tuple[int, ...], float] = {}
    for seed in range(NUM_DRAWS):
        result = draw_ranking(candidates, parameters, 3, seed)
        prefix = tuple(result.order.tolist())
        counts[prefix] = counts.get(prefix, 0) + 1
        logged[prefix] = float(np.prod(result.propensity))
    for prefix, count in counts.items():
        expected = logged[prefix] * NUM_DRAWS
        assert abs(count - expected) < 5 * np.sqrt(expected) + 3, (prefix, count, expected)
    # Lists that never came up are rare: what did come up carries almost all of the probability.
    assert sum(logged.values()) == pytest.approx(1.0, abs=0.02)


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


def test_a_longer_draw_begins_with_the_shorter_one() -> None:
    candidates = policy_input(np.linspace(0, 1, 50), np.arange(50) % 5)
    parameters = PolicyParameters(epsilon=1.0, max_per_category=3)
    long = draw_ranking(candidates, parameters, 40, 7, page_starts=(10, 20, 30))
    short = draw_ranking(candidates, parameters, 10, 7)
    assert long.order[:10].tolist() == short.order.tolist()
    assert long.propensity[:10] == pytest.approx(short.propensity)
    assert len(set(long.order.tolist())) == 40


def test_caps_apply_per_page_and_yield_when_only_capped_items_are_left() -> None:
    candidates = policy_input(np.arange(12.0), [0] * 6 + [1, 1, 1, 2, 2, 2])
    result = draw_ranking(
        candidates, PolicyParameters(name="greedy", max_per_category=2), 12, 0, page_starts=(6,)
    )
    first, second = candidates.categories[result.order[:6]], candidates.categories[result.order[6:]]
    assert np.bincount(first).tolist() == [2, 2, 2]
    assert sorted(second.tolist()) == [0, 0, 0, 0, 1, 2]


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
