"""The bench runs as its command does, on a tiny log, and its figures hang together."""

import json

import polars as pl
import pytest

from benchmarks.speed.features.feature_bench import units
from benchmarks.speed.features.large_log import FIRST_DAY, LogDials, write_log
from recsys.cli import run
from recsys.log import InteractionLog


@pytest.mark.slow
def test_the_bench_measures_all_phases_and_says_its_ratios(tmp_path, capsys):
    pytest.importorskip("duckdb", reason="duckdb is not installed: pip install '.[bench]'")
    pytest.importorskip("pandas", reason="pandas is not installed: pip install '.[bench]'")
    file = tmp_path / "features.json"
    tiny = ["--rows", "20000", "--days", "12", "--pandas-rows", "20000", "--repeats", "1"]
    assert run(["bench", "features", *tiny, "--scratch", str(tmp_path), "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    assert json.loads(capsys.readouterr().out) == result
    phases = result["phases"]
    for suffix, unit in (("", "wall_s"), ("_cpu", "cpu_s")):
        total = {who: sum(phases[p][who][unit] for p in phases) for who in ("ours", "duckdb")}
        assert result[f"ratio_to_duckdb{suffix}"] == pytest.approx(total["duckdb"] / total["ours"])
    assert set(result["ratio_to_pandas_by_phase"]) == {"backfill", "training", "day"}
    assert phases["backfill"]["ours"]["impressions"] + phases["day"]["ours"]["impressions"] == 20_000
    assert result["night_cost_growth"] is None, "twelve days have no night 30"
    assert result["nights"]["10"]["cpu_s"] > 0.01, "the night was built anew, not found"
    assert result["units"]["snapshot_bytes_per_user"] > 10
    assert {"shards_1_mb", "shards_4_mb"} == set(result["memory"]["20000"])
    floor = result["night_floor"]
    assert floor["parquet_s"] == pytest.approx(floor["parquet_bytes"] / floor["copy_bytes_per_second"])
    assert floor["parquet_s"] > 0
    assert not list(tmp_path.glob("recsys-bench-*")), "the scratch folder is gone"


def test_the_same_seed_writes_the_same_log_and_another_seed_another(tmp_path):
    dials = LogDials(rows=5_000, days=3)
    logs = [InteractionLog(tmp_path / name) for name in "abc"]
    for log, seed in zip(logs, (0, 0, 1), strict=True):
        list(write_log(LogDials(rows=dials.rows, days=dials.days, seed=seed), log))
    days = logs[0].days("feedback")
    same = [logs[0].read("feedback", d).equals(logs[1].read("feedback", d)) for d in days]
    assert all(same)
    assert not logs[0].read("feedback", days[0]).equals(logs[2].read("feedback", days[0]))
    assert sum(logs[0].read("impressions", d).height for d in days) == pytest.approx(dials.rows, abs=30)


def test_the_log_has_a_shops_shape(tmp_path):
    log, dials = InteractionLog(tmp_path), LogDials(rows=20_000, days=4)
    days = list(write_log(dials, log))
    assert days[0] == FIRST_DAY
    impressions = pl.concat([log.read("impressions", d) for d in days])
    feedback = pl.concat([log.read("feedback", d) for d in days])
    assert impressions["impression_id"].n_unique() == impressions.height
    first = log.read("impressions", days[0])
    assert first["user_id"].n_unique() == dials.users, "everybody is there from the first day"
    kinds = dict(feedback["kind"].value_counts().iter_rows())
    assert kinds["click"] / impressions.height == pytest.approx(0.10, abs=0.01)
    assert kinds["click"] > kinds["rating"] > kinds["refund"] > 0
    assert feedback.filter(pl.col("kind") == "rating")["value"].is_between(1, 5).all()
    late = feedback.filter(pl.col("received_at").dt.date() > pl.col("occurred_at").dt.date())
    assert (feedback["received_at"] > feedback["occurred_at"]).all()
    assert late.height < feedback.height
    top = impressions["user_id"].value_counts(sort=True)["count"]
    assert top[0] > 5 * top.median(), "few users are shown much, many little"


def test_units_part_a_night_into_impressions_and_users():
    night = {"snapshot_bytes": 5_000, "users": 100}
    nights = {
        "1": {**night, "impressions": 900, "cpu_s": 9 + 2.0},
        "10": {**night, "impressions": 100, "cpu_s": 1 + 2.0},
    }
    expected = {"cpu_s_per_impression": 0.01, "cpu_s_per_user": 0.02, "snapshot_bytes_per_user": 50.0}
    assert units(nights) == pytest.approx(expected)
