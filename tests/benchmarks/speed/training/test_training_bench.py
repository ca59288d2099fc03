import sys
import time
from argparse import Namespace

import numpy as np
import pytest

from benchmarks.peer_environment import peer_python
from benchmarks.speed import fresh_run as runs
from benchmarks.speed import processes
from benchmarks.speed.fresh_run import FreshRun, Patience, fresh_run, keep_to_cores, quiet_run
from benchmarks.speed.machine import forget_peak, peak_rss
from benchmarks.speed.processes import busy_s
from benchmarks.speed.training import own_epoch
from benchmarks.speed.training.click_log import TASKS, write_click_log
from benchmarks.speed.training.floor import click_log_flop
from benchmarks.speed.training.peers import REQUIREMENTS
from benchmarks.speed.training.ranking import worst_difference
from benchmarks.speed.training.systems import clearly_faster, peer_systems
from benchmarks.speed.training.throughput import figures_of, spread
from benchmarks.speed.training.training_bench import Asked, added, measure_training
from benchmarks.speed.training.training_keys import named_keys
from recsys.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def cores():
    import os

    allowed = os.sched_getaffinity(0)
    yield keep_to_cores(1)
    os.sched_setaffinity(0, allowed)


def test_our_epoch_trains_on_all_rows_and_scores_the_test_rows(tmp_path, monkeypatch):
    peaks = iter([100 * 2**20, 300 * 2**20])
    monkeypatch.setattr(own_epoch, "peak_rss", lambda: next(peaks))
    write_click_log(tmp_path, 2_000, 500, seed=0)
    asked = Namespace(
        arrays=tmp_path,
        rows=1_500,
        batch=256,
        seed=0,
        threads=1,
        precision="fp32",
        shuffle_labels=False,
        tables="replicated",
        scores=tmp_path / "s.npy",
    )
    report = own_epoch.run(asked)
    assert report["rows"] == 1_500
    assert report["seconds"] > 0
    assert (report["imports_rss_mb"], report["peak_rss_mb"]) == (100, 300)
    scores = np.load(asked.scores)
    assert scores.shape == (500, len(TASKS))
    assert np.isfinite(scores).all()


def test_the_peak_holds_what_was_there_and_is_gone():
    # Anew from what is held now: the suite may have held more before. Counts of pages lag by a megabyte.
    forget_peak()
    held = peak_rss()
    np.ones(64 * 2**20, np.uint8)
    assert peak_rss() > held + 32 * 2**20


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


def stat(busy_s, idle_s):
    return f"cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 {round(100 * busy_s)} 0 0 {round(100 * idle_s)} 0 0 0 0 0 0\n"


@pytest.mark.parametrize(
    ("busy_s", "idle_s", "own_s", "expected"),
    [(1_000, 0, 0, "others"), (0, 1_000, 0, "alone"), (0.2, 0, 0.2, "alone")],
    ids=["others were busy", "the core was idle", "it was busy itself"],
)
def test_others_load_is_what_the_kernel_counts_less_the_programs_own(
    tmp_path, monkeypatch, busy_s, idle_s, own_s, expected
):
    """The kernel's counts are written by hand here: real ones come in ticks, whenever the kernel pleases."""
    counts = tmp_path / "stat"
    counts.write_text(stat(5, 5))
    monkeypatch.setattr(processes, "STAT", counts)
    monkeypatch.setattr(processes, "_TICK", 100)
    program = (
        "import pathlib, sys, time\n"
        f"while time.process_time() < {own_s}: pass\n"
        "pathlib.Path(sys.argv[1]).write_text(sys.argv[2]); print('{}')"
    )
    found = fresh_run([sys.executable, "-c", program, str(counts), stat(5 + busy_s, 5 + idle_s)], (0,), 1)
    assert found.noisy == (expected == "others")
    assert expected == "others" or found.other_cores == 0


def test_the_kernels_counts_are_read(cores):
    before, until = busy_s(cores), time.monotonic() + 30
    while busy_s(cores) == before:
        assert time.monotonic() < until, "this process has been busy on the core"


def scripted(monkeypatch, *loads):
    """Let runs be made beside these loads, one after the other; give what is left of them."""
    left = list(loads)
    monkeypatch.setattr(runs, "fresh_run", lambda *_: FreshRun({}, left.pop(0)))
    return left


def test_a_disturbed_run_is_made_again_and_the_least_disturbed_one_counts(monkeypatch):
    left = scripted(monkeypatch, 0.5, 0.3, 0.1, 0.0)
    assert quiet_run([], (0,), Patience()).other_cores == 0.1
    assert left == [0.0]
    scripted(monkeypatch, 0.5, 0.3, 0.6, 0.4, 0.7)
    found = quiet_run([], (0,), Patience())
    assert (found.other_cores, found.noisy) == (0.3, True)


def test_patience_is_one_for_all_runs(monkeypatch):
    patience = Patience(100.0)
    left = scripted(monkeypatch, 0.5, 0.0, 0.5, 0.0)
    quiet_run([], (0,), patience)
    assert patience.seconds < 100
    patience.seconds = -0.1
    assert quiet_run([], (0,), patience).noisy
    assert left == [0.0]


