"""Each head's calibrator; sampled negatives; the choice on later rows; an ordinal head to the end."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from scipy.special import expit, logit

from features.loading import Answering
from features.store import open_store
from recsys.bundle import load_bundle
from recsys.calibration import PlattParent, fit_isotonic_probability, fit_platt, is_fitted
from recsys.config import StoreConfig
from recsys.metrics.pointwise import log_loss
from recsys.model.scorer import Scorer, calibrate
from recsys.registry import Registry
from recsys.source_terms import NO_SOURCES
from recsys.tasks import TaskSpec
from training.calibrate import fit_calibration, with_item_terms
from training.data import scoring
from training.predict import BundlePredictor, ListModel, day_logits
from training.publish import publish, write_bundle
from training.runs import Runs
from training.train import train
from training.warm_start import Previous

CLICK = TaskSpec(name="click", feedback="click", head="binary", window="1h")
BUY = TaskSpec(name="buy", feedback="buy", head="binary", window="1h", parent="click")


def _rows(weight=None, shown_at=None, **labels):
    size = len(next(iter(labels.values())))
    return pl.DataFrame(
        {
            "weight": np.ones(size) if weight is None else weight,
            "shown_at": np.arange(size) if shown_at is None else shown_at,
            **{f"label_{name}": values for name, values in labels.items()},
        }
    )


def _chosen(**calibrators):
    return {"binary": "platt", "regression": "affine", "ordinal": "affine"} | calibrators


@pytest.mark.parametrize("labels", ["known", "not known"])
def test_an_uncalibrated_head_is_corrected_for_sampling_alone(labels):
    rng = np.random.default_rng(0)
    truth = rng.normal(-3, 1, size=200_000)
    click = (rng.random(truth.size) < expit(truth)) * 1.0
    kept = (click == 1) | (rng.random(truth.size) < 0.1)
    truth, click = truth[kept], click[kept]
    trained = truth - np.log(0.1)  # what a model of the kept rows finds
    weight = np.where(click == 1, 1.0, 10.0)
    label = click if labels == "known" else np.full(click.size, np.nan)
    if labels == "not known":  # the share of sampled rows is all that is known
        weight = np.full(click.size, 10.0)
    settings = _chosen(binary="none" if labels == "known" else "platt")
    found = fit_calibration([CLICK], {"click": trained}, _rows(weight=weight, click=label), settings)["click"]
    assert found.apply(trained) == pytest.approx(expit(truth), rel=1e-6)
    assert not is_fitted(found), "the gate must be able to tell"


@pytest.mark.parametrize(
    ("head", "kind", "made"),
    [
        ("binary", "platt", "platt"),
        ("binary", "platt_items", "platt"),  # nothing is known of items here
        ("binary", "isotonic", "isotonic"),
        ("binary", "none", "identity"),
        ("regression", "affine", "affine"),
        ("regression", "isotonic", "isotonic"),
        ("regression", "none", "identity"),
        ("ordinal", "affine", "affine"),
        ("ordinal", "isotonic", "isotonic"),
        ("ordinal", "none", "identity"),
    ],
)
def test_each_head_kind_has_its_own_setting(head, kind, made):
    task = TaskSpec(name="t", feedback="t", head=head, window="1h")
    rng = np.random.default_rng(0)
    score = rng.normal(size=500)
    logits = score[:, None] - np.linspace(-1, 1, 4) if head == "ordinal" else score
    label = (score > 0) * 1.0 if head == "binary" else np.clip(np.round(3 + score), 1, 5)
    found = fit_calibration([task], {"t": logits}, _rows(t=label), _chosen(**{head: kind}))["t"]
    assert found.kind == made
    prediction = calibrate({"t": logits.astype(np.float32)}, [task], {"t": found})["t"]
    assert prediction.shape == (500,)
    if kind != "none":
        assert prediction.mean() == pytest.approx(label.mean(), abs=0.02)


@pytest.mark.parametrize("kind", ["platt", "isotonic", "auto"])
def test_with_sampled_negatives_probabilities_are_those_of_the_real_stream(kind):
    """A model trained on a tenth of the negatives says ten times the odds; calibration's weights undo it."""
    rng = np.random.default_rng(0)
    truth = expit(rng.normal(-4, 1, 300_000))
    label = (rng.random(truth.size) < truth).astype(float)
    kept = (label == 1) | (rng.random(truth.size) < 0.1)
    shown = logit(truth) - np.log(0.1)
    assert expit(shown[kept]).mean() == pytest.approx(label[kept].mean(), rel=0.03), "honest on what was kept"
    rows = _rows(click=label[kept], weight=np.where(label == 1, 1.0, 10.0)[kept])
    fitted = fit_calibration([CLICK], {"click": shown[kept]}, rows, _chosen(binary=kind))
    prediction = calibrate({"click": shown}, [CLICK], fitted)["click"]
    assert prediction.mean() == pytest.approx(label.mean(), rel=0.03)
    for part in np.array_split(np.argsort(shown), 5):
        assert prediction[part].mean() == pytest.approx(truth[part].mean(), rel=0.12)


