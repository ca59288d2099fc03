"""Baselines: counts and rates by hand, kNN against sklearn, linear models that learn what is planted."""

import dataclasses
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import cosine_similarity

from recsys.log import period_end
from training.baselines import fitted as baselines_fitted
from training.baselines.counts import RECENT_DAYS, SHRINKAGE, item_counts, item_rates, positives
from training.baselines.design import Design, Sample, trained_places, training_sample, training_samples
from training.baselines.fitted import fit_and_score, held_out
from training.baselines.item_item import SHRINKAGE as KNN_SHRINKAGE
from training.baselines.item_item import ItemItemScores, build_knn
from training.baselines.simple_systems import BINARY, LISTED, evaluate_baselines
from training.evaluation.evaluate import evaluate, find_audiences, score_rows
from training.predict import BundlePredictor

LAST = 5


@pytest.fixture(scope="module")
def evaluated(config):
    """Rating waits a day for its labels."""
    return {"click": [LAST], "purchase": [LAST], "rating": [LAST - 1]}


@pytest.fixture(scope="module")
def rows(predictor, shop_chain, evaluated):
    return score_rows(predictor, shop_chain, evaluated)


@pytest.fixture(scope="module")
def tables(predictor, shop_chain, config, rows, evaluated):
    audiences = find_audiences(config, shop_chain, evaluated, max_users=None, seed=0)
    return evaluate_baselines(predictor, shop_chain, rows, audiences, seed=0, lightgbm=False)


# --- counts, rates


def test_counts_are_those_of_the_days_before(shop_chain):
    counts = item_counts(shop_chain, LAST)
    earlier = pl.concat([s.table("feedback") for s in shop_chain[:LAST]]).filter(pl.col("kind") == "click")
    expected = dict(earlier.group_by("item_id").len().iter_rows())
    found = dict(counts.select("item_id", "click_count").iter_rows())
    assert {item: n for item, n in found.items() if n} == expected
    # The log is younger than the window: recent is life.
    assert LAST < RECENT_DAYS
    assert counts["recent_click_count"].to_list() == counts["click_count"].to_list()


def test_rates_are_shrunk_mean_labels_known_before_the_day(shop_chain, config):
    end = period_end(shop_chain[LAST - 1].day, "UTC")
    rates, priors = item_rates(shop_chain, LAST, config.tasks)
    shown = pl.concat([s.table("examples") for s in shop_chain[:LAST]])
    clicks = pl.concat([s.table("feedback") for s in shop_chain[:LAST]]).filter(
        pl.col("kind") == "click", pl.col("received_at") < end
    )
    hour = timedelta(hours=1)
    known = shown.filter(pl.col("shown_at") + hour <= end).join(
        clicks.group_by("impression_id").agg(pl.col("occurred_at").min()), on="impression_id", how="left"
    )
    in_time = (pl.col("occurred_at") <= pl.col("shown_at") + hour).fill_null(value=False)
    known = known.with_columns(hit=in_time.cast(pl.Float64))
    assert priors["click"] == pytest.approx(known["hit"].mean())
    item = known["item_id"].mode()[0]
    mine = known.filter(pl.col("item_id") == item)
    expected = (mine["hit"].sum() + SHRINKAGE * priors["click"]) / (mine.height + SHRINKAGE)
    assert rates.filter(pl.col("item_id") == item)["rate_click"].item() == pytest.approx(expected)


def test_popularity_is_measured_like_a_model(tables, rows, shop_chain):
    counts = item_counts(shop_chain, LAST).select("item_id", "click_count")
    known = rows.filter(pl.col("label_click").is_not_null()).join(counts, on="item_id", how="left")
    assert known["date"].n_unique() == 1
    expected = roc_auc_score(known["label_click"], known["click_count"].fill_null(0))
    assert tables["popular"].heads["click"].values["auc"] == pytest.approx(expected)
    assert tables["popular"].heads["click"].values["log_loss"] is None, "a count is no probability"


