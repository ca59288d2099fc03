"""learn: cold, warm and empty; what it learns is what it was told, and nothing after the night."""

import dataclasses

import numpy as np
import pytest
import torch

from features.build import build_snapshots
from features.days import Days
from features.definitions import define_features
from features.fit import FitFrames, fit_encoder
from features.text import embed_text
from recsys.bundle import load_bundle
from recsys.encoding import NumberStatistics
from recsys.stages import Stages
from training.build_model import build_model, ranker_inputs
from training.calibrate import with_item_terms
from training.crosses import cross_numbers
from training.host_choice import HostChoice
from training.predict import BundlePredictor, day_logits
from training.train import begin_fit, prepare, train
from training.warm_start import Previous


def _learn(chain, config, periods, previous=None, until=None, epochs=1):
    days = chain if until is None else chain.as_known_at(chain.end_of(until))
    if not isinstance(periods, dict):
        periods = {t.name: periods for t in config.tasks}
    start = None if previous is None else Previous.of(previous, config)
    return train(days, periods, config, start, epochs)


def _same(one, other):
    return [n for n, v in one.weights().items() if not np.array_equal(v, other.weights()[n])] == []


def test_learning_repeats_to_the_bit(shop_chain, config, trained):
    assert _same(trained, _learn(shop_chain, config, (0, 3)))


def test_later_days_in_the_chain_change_nothing(shop_log, shop_chain, config, tmp_path):
    """A night of the fourth day, with and without the days after it in the log."""
    alone = build_snapshots(shop_log, shop_chain[3].day, config, Stages(tmp_path))
    assert _same(_learn(alone, config, (0, 1)), _learn(Days.of(shop_chain[:4], config), config, (0, 1)))


def test_every_row_is_trained_once_per_epoch(shop_chain, config):
    rows = sum(s.manifest["rows"]["impressions"] for s in shop_chain[1:3])
    assert _learn(shop_chain, config, (1, 2), epochs=2).log.rows == 2 * rows


@pytest.mark.parametrize("in_files", [False, True])
def test_the_rates_of_drawn_negatives_are_learned_where_the_config_says_so(
    shop_chain, config, monkeypatch, tmp_path, in_files
):
    """This shop's log has no drawn negatives, so a rate is put beside every row of one user in three."""

    def thinned(snapshot, part, _rate):
        users = snapshot.table("examples", part, ["user_id"])["user_id"]
        return np.where(users.hash(0).to_numpy() % 3 == 0, 2.0, 0.0).astype(np.float32)

    for module in ("encoded_rows", "day_writer"):
        monkeypatch.setattr(f"training.data.{module}.drawn_rate", lambda _: 0.1)
        monkeypatch.setattr(f"training.data.{module}.log_thinned", thinned)
    odds = config.model_copy(update={"training": config.training.model_copy(update={"stream_odds": True})})
    periods = {t.name: (0, 1) for t in config.tasks}
    without, told = (
        train(shop_chain, periods, c, None, 1, folder=tmp_path / str(n) if in_files else None)
        for n, c in enumerate((config, odds))
    )
    assert _same(without, _learn(shop_chain, config, (0, 1)))
    assert not _same(without, told)


def test_an_items_text_is_embedded_once_a_training(shop_chain, config, monkeypatch):
    embedded = []

    def embed(model, texts):
        embedded.extend(texts)
        return embed_text(model, texts)

    monkeypatch.setattr("features.encode.embed_text", embed)
    periods = {task.name: (0, 1) for task in config.tasks}
    choice = HostChoice(precision="fp32")
    inputs = begin_fit(shop_chain, periods, config, None, 1, config.tasks, choice).inputs
    for i in (0, 1):
        inputs.read_day(i)
    assert embedded
    assert len(embedded) == len(set(embedded))


def test_crosses_are_standardised_as_the_last_days_examples_read_them(shop_chain, make_config):
    config = make_config(features={"cross_user_by": ["category"]})
    periods = {t.name: (0, 3) for t in config.tasks}
    prepared = prepare(shop_chain, periods, config)
    encoded = prepared.encoded[3]
    numbers = cross_numbers(encoded.crosses, encoded.user_row, encoded.item_row)
    nothing = (numbers == encoded.crosses[0].numbers[-1]).all(axis=1)
    assert 0.02 < nothing.mean() < 0.9, "some users meet a category for the first time"
    counted = numbers[:, :-1]  # the last one, how long ago, is missing where nothing was done
    np.testing.assert_allclose(counted.mean(axis=0), 0, atol=0.06)
    spread = counted.std(axis=0)
    assert (spread > 0.9).sum() > 20
    assert spread.max() < 1.01, "rare counts are cut, and spread less"


