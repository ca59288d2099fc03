"""Every estimator against its closed form: all lists of a small world, weighed by their probability."""

import functools
import itertools

import numpy as np
import pytest

from recsys.errors import DataError
from recsys.offpolicy.estimators import Weights, estimator_terms
from recsys.offpolicy.logged import LoggedLists
from recsys.offpolicy.target import Predictions, TargetPolicy

CLIP = 1.1


def chance(prefix: tuple[int, ...], tilt: float) -> float:
    """Probability that the next item is 1: it depends on all items above."""
    return 1 / (1 + np.exp(-tilt * (0.7 - sum(prefix) + 0.2 * len(prefix))))


def reward(prefix: tuple[int, ...]) -> float:
    """What the last item of a prefix earns: it depends on the items above."""
    return (1.0 + prefix[-1] + 0.5 * sum(prefix)) / len(prefix)


def predicted(prefix: tuple[int, ...]) -> float:
    """A model that is wrong everywhere."""
    return 0.8 * prefix[-1] - 0.1 * len(prefix)


@functools.cache
def value_from(prefix: tuple[int, ...], k: int, tilt: float, of) -> float:
    if len(prefix) == k:
        return 0.0
    nexts = [(*prefix, 0), (*prefix, 1)]
    weight = (1 - chance(prefix, tilt), chance(prefix, tilt))
    return sum(w * (of(p) + value_from(p, k, tilt, of)) for w, p in zip(weight, nexts, strict=True))


def world(k: int, tilt: float = 0.4, other: float = -0.3, full: bool = True):
    lists = list(itertools.product((0, 1), repeat=k))

    def conditional(t):
        of = [[chance(x[:j], t) if x[j] else 1 - chance(x[:j], t) for j in range(k)] for x in lists]
        return np.array(of)

    logging, target = conditional(tilt), conditional(other)
    of = {}
    for size in range(k + 1):
        for prefix in itertools.product((0, 1), repeat=size):
            of[prefix] = value_from(prefix, k, other, predicted)
    shown = np.array([[predicted(x[: j + 1]) for j in range(k)] for x in lists])
    value = np.array([[of[x[:j]] for j in range(k + 1)] for x in lists])
    if full:
        model = Predictions.of_continuations(shown, value)
    else:
        ones = [[(1 - chance(x[:j], other), chance(x[:j], other)) for j in range(k)] for x in lists]
        both = [[(predicted((*x[:j], 0)), predicted((*x[:j], 1))) for j in range(k)] for x in lists]
        model = Predictions.of_places(shown, (np.array(ones) * both).sum(axis=2), value[:, 0])
    rewards = np.array([[reward(x[: j + 1]) for j in range(k)] for x in lists])
    logged = LoggedLists.of_lists(rewards, logging)
    truth = float(target.prod(axis=1) @ rewards.sum(axis=1))
    assert truth == pytest.approx(value_from((), k, other, reward))
    return logged, TargetPolicy.of(target, model), logging.prod(axis=1), truth


def expectations(logged, target, probability, apart=False):
    """Each estimator over infinitely many lists: its sums in proportion to how often a list is logged."""
    terms = estimator_terms(Weights.of(logged, target, CLIP), places_apart=apart)
    return {
        n: float(((probability @ t.numerator) / (probability @ t.denominator)).sum())
        for n, t in terms.items()
    }


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("k", [1, 2, 10])
def test_unbiased_estimators_give_the_targets_value(k, full) -> None:
    logged, target, probability, truth = world(k, full=full)
    found = expectations(logged, target, probability)
    for name in ("ips", "snips", "dr", "rips", "snrips", "cascade_dr"):
        assert found[name] == pytest.approx(truth, rel=1e-9), name
    assert found["dm"] == pytest.approx(value_from((), k, -0.3, predicted))


@pytest.mark.parametrize("k", [1, 2, 10])
def test_clipped_and_switch_have_the_bias_of_their_definition(k) -> None:
    logged, target, probability, truth = world(k)
    found = expectations(logged, target, probability)
    weight = (target.probability / logged.propensity).prod(axis=1)
    total, modelled = logged.reward.sum(axis=1), target.predictions.shown.sum(axis=1)
    assert found["clipped_ips"] == pytest.approx(probability @ (np.minimum(weight, CLIP) * total))
    assert found["clipped_ips"] < truth
    kept = probability * weight * (weight <= CLIP)
    assert found["switch_dr"] == pytest.approx(found["dm"] + kept @ (total - modelled))