def _stream(shape, size=8000, seed=0):
    rng = np.random.default_rng(seed)
    score = rng.normal(size=size)
    return score, (rng.random(size) < shape(score)).astype(float)


def _steps(score):
    return np.where(score < 0.8, 0.1, 0.7)


def _logistic(score):
    return expit(0.7 * score - 1)


@pytest.mark.parametrize(("shape", "better"), [(_steps, "isotonic"), (_logistic, "platt")])
def test_auto_takes_what_is_better_on_later_rows_and_fits_it_on_all(shape, better):
    score, label = _stream(shape)
    rows = _rows(click=label)
    chosen = fit_calibration([CLICK], {"click": score}, rows, _chosen(binary="auto"))["click"]
    plain = fit_calibration([CLICK], {"click": score}, rows, _chosen(binary=better))["click"]
    assert chosen == plain


def test_auto_does_not_choose_on_the_rows_that_it_fitted():
    """On these, the knots of a never-falling map are always as good as a sigmoid or better."""
    score, label = _stream(_logistic)
    early = np.arange(8000) < 4000
    knots = fit_isotonic_probability(expit(score)[early], label[early])
    sigmoid = fit_platt(score[early], label[early])
    losses = [
        log_loss(label[early], p) for p in (knots.apply(expit(score)[early]), sigmoid.apply(score[early]))
    ]
    assert losses[0] < losses[1]
    found = fit_calibration([CLICK], {"click": score}, _rows(click=label), _chosen(binary="auto"))
    assert found["click"].kind == "platt"


def test_a_calibrator_is_fitted_on_every_known_row_and_on_no_other():
    score, label = _stream(_logistic)
    unknown = np.arange(8000) % 4 == 0
    hidden = (
        pl.Series(label)
        .to_frame("label_click")
        .with_columns(
            label_click=pl.when(~pl.Series(unknown)).then("label_click"), weight=1.0, shown_at=np.arange(8000)
        )
    )
    fitted = fit_calibration([CLICK], {"click": score}, hidden, _chosen(binary="platt"))["click"]
    assert fitted == fit_platt(score[~unknown], label[~unknown], np.ones(6000))


def test_auto_judges_by_time_and_not_by_the_order_of_rows():
    """Both halves of the day hold both shapes; the rows stand sorted by shape."""
    logistic, steps = _stream(_logistic, seed=1), _stream(_steps)
    score, label = (np.concatenate(pair) for pair in zip(logistic, steps, strict=True))
    auto = _chosen(binary="auto")
    kinds = [
        fit_calibration([CLICK], {"click": score}, _rows(click=label, shown_at=time), auto)["click"].kind
        for time in (np.arange(16_000), np.tile(np.arange(8000), 2))
    ]
    assert kinds == ["platt", "isotonic"]


