"""Sets that are logs without requests: inside lists every row of the table is scored with the state held."""

import numpy as np
import pytest

from benchmarks.quality.baselines import tuned_trees
from benchmarks.quality.sets import night_baselines
from benchmarks.quality.sets.night import FittedBaseline, Night
from recsys.stages import Stages
from training.baselines.boosted_trees import TreeColumns
from training.baselines.design import design_of


@pytest.fixture(scope="module")
def night(lone_log, config, tmp_path_factory):
    """A night of the shop's log, each impression a request of its own."""
    return Night(lone_log, config, Stages(tmp_path_factory.mktemp("stages")))


def _reads_the_clock(_task, _night, _known):
    return FittedBaseline(predict=lambda rows: rows.encoded.state_at[rows.rows] / 1000, calibrate=False)


def test_baselines_read_the_state_as_each_list_began(night):
    rows = night.labelled(night.config.tasks[0], night.runs.plan.evaluate)
    found = night.fit(_reads_the_clock).test
    live, held = found["click"], found["list click"]
    np.testing.assert_array_equal(live, rows.encoded.shown_at[rows.rows] / 1000)
    in_list = rows.lists.group >= 0
    for number in np.unique(rows.lists.group[in_list]):
        own = rows.lists.group == number
        assert np.ptp(held[own]) == 0 <= live[own].min() - held[own][0]
    np.testing.assert_array_equal(held[~in_list], live[~in_list])
    assert (held < live).mean() > 0.5


def test_metrics_inside_lists_read_what_is_held(night):
    read = {m.key: m.output for m in night.test_measures()}
    assert read["click", "list_auc"] == "list click"
    assert read["click", "auc"] == "click"
    assert [m.output for m in night.validation_measures() if m.head == "click"] == ["list click"]


def test_the_trees_setting_is_the_one_that_orders_held_lists_best(night, monkeypatch):
    """Not the one whose AUC of all rows is best, by which each number of trees is found."""
    grown, grow = [], tuned_trees.grow

    def kept(*args, **kwargs):
        grown.append(grow(*args, **kwargs))
        return grown[-1]

    monkeypatch.setattr(tuned_trees, "grow", kept)
    monkeypatch.setattr(night_baselines, "TRIALS", 2)
    task = next(t for t in night.config.tasks if t.name == "purchase")
    known = night.labelled(task, night.runs.plan.calibrate)
    fitted = night_baselines.fit_trees(task, night, known)
    columns = TreeColumns.of(night.sample(task).design)

    def list_auc(predict):
        return known.measure("list_auc").value(known.outputs(predict))

    def predict_by(trees):
        return lambda rows: trees.predict(columns.features(design_of(rows.encoded, night.encoder, rows.rows)))

    values = [list_auc(predict_by(trees)) for trees in grown]
    assert len(set(values)) > 1
    assert list_auc(fitted.predict) == max(values)
    assert np.argmax(values) != np.argmax([trees.scores["auc"] for trees in grown])


def test_a_run_has_both_before_and_after_calibration(night):
    run = night.train(night.config, 0)
    for outputs, name in ((run.validation, "click"), (run.test, "click"), (run.test, "raw click")):
        held = outputs[name.replace("click", "list click")]
        assert held.shape == outputs[name].shape
        assert not np.allclose(held, outputs[name], rtol=1e-3)


def test_rows_whose_state_is_never_another_one_are_predicted_once(shop_log, config, tmp_path):
    """The shop's requests: each has one instant."""
    night, asked = Night(shop_log, config, Stages(tmp_path)), []

    def counted(_task, _night, _known):
        def predict(rows):
            asked.append(rows)
            return np.full(rows.rows.size, 0.5)

        return FittedBaseline(predict=predict, calibrate=False)

    found = night.fit(counted)
    assert len(asked) == 2 * len(config.tasks)
    assert all(found.test[t.name] is found.test[f"list {t.name}"] for t in config.tasks)