def test_one_place_makes_list_and_slate_estimators_one() -> None:
    found = estimator_terms(Weights.of(*world(1)[:2], CLIP), places_apart=True)
    for a, b in (("ips", "rips"), ("ips", "iips"), ("snips", "snrips"), ("dr", "cascade_dr")):
        assert found[a].numerator == pytest.approx(found[b].numerator), (a, b)


def test_true_predictions_take_the_variance_away() -> None:
    logged, target, probability, truth = world(5)
    lists = itertools.product((0, 1), repeat=5)
    value = [[value_from(x[:j], 5, -0.3, reward) for j in range(6)] for x in lists]
    model = Predictions.of_continuations(logged.reward, value)
    terms = estimator_terms(
        Weights.of(logged, TargetPolicy.of(target.probability, model)), places_apart=False
    )
    assert terms["cascade_dr"].numerator[:, 0] == pytest.approx(np.full(32, truth))
    spread = {n: np.sqrt(probability @ (terms[n].numerator[:, 0] - truth) ** 2) for n in ("ips", "rips")}
    assert 0 < spread["rips"] < spread["ips"]


def test_iips_is_right_where_places_are_apart_and_absent_elsewhere() -> None:
    lists = list(itertools.product((0, 1), repeat=3))
    logging, target = np.array([0.3, 0.6, 0.8]), np.array([0.7, 0.5, 0.2])
    chances = [np.where(lists, p, 1 - p) for p in (logging, target)]
    rewards = np.array(lists) * [3.0, 2.0, 1.0]
    logged = LoggedLists.of_lists(rewards, chances[0])
    found = expectations(logged, TargetPolicy.of(chances[1]), chances[0].prod(axis=1), apart=True)
    assert found["iips"] == pytest.approx(target @ [3.0, 2.0, 1.0])
    one = estimator_terms(Weights.of(logged, TargetPolicy.of(chances[1])), places_apart=True)["iips"]
    assert one.numerator[-1, 0] == pytest.approx(3 * 0.7 / 0.3 + 2 * 0.5 / 0.6 + 0.2 / 0.8)
    assert "iips" not in expectations(logged, TargetPolicy.of(chances[1]), chances[0].prod(axis=1))
    assert "dr" not in found, "there is no model"


def test_what_was_not_drawn_weighs_one_and_earns_nothing() -> None:
    """A pinned second place, and a list of one place, change no value and no weight."""
    logged = LoggedLists(
        reward=np.array([[1.0, 0.0, 2.0], [4.0, 0.0, 0.0]]),
        propensity=np.array([[0.5, 1.0, 0.25], [0.5, 1.0, 1.0]]),
        drawn=np.array([[True, False, True], [True, False, False]]),
        unit=np.array([0, 1]),
    )
    target = TargetPolicy.of(np.array([[0.25, 0.3, 0.5], [0.5, 0.0, 0.0]]))
    weights = Weights.of(logged, target)
    assert weights.prefix.tolist() == [[0.5, 0.5, 1.0], [1.0, 1.0, 1.0]]
    terms = estimator_terms(weights, places_apart=False)
    assert terms["ips"].numerator[:, 0].tolist() == [3.0, 4.0]
    assert terms["rips"].numerator[:, 0].tolist() == [2.5, 4.0]
    snrips = terms["snrips"]
    by_place = snrips.numerator.sum(axis=0) / snrips.denominator.sum(axis=0)
    assert by_place == pytest.approx([(0.5 + 4.0) / 1.5, 2.0 * 0.5]), "half of the lists have a third place"


def test_shapes_and_numbers_that_cannot_be_are_named() -> None:
    with pytest.raises(DataError, match=r"propensity 0.0 of list 1, place 2 is outside \(0, 1\]"):
        LoggedLists.of_lists(np.zeros((2, 2)), [[1, 1], [1, 0]])
    logged = LoggedLists.of_lists([1.0, 0.0], [0.5, 0.5])
    with pytest.raises(DataError, match="outside"):
        Weights.of(logged, TargetPolicy.of([1.5, 0.0]))
    with pytest.raises(DataError, match=r"probability has shape \(3, 1\)"):
        Weights.of(logged, TargetPolicy.of([0.1, 0.2, 0.3]))
