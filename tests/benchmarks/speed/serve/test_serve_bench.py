"""`recsys bench serve`: a run at a thousandth of its size has every key; parts are put together."""

import json

import pytest

from benchmarks.speed.serve import swap_part
from benchmarks.speed.serve.bundle import Sizes, synthetic_shop
from benchmarks.speed.serve.serve_bench import KEYS, added, measure_serve, with_keys
from benchmarks.speed.serve.serve_tables import GRIDS
from benchmarks.speed.serve.session import Asked
from recsys.errors import ConfigError

THOUSANDTH = Sizes(items=1_000)
PERCENTILES = ("p50_ms", "p99_ms", "p999_ms")


def run(part, **figures):
    ran = {"command": "c", "commit": "a", "seconds": 1.0, "seconds_by_part": {part: 1.0}}
    return with_keys({"runs": [ran | {"other_cores": {part: 0.3}}], **figures})


def test_a_figure_that_was_not_measured_is_null_and_says_why():
    tree = run("max-rate", max_rate=None)
    assert set(KEYS) <= set(tree)
    assert tree["not_measured"]["max_rate"] == "--part max-rate found none"
    assert tree["not_measured"]["echo"] == "--part latency was not run"
    assert tree["noisy"] == {"max-rate": "others took 0.30 cores"}


def test_parts_are_put_together_and_the_newer_figure_counts():
    both = added(run("latency", echo={"p50_ms": 1.0}, echo_ratio=4.0), run("latency", echo_ratio=5.0))
    assert (both["echo"], both["echo_ratio"]) == ({"p50_ms": 1.0}, 5.0)
    assert len(both["runs"]) == 2
    assert "echo" not in both["not_measured"]


def test_an_unknown_part_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match="'speed' is not known; choose of: latency"):
        measure_serve(Asked(parts=["speed"]), THOUSANDTH, tmp_path)


def test_a_run_at_a_thousandth_has_the_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(swap_part, "PIECE_S", 0.5)
    asked = Asked(
        parts=["latency", "max-rate", "swaps", "overload"], seconds=0.2, swaps=1, rate=20.0, workers="1"
    )
    tree = json.loads(json.dumps(measure_serve(asked, THOUSANDTH, tmp_path)))
    # Beside busy neighbours calls may be refused, and swaps may cost some: that is no fault of the bench.
    for key in ("echo", "one_client", "eight_clients", "half_load"):
        assert set(PERCENTILES) | {"failed", "calls_per_s", "generator_cores"} <= set(tree[key])
    assert all(tree["echo"][name] > 0 for name in PERCENTILES)
    assert tree["echo"]["failed"] == 0
    assert tree["echo_ratio"] > 0
    assert tree["max_rate"] > 0
    assert set(tree["stages_ms"]) >= {"features", "retrieval", "scoring"}
    assert tree["swaps"]["count"] == 1
    assert tree["overload"]["runs"]["goodput_ratio"]["statuses"]
    assert set(tree["not_measured"]) == {key for key, part in KEYS.items() if part not in asked.parts}
    assert all(len(grid(tree)) > 1 for grid in GRIDS.values())
    again = synthetic_shop(THOUSANDTH, tmp_path)
    assert again.cached
    assert sorted(p.name for p in tmp_path.iterdir()) == [again.folder.name, "items-1000.lock"]
