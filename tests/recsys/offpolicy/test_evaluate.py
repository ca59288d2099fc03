"""Intervals, support and the stamp: a made log whose truth is known."""

import re

import numpy as np
import pytest

from recsys.errors import ConfigError, DataError
from recsys.offpolicy.estimators import Terms
from recsys.offpolicy.evaluate import BERNSTEIN, BOOTSTRAP, compare, evaluate
from recsys.offpolicy.intervals import UnitSums, bernstein_interval
from recsys.offpolicy.logged import LoggedLists
from recsys.offpolicy.propensities import propensity_table
from recsys.offpolicy.target import Predictions, TargetPolicy

LOGGING, TARGET, CLICK = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.3, 0.5]), np.array([0.1, 0.2, 0.4])
TRUTH = float(TARGET @ CLICK)


def log(size=4000, seed=0, logging=LOGGING):
    rng = np.random.default_rng(seed)
    item = rng.choice(3, size, p=logging)
    return item, LoggedLists.of_lists(rng.random(size) < CLICK[item], logging[item])


def value(logged, target, **more):
    return evaluate(logged, target, generator=np.random.default_rng(1), replicates=400, **more)


def test_a_log_that_speaks_of_the_target_is_trusted_and_right() -> None:
    item, logged = log()
    model = Predictions.of_one_place(0.5 - CLICK[item], np.full(item.size, TARGET @ (0.5 - CLICK)))
    found = value(logged, TargetPolicy.of(TARGET[item], model))
    assert (found.problems, found.interval, found.stamp) == ((), BOOTSTRAP, "")
    for name in ("ips", "snips", "dr", "cascade_dr"):
        one = found.estimates[name]
        assert one.low < TRUTH < one.high, name
        assert one.value == pytest.approx(TRUTH, abs=0.03)
    weight = (TARGET / LOGGING)[item]
    error = (weight * logged.reward[:, 0]).std() / np.sqrt(item.size)
    assert found.estimates["ips"].high - found.estimates["ips"].low == pytest.approx(3.92 * error, rel=0.1)
    assert found.estimates["dm"].value == pytest.approx(0.5 - TRUTH)
    support = found.support
    assert support.effective == pytest.approx(weight.sum() ** 2 / (weight**2).sum())
    assert support.max_weight == 5.0
    assert support.clip == pytest.approx(np.sqrt(4000))
    assert (support.clip_share, support.places_supported) == (0.0, 1)
    clicks = weight[logged.reward[:, 0] > 0]
    assert support.effective_positives == pytest.approx(clicks.sum() ** 2 / (clicks**2).sum())
    assert value(logged, TargetPolicy.of(TARGET[item]), clip=4.0).support.clip_share == np.mean(item == 2)


def test_too_little_behind_a_value_is_stamped_one_by_one() -> None:
    item, few = log(900)
    assert value(few, TargetPolicy.of(LOGGING[item])).problems == (
        "effective size 900 of 900 lists is below 1,000",
    )
    item, logged = log()
    rare = LoggedLists.of_lists(logged.reward * (np.arange(4000) < 300)[:, None], logged.propensity)
    assert "effective positives are fewer" in value(rare, TargetPolicy.of(LOGGING[item])).stamp
    blind = np.array([0.0, 0.6, 0.4])
    item, unseen = log(20_000, logging=blind)
    found = value(unseen, TargetPolicy.of(np.array([0.3, 0.3, 0.4])[item]))
    assert any("covers 70% of the target's lists" in problem for problem in found.problems)


def test_wrong_propensities_make_estimators_disagree() -> None:
    item, logged = log(20_000)
    model = Predictions.of_one_place(CLICK[item], np.full(item.size, TRUTH))
    wrong = LoggedLists.of_lists(logged.reward, np.array([0.6, 0.3, 0.08])[item])
    assert value(logged, TargetPolicy.of(TARGET[item], model)).trustworthy
    found = value(wrong, TargetPolicy.of(TARGET[item], model))
    assert found.stamp.count("disagree") == 1, "the pair that is furthest apart, and how many more"
    assert re.search(r" disagree: they differ by \S+ ± \S+; \d+ more pairs? do", found.stamp)