def test_auto_splits_the_day_where_half_of_the_stream_has_passed():
    """Of early negatives one in nine is kept; later, all, and no positive is among them."""
    score, label = _stream(_steps)
    late = np.arange(8000) >= 2000
    score, label = np.where(late, -np.abs(score), score), np.where(late, 0.0, label)
    weight = np.where((label == 1) | late, 1.0, 9.0)
    auto = _chosen(binary="auto")
    kinds = [
        fit_calibration([CLICK], {"click": score}, _rows(click=label, weight=w), auto)["click"].kind
        for w in (None, weight)
    ]
    assert kinds == ["platt", "isotonic"]


@pytest.mark.parametrize("positives", [0, 60])
def test_auto_needs_enough_of_both_classes_in_both_halves(positives):
    score, _ = _stream(_steps)
    label = (np.arange(8000) < positives) * 1.0
    auto = _chosen(binary="auto")
    assert fit_calibration([CLICK], {"click": score}, _rows(click=label), auto)["click"].kind == "platt"


def test_rows_without_a_label_are_left_out():
    score, label = _stream(_logistic)
    hidden = np.where(np.arange(8000) % 2 == 0, np.nan, label)
    half = _rows(click=label[1::2])
    found = fit_calibration([CLICK], {"click": score}, _rows(click=hidden), _chosen())
    assert found == fit_calibration([CLICK], {"click": score[1::2]}, half, _chosen())
    none = fit_calibration([CLICK], {"click": score}, _rows(click=np.full(8000, np.nan)), _chosen())
    assert none["click"].kind == "identity"


@pytest.mark.parametrize("kind", ["platt", "isotonic", "auto"])
def test_a_child_stays_below_its_parent_after_calibration(kind):
    """Each marginal is fitted alone, so those who hardly click and surely would buy cross."""
    rng = np.random.default_rng(0)
    score, taste = rng.normal(size=4000), rng.normal(size=4000)
    click = (rng.random(4000) < expit(score)).astype(float)
    buy = click * (rng.random(4000) < expit(2 * taste))
    logits = {"click": score, "buy": taste}
    fitted = fit_calibration([CLICK, BUY], logits, _rows(click=click, buy=buy), _chosen(binary=kind))
    alone = fitted["buy"].apply(logits["buy"] if fitted["buy"].reads == "logit" else expit(logits["buy"]))
    parent = calibrate(logits, [CLICK, BUY], fitted)["click"]
    assert (alone > parent).any(), "they would cross"
    assert (calibrate(logits, [CLICK, BUY], fitted)["buy"] <= parent).all()


def _noisy_child():
    """A child whose part beside its parent is noise; those who click hardly ever buy."""
    rng = np.random.default_rng(0)
    parent = rng.normal(-1, 1, 20_000)
    click = (rng.random(parent.size) < expit(parent)).astype(float)
    buy = click * (rng.random(parent.size) < 0.1)
    return {"click": parent, "buy": parent - 2 + rng.normal(0, 1, parent.size)}, click, buy


@pytest.mark.parametrize("kind", ["platt", "auto"])
def test_a_childs_calibrator_reads_its_parents_logit(kind):
    logits, click, buy = _noisy_child()
    fitted = fit_calibration([CLICK, BUY], logits, _rows(click=click, buy=buy), _chosen(binary=kind))
    assert (fitted["click"].kind, fitted["buy"].kind) == ("platt", "platt_parent")
    alone = fit_platt(logits["buy"], buy).apply(logits["buy"])
    found = calibrate(logits, [CLICK, BUY], fitted)["buy"]
    assert found.mean() == pytest.approx(buy.mean(), rel=0.02)
    assert log_loss(buy, found) < log_loss(buy, alone) - 0.003


def _published(days, trained, config, folder, **given):
    """Calibrate a model of the tiny shop on its fifth day, but for what is given, and write its bundle."""
    logits, encoded = day_logits(trained, days, 4, config)
    rows = _rows(**encoded.labels, weight=encoded.weight, shown_at=encoded.shown_at)
    calibration = fit_calibration(config.tasks, logits, rows, config.calibration, encoded.items) | given
    registry = Registry(folder)
    version = write_bundle(
        registry, trained, calibration, config, days[4], None, refitted=False, sources=NO_SOURCES
    )
    return SimpleNamespace(
        config=config,
        registry=registry,
        bundle=load_bundle(registry.require(version)),
        logits=logits,
        encoded=encoded,
    )