def test_all_baselines_stand_on_the_models_rows_and_users(tables, rows, predictor, shop_chain, evaluated):
    assert set(BINARY) | {"global_mean", "item_mean", "logistic_regression"} == set(tables)
    for table in tables.values():
        for name, metrics in table.heads.items():
            assert metrics.rows == rows[f"label_{name}"].count()
    report = evaluate(predictor, shop_chain, evaluated, max_users=None, baselines=False)
    assert {tables[name].ranking.users for name in LISTED} == {report.ranking.users}


def test_constant_predictions_have_the_spread_as_error(tables, rows):
    labels = rows["label_rating"].drop_nulls().to_numpy()
    found = tables["global_mean"].heads["rating"]
    assert labels.size > 20
    assert found.values["rmse"] == pytest.approx(np.sqrt(np.square(labels - found.mean_prediction).mean()))


# --- kNN


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(1)
    likes = rng.random((30, 12)) < 0.3
    users, items = np.nonzero(likes)
    return pl.DataFrame(
        {"user_id": [f"u{u:02}" for u in users], "item_id": [f"i{i:02}" for i in items]}
    ), likes


def test_knn_is_shrunk_cosine_similarity(pairs):
    frame, likes = pairs
    matrix = likes.astype(float)
    norms = np.sqrt(matrix.sum(axis=0))
    expected = cosine_similarity(matrix.T) * np.outer(norms, norms) / (np.outer(norms, norms) + KNN_SHRINKAGE)
    np.fill_diagonal(expected, 0.0)
    knn = ItemItemScores(frame, build_knn)
    np.testing.assert_allclose(knn.weights.toarray(), expected, atol=1e-6)
    users, items = pl.Series([f"u{u:02}" for u in range(30)]), pl.Series([f"i{i:02}" for i in range(12)])
    np.testing.assert_allclose(knn.of_lists(users, items), matrix @ expected, atol=1e-5)


def test_knn_scores_pairs_and_lists_alike(pairs):
    knn = ItemItemScores(pairs[0], build_knn)
    users, items = pl.Series(["u03", "nobody", "u07", "u03"]), pl.Series(["i05", "i05", "nothing", "i01"])
    lists = knn.of_lists(users, items)
    np.testing.assert_allclose(knn.of_pairs(users, items), np.diag(lists), atol=1e-6)
    assert knn.of_pairs(users, items)[1:3].tolist() == [0.0, 0.0]


def test_a_pair_twice_counts_once(pairs):
    frame = pairs[0]
    twice, once = (ItemItemScores(of, build_knn).weights for of in (pl.concat([frame, frame]), frame))
    assert (twice != once).nnz == 0


def test_knn_without_any_positive_scores_nothing():
    knn = ItemItemScores(pl.DataFrame(schema={"user_id": pl.String, "item_id": pl.String}), build_knn)
    assert knn.of_pairs(pl.Series(["u"]), pl.Series(["i"])).tolist() == [0.0]
    assert knn.of_lists(pl.Series(["u"]), pl.Series(["i"])).tolist() == [[0.0]]


def test_positives_end_the_day_before(shop_chain, config):
    click = config.tasks[0]
    expected = sum(s.table("feedback").filter(pl.col("kind") == "click").height for s in shop_chain[:LAST])
    assert positives(shop_chain, LAST, click).height == expected


# --- fitted


def test_flat_features_are_standardised_numbers_and_one_hot_ids():
    numbers = np.array([[1.0, 10.0], [3.0, 30.0]], np.float32)
    design = Design(numbers=numbers, ids=np.array([[0, 1], [2, 0]]), sizes=(3, 2))
    found = design.sparse(numbers.mean(axis=0), numbers.std(axis=0)).toarray()
    np.testing.assert_allclose(found, [[-1, -1, 1, 0, 0, 0, 1], [1, 1, 0, 0, 1, 1, 0]], atol=1e-6)


def test_fitted_baselines_learn_only_what_the_bundle_was_trained_on(predictor, shop_chain, config):
    manifest = predictor.bundle.manifest
    assert manifest.date == str(shop_chain[4].day)
    periods = {t.name: trained_places(predictor, shop_chain, t) for t in config.tasks}
    assert periods == {"click": [0, 1, 2], "purchase": [0, 1, 2], "rating": [0, 1]}
    sample = training_sample(predictor, shop_chain, config.tasks[0], seed=0)
    assert set(np.unique(sample.period)) == {0, 1, 2}
    shown = sum(shop_chain[i].manifest["rows"]["impressions"] for i in (0, 1, 2))
    assert sample.label.size == shown