def test_of_two_forms_the_simpler_one_is_taken_unless_the_other_is_clearly_faster():
    rates = {"fp32": 100.0, "bf16": 109.0, "two": 111.0}
    assert clearly_faster("bf16", "fp32", rates.__getitem__) == "fp32"
    assert clearly_faster("two", "fp32", rates.__getitem__) == "two"


def report(rate, other_cores=0.0, **more):
    return FreshRun({"rows": rate, "seconds": 1.0, "peak_rss_mb": rate, **more}, other_cores)


def test_figures_are_medians_beside_the_worst_load():
    found = figures_of([report(30), report(10, 0.1), report(20)])
    assert found["samples_per_second"] == {"median": 20, "min": 10, "max": 30, "runs": [30, 10, 20]}
    assert (found["peak_rss_mb"], found["other_cores"], found["noisy"]) == (30, 0.1, False)
    assert figures_of([report(30), report(20, 0.2)])["noisy"]


def measured(**systems):
    """A tree of the parts speed: system -> rate per batch size."""
    speed = {name: {size: figures_of([report(r)]) for size, r in of.items()} for name, of in systems.items()}
    floor = {size: {"rows_per_second": 120} for size in systems["ours"]}
    return {
        "systems": speed,
        "floor": floor,
        "batch_sizes": list(systems["ours"]),
        "commit": "a",
        "runs": [1],
    }


def test_what_is_asked_for_by_name_is_there_per_batch_size():
    tree = measured(ours={"8": 60, "16": 90}, a={"8": 20, "16": 45}, b={"8": 30, "16": 10})
    tree["systems"]["b"]["8"] = figures_of([report(30, 0.4)])
    tree["auc"] = aucs_of(ours=(0.6, 0.7), a=(0.5, 0.6))
    tree["product"] = {
        "now": {"free": {"samples_per_second": spread([40]), "noisy": False}},
    }
    keys = named_keys(tree)
    assert keys["samples_per_second"] == {"8": 60, "16": 90}
    assert keys["ratio_to_best_peer"] == {"8": 2, "16": 2}
    assert keys["floor_share"] == {"8": 0.5, "16": 0.75}
    assert keys["peak_rss_mb"] == {"8": 60, "16": 90}
    assert keys["auc_minus_best_peer"] == {"8": pytest.approx(0.1), "16": None}
    assert keys["product_samples_per_second"] == {"free": 40}
    assert keys["noisy"] == {"b, batch 8": "others took up to 0.40 cores"}
    assert keys["not_measured"] == {
        "auc_minus_best_peer, batch 16": "--part auc was not run",
        "product_ratio_to_before": "no --before REV was given",
    }


def test_every_null_has_a_reason():
    keys = named_keys(measured(ours={"8": 60}))
    assert keys["not_measured"] == {
        "ratio_to_best_peer, batch 8": "no --peer was given",
        "auc_minus_best_peer, batch 8": "--part auc was not run",
        "product_samples_per_second": "--part product was not run",
        "product_ratio_to_before": "--part product was not run",
    }


def aucs_of(**systems):
    """Give AUCs at batch size 8: system -> click and purchase of seed 0."""
    return {name: {"8": {"0": dict(zip(TASKS, of, strict=True))}} for name, of in systems.items()}


def test_the_worst_task_counts_against_the_peer_that_is_better_on_it():
    aucs = aucs_of(ours=(0.6, 0.6), a=(0.5, 0.65), b=(0.55, 0.5))
    aucs["ours"]["8"]["1"] = {"click": 0.8, "purchase": 0.6}
    assert worst_difference(aucs, "ours", "8") == pytest.approx(-0.05)
    del aucs["a"]
    assert worst_difference(aucs, "ours", "8") == pytest.approx(0.1)
    del aucs["b"]
    assert worst_difference(aucs, "ours", "8") is None


def test_parts_add_up_and_a_new_figure_replaces_an_old_one():
    old = measured(ours={"8": 10, "16": 20}) | {"auc": aucs_of(ours=(0.5, 0.5), a=(0.4, 0.4))}
    new = measured(ours={"8": 30}) | {"auc": {"ours": {"8": {"1": {"click": 0.7, "purchase": 0.7}}}}}
    new |= {"commit": "b", "runs": [2]}
    both = added(old, new)
    assert both["samples_per_second"] == {"8": 30, "16": 20}
    assert both["auc_minus_best_peer"]["8"] == pytest.approx(0.2)  # the mean of two seeds, .5 and .7
    assert (both["commit"], both["runs"]) == ("b", [1, 2])


def test_an_unknown_part_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"--part 'fast' is not known; choose of: speed, auc, product"):
        measure_training(Asked(parts=["fast"]))


def test_an_unknown_peer_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"'recbole' is not known; choose of: torch-rechub, deepctr-torch"):
        peer_systems(["recbole"])


def test_an_environment_that_cannot_be_made_says_so(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ConfigError, match=r"cannot be made in .*recsys-bench-peers.*pip must reach"):
        peer_python(REQUIREMENTS)