@pytest.fixture(scope="module")
def ordinal(shop_chain, make_config, tmp_path_factory):
    """Train the tiny shop with an ordinal, debiased rating that reads the click's head."""
    tasks = [t.model_dump(mode="json") for t in make_config().tasks]
    tasks[1] |= {"transfer_from": "click", "hidden": [8, 4]}
    rating = {"head": "ordinal", "step": 1.0, "transfer_from": "click", "debias": "ips"}
    tasks[2] |= rating | {"learning_rate_scale": 2.0}
    config = make_config(
        task=tasks, calibration={"binary": "auto"}, model={"trunk": {"name": "ple", "hidden": [16, 8]}}
    )
    trained = train(shop_chain, {t.name: (0, 3) for t in config.tasks}, config, None, 2)
    return _published(shop_chain, trained, config, tmp_path_factory.mktemp("ordinal"))


def test_an_ordinal_head_goes_all_the_way_to_a_checked_bundle(ordinal, shop_chain, tmp_path):
    bundle, encoded = ordinal.bundle, ordinal.encoded
    assert ordinal.logits["rating"].shape == (encoded.size, 4)
    predictor = BundlePredictor(bundle)
    with predictor.opened_day(shop_chain.labelled_for(bundle.config.tasks), 4) as day:
        predictions = predictor.predictions(day)
    assert predictions["rating"].shape == (encoded.size,)
    assert ((predictions["rating"] >= 1) & (predictions["rating"] <= 5)).all()
    known = ~np.isnan(encoded.labels["rating"])
    assert predictions["rating"][known].mean() == pytest.approx(
        encoded.labels["rating"][known].mean(), abs=0.05
    )
    store = open_store(StoreConfig(), tmp_path)
    publish(store, ordinal.registry, bundle.version, shop_chain[4])
    assert Answering.of(bundle, store, Scorer).check_golden()["max_difference"] < 1e-4


def test_a_warm_start_continues_every_part_of_it(ordinal, shop_chain):
    bundle = ordinal.bundle
    periods = {t.name: (4, 3) for t in bundle.config.tasks}
    made = train(shop_chain, periods, ordinal.config, Previous.of(bundle, ordinal.config), 1)
    for name, value in made.weights().items():
        np.testing.assert_array_equal(value, bundle.weights[name], err_msg=name)
    assert {"ranker.heads.links.rating.gaps", "ranker.observing.rating.weight"} <= set(bundle.weights)


def test_a_parents_logit_is_served_as_it_was_fitted(shop_chain, trained, config, tmp_path):
    given = PlattParent(a=0.4, parent=0.5, b=-2.5)  # the tiny shop has too few purchases to fit one
    made = _published(shop_chain, trained, config, tmp_path, purchase=given)
    calibration = dict(made.bundle.manifest.calibration)
    assert calibration["purchase"] == given
    wanted = calibrate(made.logits, config.tasks, calibration)["purchase"]
    own = made.logits["purchase"].astype(float) * given.a + made.logits["click"] * given.parent
    np.testing.assert_allclose(wanted, expit(own + given.b), rtol=1e-5)
    predictor = BundlePredictor(made.bundle)
    with predictor.opened_day(shop_chain.labelled_for(config.tasks), 4) as day:
        np.testing.assert_allclose(predictor.predictions(day)["purchase"], wanted, atol=1e-6)
    store = open_store(StoreConfig(), tmp_path)
    publish(store, made.registry, made.bundle.version, shop_chain[4])
    assert Answering.of(made.bundle, store, Scorer).check_golden()["max_difference"] < 1e-4


