from argparse import Namespace

import pytest

from benchmarks.speed.fresh_run import FreshRun
from benchmarks.speed.training.product_epoch import run
from benchmarks.speed.training.product_parts import measure_parts
from benchmarks.speed.training.product_speed import Form, alternate, ratios
from benchmarks.speed.training.throughput import spread


def test_the_product_model_is_timed_on_all_days(shop_log, tmp_path):
    asked = Namespace(
        config=None,
        log=shop_log.root,
        stages=tmp_path,
        threads=1,
        precision="auto",
        processes=1,
        build_only=False,
    )
    report = run(asked)
    days = shop_log.require_days("impressions")
    assert report["rows"] == sum(shop_log.read("impressions", day).height for day in days)
    assert report["seconds"] > 0
    assert {"click", "purchase", "rating", "retrieval"} <= report["losses"].keys()


def test_parts_reach_a_share_of_their_floor(shop_log, config):
    found = measure_parts(config, shop_log.root, seed=0, repeats=1)
    for figures in found["fit"].values():
        reached = figures["rows_per_second"] * figures["flop_per_row"]
        assert figures["share_of_floor"] == pytest.approx(reached / figures["gemm_flop_per_second"])
        assert reached > 0


def test_free_is_compared_with_the_better_way_of_before():
    def rates(one, free):
        return {
            how: {"samples_per_second": spread([rate])} for how, rate in (("one_thread", one), ("free", free))
        }

    assert ratios({"now": rates(40, 60), "before": rates(20, 10)}) == {"one_thread": 2, "free": 3}
    assert ratios({"now": rates(40, 60)}) is None


class Scripted:
    """Programs whose runs are written down and take no time."""

    def __init__(self):
        self.made = []

    def run(self, name, form):
        self.made.append((name, form))
        return FreshRun({"rows": 10 * len(self.made), "seconds": 1.0, "losses": {}}, 0.0)


def test_forms_take_turns_in_turned_order_and_equal_ones_are_one():
    one, two = Form(1, "fp32"), Form(2, "fp32")
    programs = Scripted()
    found = alternate(programs, {"now": {"one_thread": one, "free": one}, "before": {"free": two}}, 2)
    assert programs.made == [("now", one), ("before", two), ("before", two), ("now", one)]
    assert found["now"]["one_thread"] == found["now"]["free"]
    assert found["now"]["free"]["samples_per_second"]["runs"] == [10, 40]
    assert found["before"]["free"]["threads"] == 2