def test_crosses_of_a_first_day_are_neutral_until_there_are_some(shop_chain, make_config):
    config = make_config(features={"cross_user_by": ["category"]})
    frames = FitFrames.read(shop_chain[0], [shop_chain[0]], config)
    nobody = {group: table.clear() for group, table in frames.crosses.items()}
    state = fit_encoder(config, dataclasses.replace(frames, crosses=nobody), None, 0)
    (cross,) = define_features(config).crosses
    assert {state.numbers[f.name] for f in cross.numbers} == {NumberStatistics(prior=0.0, mean=0.0, std=1.0)}


def test_a_period_outside_a_tasks_range_teaches_it_nothing(shop_chain, config):
    """Rating learns no period: its head stays at its start although click learns."""
    config = config.model_copy(update={"training": config.training.model_copy(update={"weight_decay": 0.0})})
    periods = {"click": (1, 2), "purchase": (1, 2), "rating": (2, 1)}
    made = _learn(shop_chain, config, periods)
    torch.manual_seed(config.training.seed)
    start, _ = build_model(config, made.state)
    for (name, trained), (_, fresh) in zip(
        made.ranker.heads.heads["rating"].named_parameters(),
        start.heads.heads["rating"].named_parameters(),
        strict=True,
    ):
        assert torch.equal(trained, fresh), name
    click = zip(
        made.ranker.heads.heads["click"].parameters(), start.heads.heads["click"].parameters(), strict=True
    )
    assert any(not torch.equal(a, b) for a, b in click)


def test_labels_are_what_was_known_on_the_night(shop_chain, config):
    """As of the second day's end, the second day's ratings are all still open."""
    labels = shop_chain.as_known_at(shop_chain.end_of(1)).labels(1)
    assert labels["label_rating"].null_count() == labels.height
    assert not _same(_learn(shop_chain, config, (1, 1), until=1), _learn(shop_chain, config, (1, 1), until=3))


@pytest.fixture(scope="module")
def bundle(bundle_folder):
    return load_bundle(bundle_folder)


def test_a_warm_start_with_nothing_new_keeps_every_weight(shop_chain, config, bundle):
    made = _learn(shop_chain, config, (4, 3), previous=bundle)
    assert made.log.steps == 0
    for name, value in made.weights().items():
        np.testing.assert_array_equal(value, bundle.weights[name], err_msg=name)
    assert made.state.digest() == bundle.encoder.digest()
    assert made.state.numbers == bundle.encoder.numbers
    assert made.carried.sentence() == "everything carried over"


def test_a_warm_start_continues_from_the_bundle(shop_chain, config, bundle, trained):
    made = _learn(shop_chain, config, (4, 4), previous=bundle)
    cold = _learn(shop_chain, config, (4, 4))
    assert made.log.mean_losses(3)["click"] < cold.log.mean_losses(3)["click"]
    assert made.state.numbers == trained.state.numbers, "statistics are frozen for the lineage"
    assert made.state.history == trained.state.history
    old, new = trained.state.vocabularies["item_id"], made.state.vocabularies["item_id"]
    assert new.ids[: len(old.ids)] == old.ids
    assert new.size > old.size
    name = "table.item_id.weight"
    assert made.weights()[name].shape[0] == new.size
    assert made.weights()["table.item_id.state"][1:].max() > 0


def test_input_sizes_follow_the_features(config, trained):
    inputs = ranker_inputs(config, trained.state)
    assert inputs.item_tables[0] == ("item_id", "item_id", 8)
    assert inputs.user_tables[0] == ("user_id", "user_id", 6)
    assert inputs.num_history_kinds == 2 + len(trained.state.history["rating"]) + 1
    assert inputs.num_context_numbers == 4, "a counter per task, and how long ago"
    assert inputs.num_pair_numbers == len(define_features(config).crosses[0].numbers)


def test_a_bundle_predicts_what_its_weights_predicted(shop_chain, config, trained, bundle):
    """Writing, loading and predicting is the identity on logits, but for the term of the item."""
    predictor = BundlePredictor(bundle)
    encoded = predictor.encode_day(shop_chain, 4, config.tasks)
    written = predictor.logits(encoded)
    direct, rows = day_logits(trained, shop_chain, 4, config)
    direct = with_item_terms(direct, rows.items, bundle.manifest.calibration)
    for task in written:
        np.testing.assert_allclose(written[task], direct[task], atol=1e-6)
