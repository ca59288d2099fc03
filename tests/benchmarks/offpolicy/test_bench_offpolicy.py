"""`recsys bench offpolicy` on a tiny shop: estimates against the truth, tables, plot and JSON."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest

from benchmarks.offpolicy import open_bandit, run, simulated
from benchmarks.offpolicy.simulated import Setting, measure_simulated, summary
from recsys import cli
from recsys.offpolicy.evaluate import Estimate
from recsys.simulator.dials import ShopDials

UNBIASED = ("ips", "snips", "dr", "rips", "snrips", "cascade_dr")
SETTINGS = (
    Setting(name="one", places=1, logging=0.3, target=0.6),
    Setting(name="three", places=3, logging=0.3, target=0.45),
)


@pytest.fixture(scope="module", autouse=True)
def _tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            simulated, "DIALS", ShopDials(users=150, items=100, days=2, candidates=15, click_base=-1.5)
        )
        patch.setattr(simulated, "TRUTH_REQUESTS", 20_000)
        patch.setattr(simulated, "MODEL_REQUESTS", 2_000)
        patch.setattr(run, "SETTINGS", SETTINGS)
        patch.setattr(open_bandit, "BOOTSTRAPS", 2)
        patch.setattr(open_bandit, "_DRAWS", 2_000)
        yield


@pytest.fixture(scope="module")
def tree():
    done = []
    found = measure_simulated(SETTINGS, 30, 600, 50, 3, lambda n, of: done.append((n, of)))
    assert done == [(n, 60) for n in range(1, 61)]
    return found


@pytest.mark.parametrize("name", ["one", "three"])
def test_what_is_unbiased_finds_the_truth_and_the_poor_model_does_not(tree, name):
    setting = tree["settings"][name]
    assert 0 < setting["truth"] < setting["places"]
    for estimator in UNBIASED:
        found = setting["estimators"][estimator]
        assert abs(found["bias"]) < 4 * found["bias_error"], estimator
        assert found["coverage"] > 0.8, estimator
        assert found["rmse"] ** 2 == pytest.approx(found["variance"] * 29 / 30 + found["bias"] ** 2)
    model = setting["estimators"]["dm"]
    assert abs(model["bias"]) > 10 * model["bias_error"], "it knows no user"
    assert model["coverage"] == 0.0


def test_the_target_earns_more_than_the_log_did(tree):
    """It is sharper; a target as sharp as the logging policy has weights of 1."""
    same = Setting(name="same", places=1, logging=0.3, target=0.3)
    found = measure_simulated([same], 2, 600, 20, 3)["settings"]["same"]
    assert found["truth"] < tree["settings"]["one"]["truth"]
    assert found["max_weight"] == pytest.approx(1.0)
    assert found["effective"] == pytest.approx(600)


def test_propensities_of_the_log_are_how_often_items_are_shown(tree):
    for setting in tree["settings"].values():
        bins = setting["propensities"]
        assert len(bins) == 5
        assert all(abs(row["z"]) < 4 for row in bins)
        assert bins[-1]["predicted"] > 2 * bins[0]["predicted"]


def test_wrong_propensities_show_as_bias(monkeypatch):
    """The measure can fail: a log that states the propensities of another policy misses the truth."""
    drawn = simulated.draw_slates

    def flattened(candidates, utility, places, rng):
        slates = drawn(candidates, utility, places, rng)
        return dataclasses.replace(slates, propensity=np.sqrt(slates.propensity))

    monkeypatch.setattr(simulated, "draw_slates", flattened)
    found = measure_simulated(SETTINGS[:1], 10, 600, 20, 3)["settings"]["one"]
    assert abs(found["estimators"]["ips"]["bias"]) > 10 * found["estimators"]["ips"]["bias_error"]


def test_the_summary_counts_what_the_intervals_hold():
    shop = simulated.Shop.from_seed(simulated.DIALS, 0, extra_days=1)
    rng = np.random.default_rng(0)
    one = simulated._World(shop, SETTINGS[0], rng).estimate(600, 20, rng)
    values = [
        one.model_copy(update={"estimates": {"ips": Estimate(value=v, low=low, high=high)}, "problems": said})
        for v, low, high, said in (
            (1.0, 0.5, 1.5, ()),
            (3.0, 2.5, 3.5, ("few",)),
            (2.0, 1.0, 2.0, ("ips and dr disagree: they differ",)),
            (2.0, None, None, ("few",)),
        )
    ]
    found = summary(values, 2.0)
    assert found["estimators"]["ips"]["coverage"] == 0.25
    assert found["estimators"]["ips"]["bias"] == 0.0
    assert found["estimators"]["ips"]["width"] == pytest.approx(1.0)
    assert (found["stamped"], found["disagreed"]) == (0.75, 0.25)


def test_the_command_prints_tables_and_writes_plot_and_json(tmp_path, capsys):
    plot, file = tmp_path / "c.svg", tmp_path / "r.json"
    argv = [
        "bench",
        "offpolicy",
        "--logs",
        "2",
        "--requests",
        "100",
        "--replicates",
        "10",
        "--plot",
        str(plot),
    ]
    assert cli.run(argv) == 0
    out = capsys.readouterr().out
    for title in ("settings", "errors", "coverage"):
        assert title in out
    assert "bandit" not in out
    assert all(name in out for name in run.ORDER)
    drawn = plot.read_text()
    assert drawn.count("<circle") == 2 + 6 * len(SETTINGS)
    assert cli.run([*argv, "--json", str(file)]) == 0
    tree = json.loads(file.read_text())
    assert set(tree["settings"]) == {"one", "three"}
    assert (tree["runs"], tree["requests"], tree["seed"]) == (2, 100, 0)
    assert plot.read_text() == drawn, "the same seed draws the same logs"


@pytest.fixture(scope="module")
def bandit(tmp_path_factory):
    """Logs of the shape of Open Bandit: items whose number is even are clicked more."""
    folder, rng = tmp_path_factory.mktemp("bandit"), np.random.default_rng(0)
    for campaign, count in (("all", 80), ("men", 34), ("women", 46)):
        chances = {p: open_bandit.policy_chances(p, campaign, count, rng) for p in open_bandit.POLICIES}
        for policy, chance in chances.items():
            place = folder / policy / campaign
            place.mkdir(parents=True)
            pl.DataFrame(
                {"item_id": np.arange(count), "item_feature_0": rng.random(count)}
                | {f"item_feature_{n}": rng.integers(0, 3, count) for n in (1, 2, 3)}
            ).write_csv(place / "item_context.csv")
            position = rng.integers(1, 4, 400)
            shares = chance / chance.sum(axis=0)
            item = np.array([rng.choice(count, p=shares[:, at - 1]) for at in position])
            click = rng.random(400) < np.where(item % 2 == 0, 0.5, 0.1)
            pl.DataFrame(
                {
                    "item_id": item,
                    "position": position,
                    "click": click.astype(int),
                    "propensity_score": shares[item, position - 1],
                    **{f"user_feature_{n}": rng.integers(0, 2, 400) for n in range(4)},
                }
            ).write_csv(place / f"{campaign}.csv")
    return folder


def test_open_bandit_is_estimated_both_ways_in_every_campaign(bandit):
    done = []
    found = open_bandit.measure_open_bandit(bandit, 0, lambda n, of: done.append((n, of)))
    assert done[-1] == (6, 6)
    for part in found["parts"].values():
        value = part["value"]["estimates"]["snips"]
        assert value["low"] < part["truth"] < value["high"], part
        assert not part["trustworthy"], "400 rows are few"
    for name, bins in found["propensities"].items():
        assert all(abs(row["z"]) < 5 for row in bins), name
    tree = {"open_bandit": found}
    assert len(run.bandit_grid(tree)) == 7
    assert len(run.bandit_errors_grid(tree)) == 8
    said = run.propensities_grid(tree)
    assert [line[0] for line in said[1:]] == ["bts, all", "bts, men", "bts, women"], (
        "a random one has no bins"
    )
