"""Training with the order inside lists: the same from memory, files and several processes."""

import numpy as np
import pytest

from recsys.errors import ConfigError
from recsys.tasks import TaskSpec, check_tasks
from training.host_choice import HostChoice
from training.train import prepare, train

TOLERANCE = 1e-4
"""Relative difference allowed of each loss of each step: sums are added in another order."""


@pytest.fixture(scope="module")
def ordered(config):
    """The small config, in which clicks and purchases learn the order, too."""
    tasks = tuple(
        task.model_copy(update={"list_weight": 0.5 if task.kind.probability else 0.0})
        for task in config.tasks
    )
    return config.model_copy(update={"tasks": tasks})


def _train(days, config, **options):
    return train(days, {task.name: (0, 1) for task in config.tasks}, config, None, 1, **options)


@pytest.fixture(scope="module")
def learned(shop_chain, ordered):
    return _train(shop_chain, ordered)


def _losses(trained, name):
    return [losses[name] for losses in trained.log.losses]


def test_the_weight_changes_what_is_learned_and_no_count(shop_chain, config, learned):
    plain = _train(shop_chain, config)
    assert learned.log.steps == plain.log.steps
    assert learned.log.rows == plain.log.rows, "rows that are there once more are not counted"
    assert np.mean(_losses(learned, "click")) > np.mean(_losses(plain, "click"))
    changed = [k for k, values in learned.weights().items() if not np.array_equal(values, plain.weights()[k])]
    assert any(key.startswith("table.") for key in changed)


def test_days_in_files_give_the_same_weights(shop_chain, ordered, learned, tmp_path):
    files = _train(shop_chain, ordered, folder=tmp_path)
    for name, values in learned.weights().items():
        np.testing.assert_array_equal(files.weights()[name], values, err_msg=name)


def test_days_prepared_without_lists_are_encoded_anew(shop_chain, config, ordered, learned):
    periods = {task.name: (0, 1) for task in config.tasks}
    for prepared in (prepare(shop_chain, periods, config), prepare(shop_chain, periods, ordered)):
        other = _train(shop_chain, ordered, prepared=prepared)
        assert other.log.losses == learned.log.losses


def test_two_processes_follow_the_curve_of_one(shop_chain, ordered, learned, tmp_path):
    two = _train(shop_chain, ordered, folder=tmp_path, choice=HostChoice(processes=2))
    assert two.log.rows == learned.log.rows
    for name in ("click", "purchase", "retrieval"):
        np.testing.assert_allclose(_losses(two, name), _losses(learned, name), rtol=TOLERANCE)


@pytest.mark.parametrize("head", ["regression", "ordinal"])
def test_a_head_without_positives_is_refused(head):
    task = TaskSpec(name="stars", feedback="stars", head=head, window="1d", space="observed", list_weight=0.2)
    with pytest.raises(ConfigError, match=r"'stars': list_weight = 0.2 .* choose head = 'binary'"):
        check_tasks((task,))