def test_rows_are_sampled_down_with_a_seed(predictor, shop_chain, config, monkeypatch):
    monkeypatch.setattr("training.baselines.design.MAX_ROWS", 500)
    one, two, other = (training_sample(predictor, shop_chain, config.tasks[0], seed=s) for s in (0, 0, 1))
    assert 400 < one.label.size < 600
    np.testing.assert_array_equal(one.design.ids, two.design.ids)
    assert one.label.size != other.label.size or (one.design.ids != other.design.ids).any()


def test_samples_of_all_heads_are_those_of_each_and_encode_a_day_once(
    predictor, shop_chain, config, monkeypatch
):
    encoded, encode = [], BundlePredictor.encode_day
    monkeypatch.setattr(
        BundlePredictor,
        "encode_day",
        lambda self, days, i, tasks: encoded.append(i) or encode(self, days, i, tasks),
    )
    found = training_samples(predictor, shop_chain, config.tasks, 0)
    assert encoded == [0, 1, 2]
    assert found["purchase"].design is found["click"].design
    assert found["rating"].design is not found["click"].design
    for task in config.tasks:
        alone = training_sample(predictor, shop_chain, task, 0)
        for name in ("label", "weight", "period"):
            np.testing.assert_array_equal(getattr(found[task.name], name), getattr(alone, name))
        np.testing.assert_array_equal(found[task.name].design.numbers, alone.design.numbers)


def test_the_last_period_chooses_the_penalty():
    design = Design(numbers=np.zeros((4, 1), np.float32), ids=np.zeros((4, 1), np.int64), sizes=(1,))
    sample = Sample(design=design, label=np.zeros(4), weight=np.ones(4), period=np.array([0, 1, 1, 2]))
    assert held_out(sample, 0).tolist() == [False, False, False, True]


def test_a_linear_model_finds_a_planted_line(config):
    rng = np.random.default_rng(2)
    numbers = rng.normal(size=(4000, 3)).astype(np.float32)
    ids = rng.integers(0, 5, (4000, 1))
    logit = numbers[:, 0] - 0.5 * numbers[:, 1] + np.array([-1.0, -0.5, 0, 0.5, 1.0])[ids[:, 0]]
    probability = 1 / (1 + np.exp(-logit))
    sample = Sample(
        design=Design(numbers=numbers, ids=ids, sizes=(5,)),
        label=(rng.random(4000) < probability).astype(np.float32),
        weight=np.ones(4000),
        period=np.repeat([0, 1, 2, 3], 1000),
    )
    fitted = baselines_fitted.fit_linear(config.tasks[0], sample, 0)
    found = fitted.predict(sample.design)
    assert np.abs(found - probability).mean() < 0.02
    assert fitted.note.startswith("logistic, 4000 rows")


def test_a_head_without_both_classes_is_left_out(predictor, shop_chain, rows, monkeypatch):
    real = baselines_fitted.training_samples

    def no_clicks(*arguments):
        samples = real(*arguments)
        nothing = np.zeros_like(samples["click"].label)
        return samples | {"click": dataclasses.replace(samples["click"], label=nothing)}

    monkeypatch.setattr(baselines_fitted, "training_samples", no_clicks)
    found = fit_and_score(predictor, shop_chain, rows, seed=0, lightgbm=False)
    assert "click" not in found["logistic_regression"].heads
    assert "purchase" in found["logistic_regression"].heads


def test_lightgbm_stands_beside_it(predictor, shop_chain, rows):
    pytest.importorskip("lightgbm", reason="extra `bench` is not installed")
    found = fit_and_score(predictor, shop_chain, rows, seed=0, lightgbm=True)
    assert found["lightgbm"].heads["click"].rows == rows["label_click"].count()
    assert any("trees" in note for note in found["lightgbm"].notes)
