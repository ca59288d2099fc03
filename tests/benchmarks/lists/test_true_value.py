"""The true value of lists on the tiny shop: bounds hold, shuffled labels say nothing."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from benchmarks.lists import true_value
from benchmarks.lists.compare import agreement, metrics_of_all, near_policies, true_values
from benchmarks.lists.lists_tables import GRIDS
from benchmarks.lists.log_metrics import METRICS, Evidence
from benchmarks.lists.off_policy import next_choices, whole_lists
from benchmarks.lists.policies import FUNNEL, ORACLE, RANDOM, Models, Policy, all_policies
from benchmarks.lists.run_lists import Asked, tree_of, value_night
from benchmarks.lists.scores import score_night
from benchmarks.lists.shop_night import ShopNight, parse_regimes
from benchmarks.lists.true_value import TrueValue, measure_hash
from recsys.bundle import load_bundle
from recsys.config import build_fusion
from recsys.errors import ConfigError
from recsys.simulator.shop import Shop
from training.evaluation.lists import ranked_lists
from training.predict import BundlePredictor


@pytest.fixture(scope="module")
def night(shop_log, shop_chain, config):
    return ShopNight.of(Shop.from_log(shop_log.root), shop_log, shop_chain, config, 25)


@pytest.fixture(scope="module")
def predictor(bundle_folder):
    return BundlePredictor(load_bundle(bundle_folder))


@pytest.fixture(scope="module")
def models(night, predictor):
    scored = score_night(predictor.lists, night, whole=True)
    return Models(today=scored, older=scored, short=scored, hindsight=scored)


@pytest.fixture(scope="module")
def truth(night, config):
    fusion = build_fusion(config.tasks, config.fusion)
    return TrueValue.of(night.shop, night.audience.requests, night.item_ids, fusion)


@pytest.fixture(scope="module")
def cell(night, models):
    return value_night(night, models, "tastes", 3)


def test_truth_is_that_of_the_simulator(night, truth):
    pages = np.array([[3, 1, 7]] * night.audience.num_users)
    requests = night.audience.requests
    value = truth.of_pages(pages)
    for user in (0, night.audience.num_users - 1):
        shown = requests[[user] * 3].with_columns(
            item_id=night.item_ids.gather(pages[user]), position=np.array([1, 2, 3])
        )
        said = night.shop.true_predictions(shown)
        assert value.clicks[user] == pytest.approx(said["p_click"].sum(), rel=1e-4)
        assert value.purchases[user] == pytest.approx(said["p_purchase"].sum(), rel=1e-4)
        seen = np.array([1, 2, 3]) ** -night.shop.dials.position_decay
        assert value.stars[user] == pytest.approx(np.average(said["expected_rating"], weights=seen), rel=1e-4)


def test_sorted_by_truth_no_order_is_worth_more(truth):
    items = np.argsort(-truth.score(), axis=1)[:, :3]
    best = truth.of_pages(items).value
    others = [truth.of_pages(items[:, order]).value for order in map(list, permutations(range(3)))]
    assert (best >= np.max(others, axis=0) - 1e-9).all()
    worse = truth.of_pages(np.argsort(truth.score(), axis=1)[:, :3]).value
    assert (worse < best).all()


def test_an_empty_place_earns_nothing(truth):
    page = np.zeros((truth.score().shape[0], 1), int)
    padded = np.concatenate([page, np.full_like(page, -1)], axis=1)
    assert truth.of_pages(padded).value == pytest.approx(truth.of_pages(page).value)
    assert truth.of_pages(padded).stars == pytest.approx(truth.of_pages(page).stars)


def test_bounds_and_planted_policies_lie_where_they_must(cell):
    assert len(cell.kinds) >= 24
    means = {name: cell.mean(name) for name in cell.kinds}
    best = max(means.values())
    assert means["truth over the catalogue"] == best
    assert means["truth over our candidates"] > means[FUNNEL] > means["worst of the candidates"]
    assert means[ORACLE] > means[RANDOM]
    value = true_values([cell], ORACLE, RANDOM)
    assert value[ORACLE]["share_of_oracle"] == 1.0
    assert value[RANDOM]["share_of_oracle"] == 0.0
    assert value[FUNNEL]["low"] < value[FUNNEL]["mean"] < value[FUNNEL]["high"]


def test_the_page_of_the_funnel_is_the_served_one(night, models, predictor):
    served = ranked_lists(predictor, night.audience).ranked
    pages = models.today.pages(models.today.fused(), served.shape[1])
    assert np.array_equal(night.columns[pages], served)


def test_a_metric_that_is_the_truth_agrees_and_its_opposite_does_not(cell):
    policies = near_policies([cell])
    assert not {cell.kinds[name] for name in policies} & {"planted", "bound"}
    true = {name: cell.mean(name) for name in cell.kinds}
    right = agreement(cell, true, policies)
    wrong = agreement(cell, {name: -value for name, value in true.items()}, policies)
    assert (right.rank_correlation, right.wrong) == (pytest.approx(1.0), 0)
    assert (wrong.rank_correlation, wrong.wrong) == (pytest.approx(-1.0), wrong.pairs)
    assert wrong.pairs > 0
    silent = agreement(cell, dict.fromkeys(true, float("nan")), policies)
    assert np.isnan(silent.rank_correlation)
    assert silent.pairs == 0


def test_metrics_read_the_log(night, models, truth):
    policies = all_policies(night, models, truth, 3)
    evidence = Evidence.of(night.logged, night.audience.num_users, models.today, models.hindsight)
    shown, truly = policies["shop's policy"], policies["truth over the catalogue"]
    assert METRICS["agreement_with_log"](evidence, shown) == 1.0
    assert METRICS["agreement_with_log"](evidence, truly) < 1.0
    assert METRICS["click_list_auc"](evidence, truly) > 0.6
    shuffled = evidence.with_random_labels(np.random.default_rng(0))
    assert METRICS["click_list_auc"](shuffled, truly) == pytest.approx(0.5, abs=0.1)
    assert METRICS["replay_in_page"](evidence, truly) > METRICS["replay_in_page"](shuffled, truly)


def test_the_tree_has_its_keys_and_its_tables(cell, config):
    others = [replace(cell, seed=seed) for seed in (4, 5, 6)]
    asked = Asked(config=config, seeds=[3, 4, 5, 6], regimes=["tastes"], requests=25, dials={})
    tree = tree_of([cell, *others], asked)
    assert set(tree["policies"]) == set(METRICS)
    for found in tree["policies"].values():
        assert {"rank_correlation", "wrong_pairs", "primary"} <= set(found)
    assert {"mean", "low", "high", "share_of_oracle"} <= set(tree["true_value"][FUNNEL])
    for name, grid in GRIDS.items():
        titles, *lines = grid(tree)
        assert all(len(line) == len(titles) for line in lines), name
    assert len(GRIDS["values_tastes"](tree)) == len(cell.kinds) + 1


def test_a_metric_leads_only_where_it_is_confirmed_in_every_regime():
    good = {"rank_correlation": 0.9, "confirmed": 0.85, "wrong_pairs": 0.1}
    for bad in ({"rank_correlation": 0.7}, {"confirmed": 0.7}, {"confirmed": None}):
        found = metrics_of_all({"a": {"m": good}, "b": {"m": {**good, **bad}}})
        assert found["m"]["primary"] is False
    assert metrics_of_all({"a": {"m": good}, "b": {"m": good}})["m"]["primary"] is True


def test_the_hash_is_of_the_measure(monkeypatch, tmp_path):
    before = measure_hash()
    assert before == measure_hash()
    changed = tmp_path / "true_value.py"
    changed.write_text("other")
    monkeypatch.setattr(true_value, "__file__", str(changed))
    assert measure_hash() != before


@pytest.mark.parametrize(
    ("names", "wrong"), [("uniform,tast", "'tast' is unknown"), ("uniform,uniform", "given twice")]
)
def test_wrong_regimes_are_named(names, wrong):
    with pytest.raises(ConfigError, match=f"{wrong}; choose from tastes, ignorant"):
        parse_regimes(names)


def test_a_ranking_goes_on_from_what_is_shown_above():
    ranked = np.array([[4, 2, 7, 9]])
    assert next_choices(ranked, np.array([[4, 9, 2]])).tolist() == [[4, 2, 2]]
    assert next_choices(ranked, np.array([[2, 4, 5]])).tolist() == [[4, 4, 7]]


def test_off_policy_estimates_of_the_log_itself(night, models):
    evidence = Evidence.of(night.logged, night.audience.num_users, models.today, models.hindsight)
    rows = whole_lists(evidence, 10)
    users, first = np.unique(night.logged.user[rows[:, 0]], return_index=True)
    pages = np.full((night.audience.num_users, 10), -1)
    pages[users] = night.logged.column[rows[first]]
    once = replace(night.logged, **_rows_of(night.logged, rows[first].ravel()))
    certain = replace(once, propensity=np.ones(once.user.size))
    log = replace(evidence, logged=certain)
    earned = log.reward().sum() / users.size
    shown = Policy(kind="shop", ranked=pages)
    for name in ("rips", "snrips", "cascade_dr"):
        assert METRICS[name](log, shown) == pytest.approx(earned), name
    other = Policy(kind="shop", ranked=np.roll(pages, 1, axis=1))
    assert METRICS["rips"](log, other) == 0.0
    assert np.isnan(METRICS["snrips"](log, other))


def _rows_of(logged, rows):
    columns = {name: getattr(logged, name)[rows] for name in ("user", "column", "position", "propensity")}
    labels = {task: values[rows] for task, values in logged.labels.items()}
    return {**columns, "labels": labels, "request": np.unique(logged.request[rows], return_inverse=True)[1]}
