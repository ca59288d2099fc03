"""A warm start under another config: by name, new parts fresh, nothing lost that both have, and said so."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
import torch

from features.fit import FitFrames, fit_encoder
from recsys.bundle import load_bundle
from recsys.model.layout import layouts
from recsys.model.trunks import TRUNKS
from training.build_model import build_model
from training.host_choice import HostChoice
from training.new_parts import NewInputs, NewParts
from training.predict import day_logits
from training.train import TrainedModel, begin_fit, train
from training.trainer.watcher import Watcher
from training.trainer.weights import canonical
from training.warm_start import Previous, carry_over, new_inputs

LIKE = {"name": "like", "feedback": "like", "head": "binary", "window": "1h"}
AGE = {"name": "age_band", "entity": "user", "kind": "categorical", "dim": 4}


@pytest.fixture(scope="module")
def bundle(bundle_folder):
    return load_bundle(bundle_folder)


@pytest.fixture
def tasks(config):
    return [t.model_dump(mode="json") for t in config.tasks]


@pytest.fixture
def features(config):
    return [f.model_dump(mode="json") for f in config.attributes]


@pytest.fixture
def warm(shop_chain, bundle):
    """Previous a model of a config from the bundle; its encoder is fitted on the fifth day."""

    def make(config, start=None):
        start = start or Previous.of(bundle, config)
        frames = FitFrames.read(shop_chain[4], [shop_chain[4]], config, shop_chain[3])
        state = fit_encoder(config, frames, start.state, 0)
        torch.manual_seed(0)
        ranker, tables = build_model(config, state)
        carried = carry_over(ranker, tables, state, config, start, None)
        return TrainedModel(ranker=ranker, tables=tables, state=state, log=None, carried=carried)

    return make


@pytest.fixture
def logits(shop_chain):
    """Predict the sixth day with a model."""
    return lambda made, config: day_logits(made, shop_chain, 5, config)[0]


@pytest.fixture
def before(warm, config, logits):
    return logits(warm(config), config)


def test_new_features_change_no_prediction_before_the_first_step(warm, make_config, features, logits, before):
    """A table and numbers, in the middle of the inputs: every matrix of a first layer changes."""
    config = make_config(feature=[AGE, *features], features={"window_days": [1, 3, 7, 28]})
    made = warm(config)
    assert made.ranker.num_trunk_in > warm(make_config()).ranker.num_trunk_in
    for task, values in logits(made, config).items():
        np.testing.assert_allclose(values, before[task], atol=1e-5, err_msg=task)
    assert "user_age_band" in made.carried.new_inputs
    assert "user_click_rate_3" in made.carried.new_inputs
    assert made.carried.dropped_inputs == ()
    assert made.carried.fresh == ("table user_age_band",)


def test_a_feature_that_goes_takes_its_columns_and_no_others(warm, make_config, features, bundle):
    made = warm(make_config(feature=features[:1]))
    assert made.carried.dropped_inputs == ("user_country",)
    assert made.carried.fresh == made.carried.new_inputs == ()
    old = bundle.weights["ranker.user_tower.0.0.weight"]
    width = next(
        d for name, _, d in Previous.of(bundle, make_config()).inputs.user_tables if name == "user_id"
    )
    kept = np.delete(old, np.arange(width, width + 4), axis=1)
    np.testing.assert_array_equal(made.ranker.user_tower[0][0].weight.detach().numpy(), kept)


def test_a_new_head_leaves_the_others_predictions_and_says_so(warm, make_config, tasks, logits, before):
    """Its aggregates are inputs too; its position column and gate lie among the others'."""
    config = make_config(task=[tasks[0], LIKE, *tasks[1:]])
    made = warm(config)
    found = logits(made, config)
    for task, values in before.items():
        np.testing.assert_allclose(found[task], values, atol=1e-5, err_msg=task)
    assert made.carried.new_heads == ("like",)
    assert made.carried.fresh == ()
    assert made.carried.sentence().startswith("new heads like; new inputs ")


@pytest.mark.parametrize("name", sorted(TRUNKS))
def test_every_trunk_takes_a_head_and_a_feature_and_gives_one_up(
    warm, make_config, tasks, features, logits, name
):
    """From the same trunk with other inputs and tasks; the heads that stay predict what they did."""
    shape = {"model": {"trunk": {"name": name, "hidden": [16, 8], "num_experts": 3, "task_experts": 1}}}
    small = make_config(**shape, task=tasks[:2])
    first = warm(small)
    start = _start_of(first, small)
    large = make_config(**shape, task=[LIKE, *tasks[:2]], feature=[AGE, *features])
    made = warm(large, start)
    found = logits(made, large)
    for task, values in logits(first, small).items():
        np.testing.assert_allclose(found[task], values, atol=1e-5, err_msg=task)
    assert [n for n in made.carried.fresh if not n.startswith("table")] == []
    back = warm(small, _start_of(made, large))
    assert back.carried.dropped_heads == ("like",)
    assert back.carried.fresh == ()
    for key, value in back.ranker.state_dict().items():
        assert torch.equal(value, torch.from_numpy(start.weights[f"ranker.{key}"])), key


