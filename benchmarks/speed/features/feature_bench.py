"""`recsys bench features`: a night's cost beside DuckDB, pandas and the floor, and how it moves with history.

Every phase runs in a process of its own, ours and theirs in turn, on the same log and with as many threads.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.speed.features.phase import day_number
from benchmarks.speed.machine import copy_rate, num_threads
from recsys.errors import RecsysError
from recsys.log import InteractionLog
from recsys.stages import Stages

CHECKOUT = Path(__file__).resolve().parents[3]
CURVE = (1, 10, 20, 30, 60, 90, 120, 150, 180)
BUSY = 1.5
"""Load average per processor above which wall-clock times say little."""
SHARDS = 4
SMALL = 4
"""The second log, by which memory is compared, has so many times fewer rows."""
MEMORY_NIGHT = 4


class Bench:
    """Runs phases on one log and remembers where its files are."""

    def __init__(self, folder: Path, rows: int, days: int, seed: int, repeats: int) -> None:
        """Plan a log; `write` makes it."""
        self.folder, self.rows, self.days, self.seed, self.repeats = folder, rows, days, seed, repeats
        self.backfill = min(30, days - 1)
        self.training = list(range(max(2, self.backfill - 6), self.backfill + 1))

    def run(self, phase: str, **asked: Any) -> dict[str, Any]:
        """Run one phase in a new process.

        Raises: RecsysError with the last lines of what the process said, when it failed.
        """
        paths = {n: str(self.folder / n) for n in ("log", "stages", "duckdb", "out")}
        wanted = json.dumps({"phase": phase, "training": self.training, **paths, **asked})
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.speed.features.phase", wanted],
            check=False,
            capture_output=True,
            text=True,
            cwd=CHECKOUT,
        )
        if done.returncode:
            raise RecsysError(f"phase {phase} of the bench failed:\n{done.stderr[-2000:]}")
        _say(f"{phase} {asked}: {done.stdout.strip()[:300]}")
        figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return figures

    def write(self) -> dict[str, Any]:
        """Write the log."""
        return self.run("write", rows=self.rows, days=self.days, seed=self.seed)

    def ours_and_duckdb(self) -> dict[str, Any]:
        """Measure backfill, one day and training rows of both, in turn; medians where it is repeated."""
        last, one = self.backfill, self.backfill + 1
        found: dict[str, Any] = {
            "backfill": {
                "ours": self.run("nights", last=last),
                "duckdb": self.run("duckdb_nights", first=1, last=last),
            }
        }
        days, rows = [], []
        for turn in range(self.repeats):
            own = {"stages": str(self.folder / f"day-{turn}")}
            _link(self.folder / "stages", Path(own["stages"]))
            days.append((self.run("nights", first=one, last=one, **own), self._duckdb_day(one)))
            rows.append((self.run("training", last=last), self.run("duckdb_training", last=last)))
        for name, turns in (("day", days), ("training", rows)):
            ours, theirs = zip(*turns, strict=True)
            found[name] = {"ours": _median(ours), "duckdb": _median(theirs)}
        return found

    def _duckdb_day(self, one: int) -> dict[str, Any]:
        return self.run("duckdb_nights", first=one, last=one)

    def ours_and_pandas(self, rows: int) -> dict[str, Any]:
        """Measure both on the log's first days, as many as hold so many rows: pandas keeps all in memory."""
        impressions = (
            InteractionLog(self.folder / "log").files("impressions", day_number(n)) for n in (1, 2)
        )
        first, other = (sum(pl.read_parquet(p, columns=["user_id"]).height for p in f) for f in impressions)
        last = max(2, min(self.backfill, (rows - first) // other))
        own = {"stages": str(self.folder / "few"), "training": [last - 1, last], "last": last}
        pandas = self.run("pandas", **own)
        ours = {"backfill": self.run("nights", **own), "training": self.run("training", **own)}
        ours["day"] = self.run("nights", **{**own, "first": last + 1, "last": last + 1})
        return {name: {"ours": ours[name], "pandas": pandas[name]} for name in ours}

    def night_bytes(self) -> dict[str, float]:
        """Count what a night reads and writes: on disk, and unpacked in memory."""
        one = day_number(self.backfill + 1)
        log, stages = InteractionLog(self.folder / "log"), Stages(self.folder / "day-0")
        folders = {_day(p): p.parent for p in stages.root.glob("features/*/manifest.json")}
        gone = [str(day_number(self.backfill + 1 - w)) for w in (1, 7, 28) if self.backfill + 1 > w]
        read = [p for table in ("impressions", "feedback", "items") for p in log.files(table, one)]
        read += folders[str(day_number(self.backfill))].rglob("*.parquet")
        read += [p for day in gone for p in folders[day].rglob("*_tile.parquet")]
        files = [*read, *folders[str(one)].rglob("*.parquet")]
        memory = sum(pl.read_parquet(p, hive_partitioning=False).estimated_size() for p in files)
        return {"parquet_bytes": sum(p.stat().st_size for p in files), "memory_bytes": memory}


def measure_features(
    scratch: Path | None, rows: int, days: int, pandas_rows: int, seed: int, repeats: int
) -> dict[str, Any]:
    """Measure in a temporary folder, in `scratch` where it is given."""
    with tempfile.TemporaryDirectory(prefix="recsys-bench-", dir=scratch) as folder:
        return measure(Path(folder).resolve(), rows, days, pandas_rows, seed, repeats)


def measure(folder: Path, rows: int, days: int, pandas_rows: int, seed: int, repeats: int) -> dict[str, Any]:
    """Run all phases; give the figures by name."""
    load = [os.getloadavg()[0]]
    large = Bench(folder / "large", rows, days, seed, repeats)
    large.write()
    phases = large.ours_and_duckdb()
    curve = large.run("curve", nights=[n for n in CURVE if n <= days], repeats=repeats)
    load.append(os.getloadavg()[0])
    with_pandas = large.ours_and_pandas(pandas_rows)
    load.append(os.getloadavg()[0])
    rate, size = copy_rate(), large.night_bytes()
    if max(load) > BUSY * (os.cpu_count() or 1):
        _say(f"the machine is busy (load average {max(load):.1f}): trust cpu_s and ratios, not wall_s")
    nights = curve["nights"]
    ours = [phases[p]["ours"] for p in phases]
    return {
        "rows": rows,
        "days": days,
        "threads": num_threads(),
        "load_average": load,
        **_ratios(phases, "duckdb", "ratio_to_duckdb"),
        **_ratios(with_pandas, "pandas", "ratio_to_pandas"),
        "night_cost_growth": _growth(nights, "wall_s"),
        "night_cost_growth_cpu": _growth(nights, "cpu_s"),
        "rows_per_second": {p: f["ours"]["impressions"] / f["ours"]["wall_s"] for p, f in phases.items()},
        "rows_per_cpu_second": {p: f["ours"]["impressions"] / f["ours"]["cpu_s"] for p, f in phases.items()},
        "peak_rss_mb": max(f["peak_rss_mb"] for f in ours),
        "night_floor": {
            **size,
            "copy_bytes_per_second": rate,
            "parquet_s": size["parquet_bytes"] / rate,
            "memory_s": size["memory_bytes"] / rate,
        },
        "memory": memory(folder, large),
        "phases": phases,
        "phases_with_pandas": with_pandas,
        "nights": nights,
        "units": units(nights),
    }


def units(nights: dict[str, Any]) -> dict[str, float]:
    """Part a night's cost into what an impression and what a user of the population adds.

    Night 1 has some eight times the impressions of the others, for the same users.
    """
    first, later = nights["1"], nights[min((n for n in nights if n != "1"), key=lambda n: nights[n]["cpu_s"])]
    more = first["impressions"] - later["impressions"]
    impression_s = max(0.0, (first["cpu_s"] - later["cpu_s"]) / more)
    return {
        "cpu_s_per_impression": impression_s,
        "cpu_s_per_user": max(0.0, later["cpu_s"] - impression_s * later["impressions"]) / later["users"],
        "snapshot_bytes_per_user": later["snapshot_bytes"] / later["users"],
    }


def memory(folder: Path, large: Bench) -> dict[str, dict[str, float]]:
    """Measure the peak memory of one night, by size of the log and number of shards built one by one."""
    small = Bench(folder / "quarter", large.rows // SMALL, large.days, large.seed, 1)
    small.write()
    found: dict[str, dict[str, float]] = {}
    for bench in (large, small):
        for shards in (1, SHARDS):
            own = {"stages": str(bench.folder / f"memory-{shards}"), "shards": shards}
            bench.run("nights", last=MEMORY_NIGHT - 1, **own)
            peak = bench.run("nights", first=MEMORY_NIGHT, last=MEMORY_NIGHT, **own)["peak_rss_mb"]
            found.setdefault(str(bench.rows), {})[f"shards_{shards}_mb"] = peak
    return found


def _ratios(phases: dict[str, Any], other: str, name: str) -> dict[str, Any]:
    """Compare totals over the phases; wall-clock time, and processor time beside it."""
    found: dict[str, Any] = {}
    for suffix, unit in (("", "wall_s"), ("_cpu", "cpu_s")):
        ours, theirs = (sum(f[who][unit] for f in phases.values()) for who in ("ours", other))
        found[name + suffix] = theirs / ours
        by_phase = {p: f[other][unit] / f["ours"][unit] for p, f in phases.items()}
        found[f"{name}{suffix}_by_phase"] = by_phase
    return found


def _growth(nights: dict[str, Any], unit: str) -> float | None:
    """Compare the last night with night 30; None where the log is too short to have both."""
    last = max(nights, key=int)
    growth: float | None = nights[last][unit] / nights["30"][unit] if int(last) > 30 else None
    return growth


def _median(turns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {name: statistics.median(t[name] for t in turns) for name in turns[0]}


def _link(chain: Path, copy: Path) -> None:
    """Give a turn the chain so far, without copying it."""
    for source in sorted(p for p in chain.rglob("*") if p.is_file()):
        target = copy / source.relative_to(chain)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)


def _day(manifest: Path) -> str:
    return str(json.loads(manifest.read_text())["day"])


def _say(text: str) -> None:
    print(f"recsys bench features: {text}", file=sys.stderr, flush=True)
