import sys
from argparse import Namespace

import numpy as np
import pytest

from benchmarks.speed.fresh_run import FreshRun, fresh_run, keep_to_cores, quiet_run
from benchmarks.speed.training.click_log import TASKS, write_click_log
from benchmarks.speed.training.floor import click_log_flop
from benchmarks.speed.training.own_epoch import run
from benchmarks.speed.training.peers import peer_python
from benchmarks.speed.training.ranking import worst_difference
from benchmarks.speed.training.systems import peer_systems
from benchmarks.speed.training.throughput import figures_of
from benchmarks.speed.training.training_bench import added, speed_keys
from recsys.errors import ConfigError, DataError

SPIN = "while True: pass"


@pytest.fixture(scope="module")
def cores():
    import os

    allowed = os.sched_getaffinity(0)
    yield keep_to_cores(1)
    os.sched_setaffinity(0, allowed)


def test_our_epoch_trains_on_all_rows_and_scores_the_test_rows(tmp_path):
    write_click_log(tmp_path, 2_000, 500, seed=0)
    asked = Namespace(
        arrays=tmp_path,
        rows=1_500,
        batch=256,
        seed=0,
        threads=1,
        precision="fp32",
        shuffle_labels=False,
        scores=tmp_path / "s.npy",
    )
    report = run(asked)
    assert report["rows"] == 1_500
    assert report["seconds"] > 0
    # The kernel adds up its counts of pages now and then, so either may be behind by a little.
    assert report["peak_rss_mb"] > 0.9 * report["imports_rss_mb"] > 0
    scores = np.load(asked.scores)
    assert scores.shape == (500, len(TASKS))
    assert np.isfinite(scores).all()


def test_a_row_costs_what_its_matrix_products_are():
    # 164 inputs, 8 experts 256-128, two gates, two towers of 64; the gradient of the inputs is asked for too
    forward = 164 * 8 * 256 + 8 * 256 * 128 + 2 * 164 * 8 + 2 * 8 * 128 + 2 * (128 * 64 + 64)
    assert click_log_flop() == pytest.approx(6 * forward, rel=0.01)


def test_a_program_that_fails_is_named_with_its_last_words(cores):
    with pytest.raises(DataError, match=r"ended with 3: no such rows"):
        fresh_run(
            [sys.executable, "-c", "import sys; print('no such rows', file=sys.stderr); sys.exit(3)"],
            cores,
            1,
        )


def test_a_run_beside_a_busy_process_is_not_measured(cores):
    import subprocess

    neighbour = subprocess.Popen([sys.executable, "-c", SPIN])
    try:
        # Long enough to be counted in the kernel's ticks of 10 ms, and for the neighbour to have begun.
        program = [sys.executable, "-c", "import time; time.sleep(0.4); print('{}')"]
        assert fresh_run(program, cores, 1).other_cores > 0.15
        assert quiet_run(program, cores, 1) is None
    finally:
        neighbour.kill()
        neighbour.wait()


def report(rate, **more):
    return FreshRun({"rows": rate, "seconds": 1.0, "peak_rss_mb": rate, **more}, 0.0)


def test_figures_are_medians_and_a_missing_run_spoils_them():
    found = figures_of([report(30), report(10), report(20)])
    assert found["samples_per_second"] == {"median": 20, "min": 10, "max": 30, "runs": [30, 10, 20]}
    assert found["peak_rss_mb"] == 30
    assert "samples_per_second" not in figures_of([report(30), None, report(20)])


def test_ours_is_compared_with_the_best_peer_or_not_at_all():
    speed = {
        "ours": {"8": figures_of([report(60)]), "16": figures_of([report(60)])},
        "a": {"8": figures_of([report(20)]), "16": figures_of([None])},
        "b": {"8": figures_of([report(30)]), "16": figures_of([report(30)])},
    }
    keys = speed_keys(speed, {"rows_per_second": 120})
    assert keys["samples_per_second"] == {"8": 60, "16": 60}
    assert keys["ratio_to_best_peer"] == {"8": 2, "16": None}  # peer a may have been the faster one
    assert keys["floor_share"]["8"] == 0.5
    assert keys["not_measured"] == {"a, batch 16": "1 of 1 runs found no quiet machine"}


def test_the_worst_task_counts_against_the_peer_that_is_better_on_it():
    aucs = {
        "ours": {"8": {"click": [0.6, 0.8], "purchase": [0.6]}},
        "a": {"8": {"click": [0.5], "purchase": [0.65]}},
        "b": {"8": {"click": [0.55], "purchase": [0.5]}},
    }
    assert worst_difference(aucs, "ours", "8") == pytest.approx(-0.05)


def test_parts_add_up_and_a_new_figure_replaces_an_old_one_whole():
    spoilt = figures_of([None])
    old = {"systems": {"ours": {"8": spoilt, "16": figures_of([report(10)])}}, "commit": "a", "runs": [1]}
    new = {"systems": {"ours": {"8": figures_of([report(30)])}}, "commit": "b", "runs": [2]}
    both = added(old, new)
    assert both["systems"] == {"ours": {**old["systems"]["ours"], **new["systems"]["ours"]}}
    assert (both["commit"], both["runs"], both["not_measured"]) == ("b", [1, 2], {})
    assert added(new, old)["systems"]["ours"]["8"] == spoilt
    assert list(added(new, old)["not_measured"]) == ["ours, batch 8"]


def test_without_peers_there_is_nothing_to_compare():
    assert worst_difference({"ours": {"8": {"click": [0.5], "purchase": [0.5]}}}, "ours", "8") is None


def test_an_unknown_peer_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"'recbole' is not known; choose of: torch-rechub, deepctr-torch"):
        peer_systems(["recbole"])


def test_an_environment_that_cannot_be_made_says_so(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ConfigError, match=r"cannot be made in .*recsys-bench-peers.*pip must reach"):
        peer_python()