@pytest.mark.parametrize("name", sorted(TRUNKS))
def test_layouts_are_of_parameters_that_are_there(warm, make_config, name):
    shape = {"trunk": {"name": name, "hidden": [16, 8], "num_experts": 3, "task_experts": 1}}
    config = make_config(model={**shape, "ensemble_size": 2})
    ranker = warm(config).ranker
    known = dict(ranker.named_parameters())
    for parameter, axes in layouts(ranker.inputs, ranker.specs, config.model).items():
        for dim, layout in axes.items():
            assert known[parameter].shape[dim] == sum(width for _, width in layout), parameter


def test_kinds_of_the_history_go_by_name(warm, make_config, bundle):
    old = bundle.weights["ranker.history.kind.weight"]
    kinds = Previous.of(bundle, make_config()).inputs.history_kinds
    assert [name for name, _ in kinds][:2] == ["click", "purchase"]
    made = warm(make_config(features={"history_kinds": ["purchase", "click", "rating"]}))
    new = made.ranker.history.kind.weight.detach().numpy()
    np.testing.assert_array_equal(new[[0, 2, 1, *range(3, len(old))]], old)
    assert made.carried.fresh == ()
    fewer = warm(make_config(features={"history_kinds": ["purchase"]}))
    np.testing.assert_array_equal(fewer.ranker.history.kind.weight.detach().numpy(), old[[0, 2]])


def test_a_kind_whose_values_have_another_range_starts_anew(warm, config, bundle):
    start = Previous.of(bundle, config)
    history = {kind: edges for kind, edges in start.state.history.items() if kind != "rating"}
    made = warm(config, dataclasses.replace(start, state=dataclasses.replace(start.state, history=history)))
    new, old = made.ranker.history.kind.weight.detach().numpy(), bundle.weights["ranker.history.kind.weight"]
    np.testing.assert_array_equal(new[:3], old[:3])
    assert not (new[3:] == old[3:]).all(axis=1).any()
    assert "rating" in made.carried.new_inputs


def _start_of(made, config):
    return Previous.same(made.weights(), made.ranker, made.state, config)


def test_a_head_of_another_kind_starts_afresh(warm, make_config, tasks, bundle):
    tasks[2] |= {"head": "ordinal", "step": 1.0}
    made = warm(make_config(task=tasks))
    assert made.carried.new_heads == ("rating",)
    fresh = made.ranker.heads.heads["rating"][0].weight.detach().numpy()
    assert not np.array_equal(fresh, bundle.weights["ranker.heads.heads.rating.0.weight"])


def test_a_number_that_is_read_in_another_form_starts_anew(warm, config, bundle):
    """What its column has learned is of another scale."""
    start = Previous.of(bundle, config)
    numbers = {name: found for name, found in start.state.numbers.items() if name != "item_price"}
    made = warm(config, dataclasses.replace(start, state=dataclasses.replace(start.state, numbers=numbers)))
    assert made.carried.new_inputs == ("item_price",)
    assert made.state.numbers["item_price"] != bundle.encoder.numbers["item_price"]
    assert (made.ranker.item_tower[0][0].weight == 0).all(dim=0).sum() == 1


def test_other_text_starts_from_nothing(warm, make_config, bundle):
    config = make_config(features={"text_dim": 4})
    made = warm(config)
    assert made.state.text.components.shape[1] == 4
    assert not made.ranker.project_text.weight.any()
    assert made.carried.new_inputs == ("item",)


def test_a_table_of_another_width_starts_fresh_and_the_rest_goes_on(warm, make_config, bundle):
    made = warm(make_config(features={"category_dim": 6}))
    assert made.carried.fresh == ("table category",)
    assert np.array_equal(
        made.weights()["table.user_id.weight"][:5], bundle.weights["table.user_id.weight"][:5]
    )


def test_a_promoted_user_starts_from_the_bucket(config, bundle, trained):
    old = trained.state.vocabularies["user_id"]
    grown = old.grow(pl.DataFrame({"id": ["brand new"], "count": [99]}), 1)
    state = dataclasses.replace(trained.state, vocabularies={**trained.state.vocabularies, "user_id": grown})
    ranker, tables = build_model(config, state)
    carry_over(ranker, tables, state, config, Previous.of(bundle, config), None)
    bucket = old.encode_one("brand new")
    assert 0 < bucket <= old.hash_buckets
    new = grown.encode_one("brand new")
    assert torch.equal(tables.weight["user_id"][new], tables.weight["user_id"][bucket])