@pytest.fixture(scope="module")
def with_terms(shop_chain, trained, config, tmp_path_factory):
    """Calibrate the tiny shop's model with terms of the item, and publish it."""
    config = config.model_copy(update={"calibration": _chosen(binary="platt_items")})
    return _published(shop_chain, trained, config, tmp_path_factory.mktemp("terms"))


def test_a_term_reads_lifetime_rates_and_means_of_the_item_and_its_groups(with_terms):
    click = with_terms.bundle.manifest.calibration["click"]
    assert click.kind == "platt_items"
    assert set(click.items) == {
        f"item_{group}{number}_life"
        for group in ("", "by_category__")
        for number in ("click_rate", "purchase_rate", "rating_mean")
    }
    assert max(map(abs, click.items.values())) > 1e-3
    assert with_terms.bundle.manifest.calibration["rating"].kind == "affine"


def test_terms_of_the_item_are_served_as_they_were_fitted(with_terms, shop_chain, tmp_path):
    bundle, config, encoded = with_terms.bundle, with_terms.config, with_terms.encoded
    calibration = dict(bundle.manifest.calibration)
    moved = with_item_terms(with_terms.logits, encoded.items, calibration)
    assert np.abs(moved["click"] - with_terms.logits["click"]).max() > 1e-3
    predictor = BundlePredictor(bundle)
    with predictor.opened_day(shop_chain.labelled_for(config.tasks), 4) as day:
        found = predictor.predictions(day)
    for task, wanted in calibrate(moved, config.tasks, calibration).items():
        np.testing.assert_allclose(found[task], wanted, atol=1e-5)
    store = open_store(StoreConfig(), tmp_path)
    publish(store, with_terms.registry, bundle.version, shop_chain[4])
    assert Answering.of(bundle, store, Scorer).check_golden()["max_difference"] < 1e-4


def test_a_days_items_are_the_same_in_files(with_terms, shop_chain, trained, monkeypatch):
    monkeypatch.setattr(scoring, "PIECE_ROWS", 100)
    logits, rows = day_logits(trained, shop_chain, 4, with_terms.config)
    np.testing.assert_array_equal(logits["click"], with_terms.logits["click"])
    assert rows.items.names == with_terms.encoded.items.names
    weights = {name: n + 1.0 for n, name in enumerate(rows.items.names)}
    np.testing.assert_array_equal(rows.items.term(weights), with_terms.encoded.items.term(weights))


def test_runs_predict_with_terms_as_a_bundle_does(shop_chain, trained, with_terms, tmp_path):
    config = with_terms.config
    runs = Runs(shop_chain, config)
    scores = runs.score(trained, config, config.tasks)["click"]
    place = runs.plan.calibrate["click"]
    logits, rows = day_logits(trained, runs.days, place, config)
    known = _rows(**rows.labels, weight=rows.weight, shown_at=rows.shown_at)
    calibration = fit_calibration(config.tasks, logits, known, config.calibration, rows.items)
    registry = Registry(tmp_path)
    version = write_bundle(
        registry, trained, calibration, config, shop_chain[4], None, refitted=False, sources=NO_SOURCES
    )
    predictor = BundlePredictor(load_bundle(registry.require(version)))
    with predictor.opened_day(runs.days.labelled_for(config.tasks), runs.plan.evaluate["click"]) as day:
        found = predictor.predictions(day)["click"][~np.isnan(day.labels["click"])]
    np.testing.assert_allclose(scores.evaluated.prediction, found, atol=1e-5)
    np.testing.assert_array_equal(scores.evaluated.label, day.labels["click"][~np.isnan(day.labels["click"])])


def test_lists_of_weights_without_a_bundle_have_the_terms(with_terms, shop_chain, trained):
    bundle = with_terms.bundle
    model = ListModel.of(trained, bundle.manifest.calibration, with_terms.config, bundle.items)
    served = BundlePredictor(bundle).ranker
    assert model.ranker.has_item_term
    torch.testing.assert_close(model.ranker.item_term_FT, served.item_term_FT)
    assert not trained.ranker.has_item_term, "what is trained further is without"
