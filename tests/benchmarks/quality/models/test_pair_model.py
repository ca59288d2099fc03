from dataclasses import replace

import numpy as np
import pytest

from benchmarks.quality.models.fitting import Budget
from benchmarks.quality.models.pair_data import Pairs, Sides, numbered, numbered_lists
from benchmarks.quality.models.pair_model import PairSetting, pair_batch, train_pairs
from recsys.config import TrunkConfig
from recsys.metrics.pointwise import auc, rmse
from recsys.model.budget import num_parameters
from recsys.model.trunks import TRUNKS
from recsys.tasks import TaskSpec

USERS, ITEMS = 30, 20
TASKS = (
    TaskSpec(name="stars", feedback="s", head="regression", window="1d"),
    TaskSpec(name="bought", feedback="b", head="binary", window="1d"),
)
SHAPE = TrunkConfig(name="mmoe", num_experts=2, task_experts=1, hidden=(12, 6))
SETTING = PairSetting(
    tasks=TASKS,
    budget=Budget(epochs=6, learning_rate=5e-3, sparse_learning_rate=0.3, weight_decay=0, decay=0.9),
    dim=8,
    batch_size=32,
    row_dropout=0.0,
)


@pytest.fixture
def sides():
    users, start = numbered([np.arange(USERS)], 0)
    items, num_ids = numbered([np.arange(ITEMS)], start)
    return Sides(user_ids=users, item_ids=items, num_ids=num_ids)


@pytest.fixture
def pairs():
    """Stars of biases, of half the rows; bought follows the item alone, of the other half."""
    rng = np.random.default_rng(0)
    taste, worth = rng.normal(0, 0.7, USERS), rng.normal(0, 0.7, ITEMS)
    user, item = (found.ravel() for found in np.meshgrid(np.arange(USERS), np.arange(ITEMS)))
    stars = (3 + taste[user] + worth[item]).clip(1, 5).astype(np.float32)
    bought = (worth[item] > 0).astype(np.float32)
    first = rng.random(user.size) < 0.5
    labels = {"stars": np.where(first, stars, np.nan), "bought": np.where(first, np.nan, bought)}
    return Pairs(user=user, item=item, labels={k: v.astype(np.float32) for k, v in labels.items()})


def test_each_head_learns_from_the_rows_it_is_observed_on(sides, pairs):
    model, epoch = train_pairs(sides, pairs, SHAPE, SETTING, 0, None)
    found = model.predict(pairs)
    stars, bought = pairs.labels["stars"], pairs.labels["bought"]
    assert epoch == SETTING.budget.epochs
    assert rmse(stars[~np.isnan(stars)], found["stars"][~np.isnan(stars)]) < 0.5
    assert auc(bought[~np.isnan(bought)], found["bought"][~np.isnan(bought)]) > 0.95
    assert found["stars"].min() >= 1
    assert found["stars"].max() <= 5


def test_the_same_seed_gives_the_same_model(sides, pairs):
    one, other = (train_pairs(sides, pairs, SHAPE, SETTING, 3, None)[0].predict(pairs) for _ in range(2))
    assert np.array_equal(one["stars"], other["stars"])


def test_the_epoch_kept_is_the_one_that_validation_likes_best(sides, pairs):
    said = iter([3.0, 1.0, 2.0, 4.0, 5.0, 6.0])
    assert train_pairs(sides, pairs, SHAPE, SETTING, 0, lambda model: next(said))[1] == 2


def test_a_second_training_ends_where_the_first_was_best(sides, pairs):
    """The rates are those of all epochs: the two models are one."""
    said = iter([3.0, 1.0, 2.0, 4.0, 5.0, 6.0])
    chosen, epoch = train_pairs(sides, pairs, SHAPE, SETTING, 0, lambda model: next(said))
    again, made = train_pairs(sides, pairs, SHAPE, SETTING, 0, None, stop_after=epoch)
    assert made == epoch == 2
    assert np.array_equal(chosen.predict(pairs)["stars"], again.predict(pairs)["stars"])


def test_every_trunk_is_of_one_size():
    shapes = SETTING.trunks(SHAPE)
    sizes = [num_parameters(shape, 3 * SETTING.dim, ["stars", "bought"]) for shape in shapes.values()]
    assert set(shapes) == set(TRUNKS)
    assert max(sizes) <= 1.1 * min(sizes)
    assert shapes["mmoe"] == SHAPE


def test_lists_share_a_number_per_value_and_have_one_for_none():
    found, end = numbered_lists([["b", "a"], ["a"], []], 2, 10)
    assert found.tolist() == [[12, 11], [11, 10], [10, 10]]
    assert end == 13


def _chosen(sides, propensity):
    """Nine of ten five-star rows are seen and one of ten one-star rows, all of one user and item."""
    stars = np.repeat(np.array([5.0, 1.0, np.nan], np.float32), [180, 20, 200])
    return Pairs(
        user=np.zeros(stars.size, np.int64),
        item=np.zeros(stars.size, np.int64),
        labels={"stars": stars},
        propensity=propensity,
    )


def test_known_propensities_undo_the_choice_of_what_is_rated(sides):
    known = np.repeat([0.9, 0.1, 0.5], [180, 20, 200])
    found = []
    for debias, propensity in ((None, None), ("ips", known)):
        task = TASKS[0].model_copy(update={"space": "observed", "debias": debias})
        rows = _chosen(sides, propensity)
        setting = replace(SETTING, tasks=(task,), batch_size=400, budget=replace(SETTING.budget, epochs=60))
        found.append(train_pairs(sides, rows, SHAPE, setting, 0, None)[0].predict(rows)["stars"][0])
    assert found == pytest.approx([4.6, 3.0], abs=0.15)


def test_known_propensities_leave_nothing_to_estimate_them(sides, pairs):
    task = TASKS[0].model_copy(update={"space": "observed", "debias": "ips"})
    setting = replace(SETTING, tasks=(task,), budget=replace(SETTING.budget, epochs=1))
    for propensity, estimating in ((None, 1), (np.full(pairs.size, 0.5), 0)):
        rows = replace(pairs, propensity=propensity)
        model, _ = train_pairs(sides, rows, SHAPE, setting, 0, None)
        assert len(model.ranker.observing) == estimating
        assert len(model.predict(pairs)["stars"]) == pairs.size


def test_an_unknown_propensity_is_estimated_and_moves_no_table(sides, pairs):
    task = TASKS[0].model_copy(update={"space": "observed", "debias": "ips"})
    setting = replace(SETTING, tasks=(task,))
    model, _ = train_pairs(sides, pairs, SHAPE, setting, 0, None)
    batch = pair_batch(sides, pairs)
    rows = {
        name: row.detach().clone().requires_grad_() for name, row in model.tables.lookup(batch.rows).items()
    }
    logits, _, _ = model.ranker(batch, rows)
    logits[task.observation].sum().backward()
    assert logits[task.observation].sigmoid().mean().item() == pytest.approx(0.5, abs=0.1)
    assert all(row.grad is None for row in rows.values())


def test_parts_keep_their_propensities(pairs):
    propensity = np.linspace(0.1, 0.9, pairs.size)
    one, other = replace(pairs, propensity=propensity).part(0.3)
    assert sorted([*one.propensity, *other.propensity]) == propensity.tolist()
