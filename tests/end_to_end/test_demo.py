"""`recsys demo`, whole, on a tiny shop: the user's own commands, a real server, a night under traffic.

Its nine commands run as copies of one process that has imported what they need (copied_python.py).
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from recsys.log import InteractionLog
from recsys.registry import Registry

# A model that learns in a second; a gate that evaluates nothing, so that every night goes live.
CONFIG = """
timezone = "UTC"
[[task]]
name = "click"
feedback = "click"
head = "binary"
window = "1h"
[[task]]
name = "purchase"
feedback = "purchase"
reversal = "refund"
head = "binary"
window = "2h"
parent = "click"
fusion_weight = 5.0
[[task]]
name = "rating"
feedback = "rating"
head = "regression"
window = "1d"
space = "observed"
fusion_weight = 0.02
[[feature]]
name = "device"
entity = "context"
kind = "categorical"
[features]
text_dim = 8
item_id_dim = 8
user_id_dim = 8
history_length = 10
[model]
head_hidden = 8
tower_hidden = 16
embedding_dim = 8
attention_dim = 8
trunk = {name = "mmoe", num_experts = 2, hidden = [16]}
[gate]
min_rows = 1_000_000
underpowered = "promote"
min_recall_ratio = 0.0
min_overlap = 0.0
min_coverage_ratio = 0.0
max_time_ratio = 100.0
[training]
precision = "fp32"  # nothing is measured first
[publish]
check = false  # a server of its own for each of four nights: tests/training/night/test_post_check.py has it
[serving]
poll_s = 0.2
"""
SIZE = ["--users", "100", "--items", "100", "--days", "6", "--requests", "60", "--evening-s", "6"]


@pytest.fixture(scope="module")
def demo(copied_python: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Run it once, in a folder with a space in its name."""
    folder = tmp_path_factory.mktemp("a demo")
    (folder / "small.toml").write_text(CONFIG)
    command = [copied_python, "-m", "recsys", "demo"]
    command += ["--out", "out", "--seed", "3", "--config", "small.toml"]
    done = subprocess.run([*command, *SIZE], cwd=folder, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads((folder / "out" / "summary.json").read_text())
    return SimpleNamespace(folder=folder, out=folder / "out", summary=summary, stdout=done.stdout)


def test_the_summary_has_its_figures(demo) -> None:
    summary = demo.summary
    assert {"list_auc", "popularity_list_auc", "best_list_auc", "informed_list_auc", "auc"} == set(
        summary["quality"]["click"]
    )
    assert {"rmse", "mean_rmse", "noise_rmse", "informed_rmse"} == set(summary["quality"]["rating"])
    for name in ("click", "purchase", "rating"):
        assert all(isinstance(value, float) for value in summary["quality"][name].values()), name
    assert all(0 < value <= 1 for value in summary["retrieval"].values())
    assert 0 < summary["latency_ms"]["p50"] <= summary["latency_ms"]["p99"]
    assert (
        summary["quality"]["click"]["best_list_auc"] > summary["quality"]["click"]["informed_list_auc"] > 0.5
    )
    # Each figure is rounded to a tenth of a second, up or down.
    rounding = 0.05 * (len(summary["steps"]) + 1)
    assert sum(summary["steps"].values()) <= summary["seconds"] + rounding


def test_the_oracles_saw_the_rows_that_the_model_was_scored_on(demo) -> None:
    for day in demo.summary["by_day"]:
        rows = InteractionLog(demo.out / "log").read("impressions", pl.Series([day["date"]]).str.to_date()[0])
        assert day["rows"]["click"] == rows.height
        assert day["bundle"] < day["date"]


def test_no_call_failed_and_the_server_left_in_order(demo) -> None:
    summary = demo.summary
    assert summary["failed_calls"] == 0, summary["errors"]
    assert summary["rejected"] == 0
    assert summary["calls"] == sum(summary["calls_by_method"].values()) > 60
    assert summary["server"]["exit_code"] == 0
    assert summary["server"]["seconds"] > 0


def test_every_night_ran_and_the_last_one_saw_what_was_served(demo) -> None:
    summary = demo.summary
    assert [n["date"] for n in summary["nights"]] == ["2026-01-28", "2026-01-29", "2026-01-30", "2026-01-31"]
    assert {n["verdict"] for n in summary["nights"]} == {"PROMOTE"}
    served = summary["served"]
    assert served["impressions"] == 10 * served["requests"] >= 100  # of 60 who ask: a busy machine is late
    assert served["labelled"]["click"] > 0
    log, registry = InteractionLog(demo.out / "log"), Registry(demo.out / "runs")
    day = pl.Series([served["date"]]).str.to_date()[0]
    assert set(log.read("requests", day)["bundle_version"]) == {summary["nights"][2]["version"]}
    assert log.read("items", day).height > 0
    record = registry.record(summary["nights"][3]["version"])
    assert str(record.night) == served["date"]


def test_the_server_followed_the_night_by_itself(demo) -> None:
    before, after = (night["version"] for night in demo.summary["nights"][2:])
    assert [run["bundle"] for run in demo.summary["answers"]] == [before, after]
    assert demo.summary["swap"]["followed"]


def test_the_page_says_where_to_look_next_and_that_works(demo) -> None:
    line = next(line for line in demo.stdout.splitlines() if "bundle list" in line)
    script = line[line.index("bundle list") :]
    environment = {**os.environ, "COLUMNS": "200"}
    listed = subprocess.run(
        f'"{sys.executable}" -m recsys {script}',
        shell=True,
        cwd=demo.folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert listed.returncode == 0, listed.stderr
    assert demo.summary["nights"][3]["version"] in listed.stdout


def test_commands_that_run_as_copies_end_as_they_would(copied_python, tmp_path, until) -> None:
    """Codes, streams and signals."""
    command = [copied_python, "-m", "recsys"]
    done = subprocess.run(
        [*command, "data", "profile", "nowhere"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("recsys data profile: nowhere")
    for number in (signal.SIGINT, signal.SIGKILL):
        waits = subprocess.Popen([*command, "demo", "--out", str(number), *SIZE], cwd=tmp_path, stderr=-3)
        until(lambda number=number: list((tmp_path / str(number)).glob("log/*")))
        waits.send_signal(number)
        assert waits.wait() == (130 if number == signal.SIGINT else -signal.SIGKILL)


def test_ctrl_c_ends_everything_and_the_next_run_starts_afresh(tmp_path, until) -> None:
    (tmp_path / "small.toml").write_text(CONFIG)
    command = [sys.executable, "-m", "recsys", "demo", "--out", "out", "--config", "small.toml", *SIZE]
    running = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    out = tmp_path / "out"
    until(lambda: running.poll() is not None or (out / "runs" / "stages").exists())
    until(lambda: running.poll() is not None or child_ids(running.pid))  # there is none between two nights
    assert running.poll() is None
    children = child_ids(running.pid)
    running.send_signal(signal.SIGINT)
    _, stderr = running.communicate(timeout=300)
    assert running.returncode == 130
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []
    assert not (out / "summary.json").exists()
    (out / "log" / "left").touch()
    again = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: again.poll() is not None or not (out / "log" / "left").exists())
    until(lambda: again.poll() is not None or (out / "log" / "truth").exists())
    assert again.poll() is None
    again.send_signal(signal.SIGINT)
    again.communicate(timeout=300)


def child_ids(pid: int) -> list[int]:
    return [int(part) for part in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
