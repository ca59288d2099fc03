"""Bootstrap: the value it reports, the pairing, the coverage of its intervals, and the rule for NaN."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import ConfigError, DataError
from recsys.metrics import list_auc, pointwise
from recsys.metrics.columns import Lists
from recsys.metrics.effect import Effect
from recsys.metrics.inference import (
    paired_bootstrap,
    paired_bootstrap_means,
    paired_bootstrap_means_seeds,
    paired_bootstrap_seeds,
)
from recsys.metrics.metric import RowMetric
from recsys.metrics.table import METRICS, pooled_metric

POOLED = [name for name, m in METRICS.items() if isinstance(m, RowMetric) and m.pooled is not None]


def seeded(seed=0):
    return np.random.default_rng(seed)


def shop(generator, num_users=300, rows_per_user=6):
    """Draw user, label, a good prediction, a worse one on a coarse grid, and a weight."""
    num_rows = num_users * rows_per_user
    user = generator.permutation(np.repeat(np.arange(num_users), rows_per_user))
    good = generator.uniform(0.05, 0.95, num_rows)
    label = (generator.random(num_rows) < good).astype(int)
    worse = np.clip(good + generator.normal(0, 0.3, num_rows), 0.01, 0.99).round(2)
    return user, label, good, worse, generator.uniform(0.5, 2, num_rows)


def on_all_rows(metric, label, prediction, user, weight):
    if METRICS[metric].in_lists:
        return getattr(list_auc, metric)(label, prediction, Lists.unplaced(user), weight)
    return getattr(pointwise, metric)(label, prediction, weight)


@pytest.mark.parametrize("metric", POOLED)
def test_values_are_those_of_pointwise(metric):
    user, label, good, worse, weight = shop(seeded())
    effect = paired_bootstrap(
        metric,
        label,
        worse,
        good,
        user,
        generator=seeded(),
        weight=weight,
        lists=Lists.unplaced(user),
        replicates=100,
    )
    assert effect.a == pytest.approx(on_all_rows(metric, label, worse, user, weight), abs=1e-12)
    assert effect.b == pytest.approx(on_all_rows(metric, label, good, user, weight), abs=1e-12)
    assert effect.difference == effect.b - effect.a
    assert effect.ci_low < effect.difference < effect.ci_high
    assert effect.verdict == "better"
    assert effect.p_value < 0.05
    assert (effect.users, effect.rows, effect.replicates) == (300, 1800, 100)


@pytest.mark.parametrize("metric", POOLED)
def test_swapping_the_systems_flips_everything(metric):
    user, label, good, worse, _ = shop(seeded())
    how = {"lists": Lists.unplaced(user), "replicates": 99}
    one = paired_bootstrap(metric, label, worse, good, user, generator=seeded(), **how)
    two = paired_bootstrap(metric, label, good, worse, user, generator=seeded(), **how)
    assert (two.ci_low, two.ci_high) == pytest.approx((-one.ci_high, -one.ci_low))
    assert (two.difference, two.p_value) == (-one.difference, one.p_value)
    assert two.verdict == "worse"


@pytest.mark.parametrize("metric", POOLED)
def test_a_draw_is_the_metric_on_the_drawn_users_rows(metric):
    user, label, _, worse, weight = shop(seeded(), num_users=20)
    pooled = pooled_metric(metric)
    drawn = np.bincount(seeded(1).integers(20, size=20), minlength=20)
    found = pooled.statistic(pooled.check(label, worse, weight, Lists.unplaced(user)), user)(
        drawn.astype(float)
    )
    rows = np.concatenate([np.flatnonzero(user == u) for u in range(20) for _ in range(drawn[u])])
    expected = on_all_rows(metric, label[rows], worse[rows], user[rows], weight[rows])
    assert found == pytest.approx(expected, abs=1e-12)


def test_the_same_predictions_show_no_evidence():
    user, label, good, _, _ = shop(seeded())
    effect = paired_bootstrap("auc", label, good, 2 * good - 5, user, generator=seeded(), replicates=50)
    assert (effect.difference, effect.ci_low, effect.ci_high, effect.p_value) == (0, 0, 0, 1)
    assert effect.verdict == "no evidence"


def test_users_may_be_strings():
    user, label, good, worse, _ = shop(seeded(), num_users=9)
    named = np.array([f"user-{u}" for u in user])
    one = paired_bootstrap("mae", label, good, worse, user, generator=seeded(), replicates=20)
    assert paired_bootstrap("mae", label, good, worse, named, generator=seeded(), replicates=20) == one


def test_equal_generators_give_equal_effects():
    a, b = seeded(1).normal(size=(2, 50))
    one = paired_bootstrap_means("ndcg", a, b, generator=seeded(2), replicates=50)
    assert paired_bootstrap_means("ndcg", a, b, generator=seeded(2), replicates=50) == one
    assert paired_bootstrap_means("ndcg", a, b, generator=seeded(3), replicates=50) != one


def test_pairing_sees_a_small_difference_between_noisy_users():
    a = seeded(1).normal(0, 10, size=200)
    effect = paired_bootstrap_means("ndcg", a, a + 0.1, generator=seeded(), replicates=100)
    assert (effect.ci_low, effect.ci_high) == pytest.approx((0.1, 0.1))
    assert effect.verdict == "better"
    assert effect.p_value == pytest.approx(2 / 101)


def test_interval_of_a_mean_is_the_normal_one():
    gains = seeded(1).normal(3, 2, size=2000)
    effect = paired_bootstrap_means("ndcg", np.zeros(2000), gains, generator=seeded(), replicates=2000)
    half = 1.96 * gains.std() / math.sqrt(gains.size)
    assert effect.difference == pytest.approx(gains.mean())
    expected = (gains.mean() - half, gains.mean() + half)
    assert (effect.ci_low, effect.ci_high) == pytest.approx(expected, abs=half / 5)


def test_a_wider_level_gives_a_wider_interval():
    user, label, good, worse, _ = shop(seeded())
    wide, narrow = (
        paired_bootstrap("auc", label, worse, good, user, generator=seeded(), replicates=200, level=level)
        for level in (0.99, 0.5)
    )
    assert wide.ci_low < narrow.ci_low < narrow.difference < narrow.ci_high < wide.ci_high
    assert (wide.users, wide.rows, wide.level) == (300, 1800, 0.99)


def test_weighted_mean_over_users_by_hand():
    effect = paired_bootstrap_means("ndcg", [1, 0], [0, 0], weight=[3, 1], generator=seeded(), replicates=5)
    assert (effect.a, effect.b, effect.difference) == (0.75, 0, -0.75)


def test_users_without_a_value_for_both_are_left_out():
    a, b = [1, np.nan, 3, 5], [2, 2, np.nan, 6]
    effect = paired_bootstrap_means("ndcg", a, b, generator=seeded(), replicates=50)
    assert (effect.a, effect.b, effect.users, effect.rows) == (3, 4, 2, 2)


def two_guesses(label):
    generator = seeded(1)
    a, b = generator.random((2, label.size))
    return paired_bootstrap("auc", label, a, b, np.arange(20), generator=generator, replicates=400)


def test_draws_without_both_classes_are_left_out_and_counted():
    # The one positive user of 20 is missing from (19/20)^20 = 36 % of the draws: too many for an interval.
    effect = two_guesses(np.eye(1, 20)[0])
    assert 220 < effect.replicates < 300
    assert (effect.ci_low, effect.ci_high, effect.p_value) == (None, None, None)


def test_few_undefined_draws_still_give_an_interval():
    # Four positive users of 20 are all missing from (16/20)^20 = 1 % of the draws.
    effect = two_guesses((np.arange(20) < 4).astype(int))
    assert 380 < effect.replicates < 400
    assert effect.ci_low < effect.difference < effect.ci_high


@pytest.mark.parametrize("metric", ["auc", "list_auc", "normalised_entropy"])
def test_a_metric_not_defined_gives_no_evidence(metric):
    predictions, lists = ([0.1, 0.2, 0.3], [0.3, 0.2, 0.1]), Lists.unplaced([1, 1, 1])
    effect = paired_bootstrap(
        metric, [0, 0, 0], *predictions, [1, 2, 3], generator=seeded(), lists=lists, replicates=20
    )
    assert effect.difference is None
    assert effect.ci_low is None
    assert effect.p_value is None
    assert (effect.replicates, effect.verdict) == (0, "no evidence")


def test_one_user_gives_no_interval():
    effect = paired_bootstrap_means("ndcg", [1], [2], generator=seeded(), replicates=20)
    assert effect.difference == 1
    assert effect.ci_low is None
    assert effect.verdict == "no evidence"


@pytest.mark.parametrize(
    ("ci_low", "ci_high", "higher_is_better", "verdict"),
    [
        (0.1, 0.2, True, "better"),
        (0.1, 0.2, False, "worse"),
        (-0.2, -0.1, True, "worse"),
        (-0.2, -0.1, False, "better"),
        (-0.1, 0.1, True, "no evidence"),
        (0.0, 0.1, True, "no evidence"),
        (0.1, 0.2, None, None),
        (math.nan, math.nan, False, "no evidence"),
    ],
)
def test_verdict(ci_low, ci_high, higher_is_better, verdict):
    effect = Effect(
        metric="m",
        a=0,
        b=0,
        difference=0,
        ci_low=ci_low,
        ci_high=ci_high,
        p_value=1,
        users=9,
        rows=9,
        replicates=9,
        higher_is_better=higher_is_better,
    )
    assert effect.verdict == verdict
    said = effect.model_dump_json()
    assert json.loads(said)["verdict"] == verdict
    assert Effect.model_validate_json(said) == effect


def test_json_cannot_state_another_verdict_than_the_interval():
    effect = paired_bootstrap_means("ndcg", [1, 2, 3], [2, 3, 4], generator=seeded(), replicates=20)
    said = json.loads(effect.model_dump_json()) | {"verdict": "worse"}
    assert Effect.model_validate(said).verdict == "better"


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=2, max_size=20), st.integers(0, 99))
def test_draws_stay_inside_the_range_of_the_users(pairs, seed):
    a, b = np.array(pairs).T
    effect = paired_bootstrap_means("ndcg", a, b, generator=seeded(seed), replicates=20)
    assert (b - a).min() - 1e-9 <= effect.ci_low <= effect.ci_high <= (b - a).max() + 1e-9
    assert 0 < effect.p_value <= 1


def covered(trial):
    hits = [effect.ci_low <= truth <= effect.ci_high for effect, truth in map(trial, range(200))]
    return np.mean(hits)


def test_intervals_of_a_mean_cover_the_true_difference():
    def trial(seed):
        generator = seeded(seed)
        taste = generator.exponential(size=60)
        a, b = (taste + generator.exponential(size=60) + shift for shift in (0, 0.3))
        return paired_bootstrap_means("ndcg", a, b, generator=generator, replicates=150), 0.3

    assert 0.90 <= covered(trial) <= 0.99


def test_intervals_of_auc_cover_the_true_difference_when_a_users_rows_agree():
    # score = separation * label + noise, noise standard normal of which most is shared by a user's rows of a
    # class: the true AUC is Phi(separation / sqrt(2)), and drawing rows, not users, covers it far too rarely.
    user = np.repeat(np.arange(60), 8)
    label = np.tile([0, 0, 0, 0, 1, 1, 1, 1], 60)
    truth = 0.5 * (math.erf(1.2 / 2) - math.erf(0.8 / 2))

    def trial(seed):
        generator = seeded(seed)

        def score(separation):
            shared = generator.normal(0, math.sqrt(0.8), (60, 2))[user, label]
            return separation * label + shared + generator.normal(0, math.sqrt(0.2), user.size)

        a, b = score(0.8), score(1.2)
        return paired_bootstrap("auc", label, a, b, user, generator=generator, replicates=150), truth

    assert 0.90 <= covered(trial) <= 0.99


def test_auc_is_sorted_once_a_system_not_once_a_draw(monkeypatch):
    user, label, good, worse, _ = shop(seeded())
    sorted_rows, argsort = [], np.argsort
    monkeypatch.setattr(np, "argsort", lambda a, **how: (sorted_rows.append(len(a)), argsort(a, **how))[1])
    paired_bootstrap("auc", label, worse, good, user, generator=seeded(), replicates=50)
    assert sorted_rows.count(label.size) == 2


def test_unusable_requests_are_refused():
    with pytest.raises(ConfigError, match=r"metric 'ndcg' .* \['auc', 'brier', 'list_auc'"):
        paired_bootstrap("ndcg", [0, 1], [0, 1], [0, 1], [1, 2], generator=seeded())
    with pytest.raises(ConfigError, match="replicates is 0"):
        paired_bootstrap_means("ndcg", [0, 1], [0, 1], generator=seeded(), replicates=0)
    with pytest.raises(ConfigError, match="level 95"):
        paired_bootstrap_means("ndcg", [0, 1], [0, 1], generator=seeded(), level=95)
    with pytest.raises(DataError, match="user has shape"):
        paired_bootstrap("auc", [0, 1], [0, 1], [0, 1], [1], generator=seeded())
    with pytest.raises(DataError, match="none of 2 users"):
        paired_bootstrap_means("ndcg", [0, np.nan], [np.nan, 1], generator=seeded())
    with pytest.raises(DataError, match="per-user values have shapes"):
        paired_bootstrap_means("ndcg", [0, 1], [1], generator=seeded())


def test_over_seeds_the_value_is_the_mean_of_the_seeds():
    user, label, good, worse, weight = shop(seeded())
    a, b = [worse, good, worse], [good, good, good]
    effect = paired_bootstrap_seeds(
        "brier", label, a, b, user, generator=seeded(), weight=weight, replicates=200
    )
    one, two = (pointwise.brier(label, p, weight) for p in (worse, good))
    assert effect.a == pytest.approx((2 * one + two) / 3, abs=1e-12)
    assert effect.b == pytest.approx(two, abs=1e-12)
    assert effect.difference == pytest.approx(effect.b - effect.a)
    assert effect.ci_low < effect.difference < effect.ci_high
    assert (effect.users, effect.rows, effect.higher_is_better) == (300, 1800, False)


def test_equal_seeds_leave_the_users_alone_to_vary():
    user, label, good, worse, _ = shop(seeded())
    over_users = paired_bootstrap("auc", label, worse, good, user, generator=seeded(), replicates=100)
    over_both = paired_bootstrap_seeds(
        "auc", label, [worse] * 4, [good] * 4, user, generator=seeded(), replicates=100
    )
    for name in ("a", "b", "difference", "ci_low", "ci_high"):
        assert getattr(over_both, name) == pytest.approx(getattr(over_users, name), abs=1e-12)


def test_means_of_seeds_are_compared_as_rows_of_one_each_are():
    """A mean of values [U] is one less the MAE from 1: the same draws, of users and of seeds."""
    a, b = seeded(1).random((2, 3, 40))
    means = paired_bootstrap_means_seeds("ndcg", a, b, generator=seeded(), replicates=50)
    rows = paired_bootstrap_seeds("mae", np.ones(40), a, b, np.arange(40), generator=seeded(), replicates=50)
    assert (means.a, means.b) == pytest.approx((a.mean(), b.mean()))
    assert (means.ci_low, means.ci_high) == pytest.approx((-rows.ci_high, -rows.ci_low))
    assert (means.users, means.higher_is_better) == (40, True)


@pytest.mark.parametrize("seeds", [(1, 1), (2, 3)])
def test_means_of_too_few_or_unequal_seeds_are_refused(seeds):
    a, b = (np.ones((num, 9)) for num in seeds)
    with pytest.raises(ConfigError, match="as many of both"):
        paired_bootstrap_means_seeds("ndcg", a, b, generator=seeded())


def test_seeds_that_differ_widen_the_interval():
    user, label, good, worse, _ = shop(seeded())
    alike = paired_bootstrap_seeds(
        "auc", label, [worse] * 4, [good] * 4, user, generator=seeded(), replicates=200
    )
    apart = paired_bootstrap_seeds(
        "auc", label, [worse] * 4, [good, worse, good, worse], user, generator=seeded(), replicates=200
    )
    assert apart.ci_high - apart.ci_low > 1.5 * (alike.ci_high - alike.ci_low)
    assert apart.verdict == "no evidence", "half of the seeds gained nothing"


def test_intervals_over_seeds_cover_a_difference_of_nothing():
    """Five seeds a side, all drawn from one law and the same for every user: 0 is inside as often as said."""
    generator, inside = seeded(3), 0
    user = np.repeat(np.arange(40), 3)
    label = np.zeros(user.size)
    for _ in range(200):
        a, b = (
            [0.5 + shift + generator.normal(0, 0.01, user.size) for shift in generator.normal(0, 0.05, 5)]
            for _ in range(2)
        )
        effect = paired_bootstrap_seeds("mae", label, a, b, user, generator=generator, replicates=100)
        inside += effect.ci_low <= 0 <= effect.ci_high
    assert 0.8 * 200 < inside < 0.98 * 200


@pytest.mark.parametrize(("num_a", "num_b"), [(1, 1), (3, 2)])
def test_seeds_come_in_pairs_of_at_least_two(num_a, num_b):
    user, label, good, _, _ = shop(seeded(), num_users=5)
    with pytest.raises(ConfigError, match=f"{num_a} and {num_b} seeds"):
        paired_bootstrap_seeds("auc", label, [good] * num_a, [good] * num_b, user, generator=seeded())
