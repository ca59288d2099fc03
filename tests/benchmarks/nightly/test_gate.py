"""bench nightly --part gate: the law at the margin, what is planted, and how nights are counted."""

import numpy as np
import pytest

from benchmarks.nightly import drawn_nights, gate
from benchmarks.nightly.drawn_nights import BenchShop
from benchmarks.nightly.gate import decided
from benchmarks.nightly.plants import PLANTS, a_tenth_less_value, true_value
from recsys.config import GateConfig
from recsys.errors import ConfigError
from recsys.head_kinds import HEAD_KINDS
from recsys.records import Verdict


@pytest.fixture(scope="module")
def shop():
    small = drawn_nights.DIALS.model_copy(update={"users": 600, "items": 150, "candidates": 30})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawn_nights, "DIALS", small)
        return BenchShop.simulate(0)


def test_an_honest_night_says_what_happens(shop):
    night = shop.night(np.random.default_rng(0))
    predicted = night.challenger.select("prediction_click", "label_click").mean().row(0)
    assert predicted[0] == pytest.approx(predicted[1], rel=0.15)
    assert not night.challenger["score"].equals(night.champion["score"])


def test_a_tenth_less_value_is_a_tenth_less_of_the_true_value(shop):
    rng = np.random.default_rng(0)
    night = shop.night(rng)
    found = a_tenth_less_value(shop, night, rng)
    before, after = (true_value(shop, night, n.challenger["score"].to_numpy()) for n in (night, found))
    assert after / before == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize("name", ["broken calibrator", "popularity collapse", "slow model", "poisoned refit"])
def test_planted_harm_is_held_by_the_check_that_is_meant_for_it(shop, name):
    rng = np.random.default_rng(1)
    night = shop.night(rng)
    config = GateConfig(replicates=20, underpowered="promote", min_segment_users=10_000)
    verdict, held, _ = decided(PLANTS[name](shop, night, rng), shop, config, 0)
    meant = {
        "broken calibrator": "click predicted over observed",
        "popularity collapse": "coverage of the pages",
        "slow model": "time of a request",
        "poisoned refit": "click predicted over observed of the refit, on days it has learned",
    }
    assert verdict is Verdict.HOLD
    assert meant[name] in [check.name for check in held]


def test_binary_heads_may_be_compared_by_another_metric(shop, monkeypatch):
    with pytest.raises(ConfigError, match="metric 'ece' is not pooled"):
        gate.measure_gate(1, 1, 0, "ece")
    monkeypatch.setitem(HEAD_KINDS, "binary", HEAD_KINDS["binary"])  # given back at the end
    monkeypatch.setattr(gate, "use_threads", lambda _: None)
    night, names = shop.night(np.random.default_rng(2)), []
    harmed = PLANTS["shuffled labels"](shop, night, np.random.default_rng(2))
    for primary in ("list_auc", "auc"):
        gate._start(primary)
        _, held, _ = decided(harmed, shop, GateConfig(replicates=20, min_segment_users=10_000), 0)
        names.append({check.name for check in held})
    assert "click AUC inside lists" in names[0] - names[1]
    assert "click AUC" in names[1] - names[0]
