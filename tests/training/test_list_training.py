"""Training with the order inside lists: the same from memory, files and several processes."""

from datetime import UTC, date, datetime

import numpy as np
import pytest

from features.build import build_snapshots
from recsys.bundle import load_bundle
from recsys.errors import ConfigError
from recsys.stages import Stages
from recsys.tasks import TaskSpec, check_tasks
from training.evaluation.list_groups import learned_lists
from training.host_choice import HostChoice
from training.incremental.learn import learn_closed
from training.train import prepare, train
from training.warm_start import Previous

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
def days(lone_log, config, tmp_path_factory):
    """The tiny shop without requests: a list is a user's day on one device, and rows have live states."""
    return build_snapshots(lone_log, date(2026, 1, 30), config, Stages(tmp_path_factory.mktemp("alone")))


@pytest.fixture(scope="module")
def learned(days, ordered):
    return _train(days, ordered)


def test_lists_are_of_a_user_a_day_and_a_context_where_there_are_no_requests(days, config, ordered):
    learned = {task.name: (0, 1) for task in ordered.tasks}
    assert learned_lists(days, learned, config) is None
    assert learned_lists(days, learned, ordered).columns == ("user_id", "context_device")
    encoded = prepare(days, dict.fromkeys(learned, (0, 1)), ordered).encoded
    assert any((rows.held.state_at < rows.state_at).any() for rows in encoded.values())


def test_lists_are_requests_where_the_log_has_them(shop_chain, ordered):
    columns = learned_lists(shop_chain, {task.name: (0, 1) for task in ordered.tasks}, ordered).columns
    assert set(columns) == {"request_id", "user_id"}


def _losses(trained, name):
    return [losses[name] for losses in trained.log.losses]


def test_the_weight_changes_what_is_learned_and_no_count(days, config, learned):
    plain = _train(days, config)
    assert learned.log.steps == plain.log.steps
    assert learned.log.rows == plain.log.rows, "rows that are there once more are not counted"
    assert np.mean(_losses(learned, "click")) > np.mean(_losses(plain, "click"))
    changed = [k for k, values in learned.weights().items() if not np.array_equal(values, plain.weights()[k])]
    assert any(key.startswith("table.") for key in changed)


def test_days_in_files_give_the_same_weights(days, ordered, learned, tmp_path):
    files = _train(days, ordered, folder=tmp_path)
    for name, values in learned.weights().items():
        np.testing.assert_array_equal(files.weights()[name], values, err_msg=name)


def test_days_prepared_without_lists_are_encoded_anew(days, config, ordered, learned):
    periods = {task.name: (0, 1) for task in config.tasks}
    for prepared in (prepare(days, periods, config), prepare(days, periods, ordered)):
        other = _train(days, ordered, prepared=prepared)
        assert other.log.losses == learned.log.losses


@pytest.mark.usefixtures("quick_ranks")
def test_two_processes_follow_the_curve_of_one(days, ordered, learned, tmp_path):
    two = _train(days, ordered, folder=tmp_path, choice=HostChoice(processes=2))
    assert two.log.rows == learned.log.rows
    for name in ("click", "purchase", "retrieval"):
        np.testing.assert_allclose(_losses(two, name), _losses(learned, name), rtol=TOLERANCE)


def test_an_update_during_the_day_learns_the_order_too(shop_chain, config, ordered, bundle_folder):
    since, until = (datetime(2026, 1, 30, hour, tzinfo=UTC) for hour in (0, 20))
    bundle = load_bundle(bundle_folder)
    plain, listed = (
        learn_closed(shop_chain, since, until, of, Previous.of(bundle, of)) for of in (config, ordered)
    )
    assert listed.log.rows == plain.log.rows
    # Both begin with the same weights and the same rows: only what is asked of them differs.
    assert _losses(listed, "click")[0] > 1.2 * _losses(plain, "click")[0]


@pytest.mark.parametrize("head", ["regression", "ordinal"])
def test_a_head_without_positives_is_refused(head):
    task = TaskSpec(name="stars", feedback="stars", head=head, window="1d", space="observed", list_weight=0.2)
    with pytest.raises(ConfigError, match=r"'stars': list_weight = 0.2 .* choose head = 'binary'"):
        check_tasks((task,))
