"""Which days the gate compares orders on: the calibration day as well, unless its labels moved the order."""

from types import SimpleNamespace

import pytest

from recsys.calibration import Affine, Isotonic, Platt
from recsys.config import default_config
from recsys.fusion import Fusion
from recsys.source_terms import NO_SOURCES, SourceTerms
from training.night.gate_rows import places_of

CONFIG = default_config()
SIGMOID, LINE = Platt(a=1.0, b=0.0), Affine(scale=1.0, offset=0.0, low=1.0, high=5.0)
PLAN = SimpleNamespace(
    calibrate={"click": 3, "purchase": 3, "rating": 2}, evaluate={"click": 4, "purchase": 4, "rating": 3}
)


def places(sources=NO_SOURCES, click=SIGMOID):
    calibration = {"click": click, "purchase": SIGMOID, "rating": LINE}
    manifest = SimpleNamespace(calibration=calibration, fusion=Fusion(terms={}).with_sources(sources))
    return places_of(CONFIG.tasks, PLAN, manifest)


def test_orders_are_compared_on_both_days_and_values_on_the_evaluated_one():
    assert places() == {"click": [3, 4], "purchase": [3, 4], "rating": [3]}


@pytest.mark.parametrize("fitted", [SourceTerms(repeat=1.0), SourceTerms(item_item=0.3, popular=0.1)])
def test_weights_that_its_lists_chose_leave_the_calibration_day_out(fitted):
    assert places(fitted)["click"] == [4]


def test_weights_by_the_rule_read_none_of_its_labels():
    assert places(SourceTerms(item_bias=0.1, item_item=0.3))["click"] == [3, 4]


def test_a_map_that_is_flat_in_places_moved_the_order():
    assert places(click=Isotonic(x=(0.1, 0.2), y=(0.1, 0.1))) == {
        "click": [4],
        "purchase": [3, 4],
        "rating": [3],
    }