@pytest.fixture
def learned(shop_chain, bundle):
    """Learn what came since the bundle on five days; give the weights before and after, and the carried."""

    def learn(config, **options):
        periods = {t.name: (0, 4) for t in config.tasks}
        start = Previous.of(bundle, config)
        first = begin_fit(shop_chain, periods, config, start, 1, config.tasks, HostChoice())
        before = canonical(first.ranker, first.tables)
        made = train(shop_chain, periods, config, start, 1, **options)
        return before, made.weights(), made

    return learn


def test_new_inputs_learn_older_days_and_nothing_else_moves(learned, make_config, features, bundle):
    config = make_config(feature=[AGE, *features], features={"window_days": [1, 3, 7, 28]})
    before, after, made = learned(config, new_inputs=True)
    moved = {name for name, value in after.items() if not np.array_equal(value, before[name])}
    assert {"table.user_age_band.weight", "table.user_age_band.state"} < moved
    name = "user_tower.0.0.weight"
    tower = f"ranker.{name}"
    old = {name for name in moved if name.startswith("table.") and "age_band" not in name}
    assert old == set()
    axis, places = made.carried.came.places[name]
    columns = np.flatnonzero((after[tower] != before[tower]).any(axis=0))
    assert axis == 1
    assert 0 < columns.size < before[tower].shape[1]
    assert set(columns.tolist()) <= set(places)
    names = [
        part
        for part, width in layouts(made.ranker.inputs, config.tasks, config.model)[name][1]
        for _ in range(width)
    ]
    assert {names[column] for column in columns} == {"row:user_age_band"}, "the days have no three-day counts"
    assert {names[place].split(":")[1] for place in places} < set(made.carried.new_inputs)
    assert {name for name in moved if after[name].ndim == 1 and name.startswith("ranker.")} == set()
    assert new_inputs(Previous.of(bundle, config), config) == made.carried.new_inputs


class Seen(Watcher):
    """Keeps a parameter as it is before each step."""

    def __init__(self, name):
        self.name, self.values = name, []

    def before_step(self, moment):
        self.values.append(dict(moment.learner.named_parameters())[self.name].detach().clone().numpy())


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_what_the_heads_know_stays_at_every_step_but_for_weight_decay_which_is_put_back(
    learned, make_config, features, decay
):
    config = make_config(feature=[AGE, *features], training={"weight_decay": decay})
    seen = Seen("user_tower.0.0.weight")
    before, after, made = learned(config, new_inputs=True, watchers=[seen])
    _, new = made.carried.came.places[seen.name]
    first, last = (np.delete(values, new, axis=1) for values in (seen.values[0], seen.values[-1]))
    assert np.array_equal(first, last) == (decay == 0.0)
    np.testing.assert_allclose(last, first, atol=0.01, err_msg="decay alone")
    assert not np.array_equal(seen.values[0][:, new], seen.values[-1][:, new])
    final = np.delete(after[f"ranker.{seen.name}"], new, axis=1)
    np.testing.assert_array_equal(final, np.delete(before[f"ranker.{seen.name}"], new, axis=1))


def test_a_new_head_and_new_inputs_learn_together(learned, make_config, features, tasks):
    once = {**LIKE, "feedback": "view"}
    config = make_config(task=[tasks[0], once, *tasks[1:]], feature=[AGE, *features])
    before, after, made = learned(config, alone=("like",), new_inputs=True)
    moved = {name for name, value in after.items() if not np.array_equal(value, before[name])}
    own = {f"ranker.{name}" for name in made.ranker.own_parameters("like")}
    assert own & moved
    assert "table.user_age_band.weight" in moved
    assert "table.item_id.weight" not in moved
    assert moved <= own | {f"ranker.{name}" for name in made.carried.came.places} | {
        "table.user_age_band.weight",
        "table.user_age_band.state",
        "ranker.position.weight",
    }
    position = before["ranker.position.weight"] != after["ranker.position.weight"]
    assert not position[:, [0, 2, 3]].any()


def test_ranks_and_replays_read_what_came_since_from_json():
    inputs = NewInputs(places={"user_tower.0.0.weight": (1, (3, 4))}, tables=("user_age_band",))
    for parts in (NewParts(), NewParts(heads=("like",)), NewParts(heads=("like",), inputs=inputs)):
        assert NewParts.of_json(json.loads(json.dumps(dataclasses.asdict(parts)))) == parts


def test_inputs_that_are_the_same_are_not_new(bundle, make_config, features):
    for config in (make_config(), make_config(feature=features[:1])):
        assert new_inputs(Previous.of(bundle, config), config) == ()
    moved = make_config(features={"text_dim": 5})
    assert new_inputs(Previous.of(bundle, moved), moved) == ("item",)
