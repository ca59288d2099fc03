from argparse import Namespace
from types import SimpleNamespace

import pytest

from benchmarks.speed.training.product_profile import run, summary
from benchmarks.speed.training.profile_part import profile_grid
from recsys.settings import to_toml


def _event(key, shapes, count, us):
    return SimpleNamespace(key=key, input_shapes=shapes, count=count, self_cpu_time_total=us)


def test_a_days_batch_sizes_are_one_shape_and_times_are_per_step():
    events = [
        _event("aten::mm", [[50, 8], [8, 4]], 2, 600.0),
        _event("aten::mm", [[51, 8], [8, 4]], 2, 200.0),
        _event("aten::index_select", [[700, 8], [], [50]], 4, 200.0),
    ]
    found = summary(events, rows=[101, 100], batch_size=64)
    assert (found["steps"], found["ms_per_step"]) == (4, 0.25)
    product, gather = found["operators"]
    assert (product["shapes"], product["calls"], product["ms"], product["share"]) == (
        "[B, 8] [8, 4]",
        1,
        0.2,
        0.8,
    )
    assert gather["shapes"] == "[n, 8] [B]"
    assert {kind: of["share"] for kind, of in found["kinds"].items()} == {
        "products": 0.8,
        "gathers and sums of rows": 0.2,
    }


def test_the_steps_of_the_shop_are_profiled(shop_log, shop_chain, make_config, tmp_path):
    config = make_config(training={"batch_size": 1024})
    file, stages = tmp_path / "shop.toml", shop_chain[0].path.parents[1]  # the days are built already
    file.write_text(to_toml(config.model_dump(mode="json", by_alias=True)))
    report = run(Namespace(config=file, log=shop_log.root, stages=stages, precision="fp32"))
    assert report["kinds"]["products"]["ms"] > 0
    assert report["kinds"]["optimiser"]["ms"] > 0
    assert sum(of["share"] for of in report["kinds"].values()) == pytest.approx(1)
    assert any("[B, " in one["shapes"] for one in report["operators"])
    lines = profile_grid({"profile": {"now": {"fp32": report}}})
    assert {len(line) for line in lines} == {6}
    assert [line[1] for line in lines].count("all") == 1