def test_few_positives_have_the_wider_interval() -> None:
    item, logged = log(300)
    found = value(logged, TargetPolicy.of(TARGET[item]))
    assert found.interval == BERNSTEIN
    ips = found.estimates["ips"]
    parts = (TARGET / LOGGING)[item] * logged.reward[:, 0]
    bound = np.log(4 / 0.05)
    half = np.sqrt(2 * parts.var(ddof=1) * bound / 300) + 7 * np.ptp(parts) * bound / (3 * 299)
    assert (ips.low, ips.high) == pytest.approx((ips.value - half, ips.value + half))
    assert np.isnan(bernstein_interval(UnitSums(np.ones((1, 1)), np.ones((1, 1))), 0.95)).all()


def test_a_target_that_was_never_shown_has_no_normalised_value() -> None:
    logged = LoggedLists.of_lists([1.0, 0.0], [0.5, 0.5])
    found = value(logged, TargetPolicy.of([0.0, 0.0]))
    assert found.estimates["ips"].value == 0.0
    assert found.estimates["snips"].value is None
    assert found.support.effective == 0


def test_lists_of_one_user_are_drawn_together() -> None:
    terms = Terms(np.array([[1.0], [2.0], [3.0]]), np.ones((3, 1)))
    sums = UnitSums.of(terms, np.array([0, 1, 0]), 2)
    assert sums.numerator.tolist() == [[4.0], [2.0]]
    assert sums.values(np.array([[2.0, 0.0], [1.0, 1.0]])).tolist() == [2.0, 2.0]
    assert sums.influence().mean() == pytest.approx(sums.value())


def test_each_place_has_its_own_support() -> None:
    """A target that repeats the logging policy at place 1 and is fixed below: one list in ten follows it."""
    rng = np.random.default_rng(2)
    follows = rng.random(5000) < 0.1
    logged = LoggedLists.of_lists(
        rng.random((5000, 2)) < 0.5, np.stack([np.ones(5000), np.where(follows, 0.1, 0.9)], 1)
    )
    target = TargetPolicy.of(np.stack([np.ones(5000), follows], 1))
    support = value(logged, target).support
    assert support.effective_by_place == pytest.approx((5000, follows.sum()))
    assert (support.effective, support.places_supported) == (follows.sum(), 1)
    first = value(logged.first(1), target.first(1))
    assert first.trustworthy
    assert first.estimates["ips"].value == logged.reward[:, 0].mean()


def test_two_policies_are_compared_on_the_same_draws() -> None:
    item, logged = log()
    found = compare(
        logged, TargetPolicy.of(LOGGING[item]), TargetPolicy.of(TARGET[item]), seed=3, replicates=400
    )
    ips = found.effects["ips"]
    assert ips.difference == pytest.approx(ips.b - ips.a)
    assert ips.verdict == "better"
    assert ips.ci_low < TRUTH - LOGGING @ CLICK < ips.ci_high
    assert found.problems == ()
    same = compare(
        logged, TargetPolicy.of(TARGET[item]), TargetPolicy.of(TARGET[item]), seed=3, replicates=50
    )
    assert same.effects["snips"].ci_low == same.effects["snips"].ci_high == 0.0


def test_predicted_propensities_are_held_against_what_was_shown() -> None:
    rng = np.random.default_rng(4)
    chance = rng.uniform(0, 0.5, 20_000)
    table = propensity_table(chance, rng.random(20_000) < chance)
    assert [row.events for row in table] == [2000] * 10
    assert max(abs(row.z) for row in table) < 4
    assert max(row.z for row in propensity_table(chance, rng.random(20_000) < 1.2 * chance)) > 4
    assert propensity_table([1.0, 1.0], [1.0, 0.0], 1)[0].z < -1e6
    with pytest.raises(DataError, match="outside"):
        propensity_table([1.2], [1.0])


def test_what_cannot_be_evaluated_is_refused() -> None:
    item, logged = log(10)
    with pytest.raises(ConfigError, match="replicates is 0"):
        evaluate(logged, TargetPolicy.of(TARGET[item]), generator=np.random.default_rng(0), replicates=0)
    pinned = LoggedLists(
        reward=np.zeros((1, 1)),
        propensity=np.ones((1, 1)),
        drawn=np.zeros((1, 1), bool),
        unit=np.zeros(1, int),
    )
    with pytest.raises(DataError, match="every place of the logged lists is pinned"):
        value(pinned, TargetPolicy.of([1.0]))
