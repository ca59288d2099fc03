"""One phase of the bench in a process of its own, so that its peak memory is its own: JSON in, JSON out.

`python -m benchmarks.speed.features.phase JSON` is what the command starts; a phase is a name in PHASES.
"""

import json
import shutil
import statistics
import sys
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from benchmarks.speed.features.large_log import FIRST_DAY, LogDials, write_log
from benchmarks.speed.machine import Spent, num_threads, peak_rss, spent
from features.build import build_snapshots
from features.days import Days
from recsys.config import RunConfig, default_config
from recsys.log import InteractionLog, period_end
from recsys.stages import Stages

Asked = Mapping[str, Any]


def day_number(number: int) -> date:
    """Give the log's day by number, 1 the first."""
    return FIRST_DAY + timedelta(days=number - 1)


def _write(asked: Asked) -> dict[str, Any]:
    log = InteractionLog(Path(asked["log"]))
    dials = LogDials(rows=asked["rows"], days=asked["days"], seed=asked["seed"])
    with spent() as took:
        for _ in write_log(dials, log):
            pass
    return _figures(took)


def _nights(asked: Asked) -> dict[str, Any]:
    """Build up to a day; the days before may be there already."""
    with spent() as took:
        days = _days(asked, asked["last"])
    rows = sum(s.manifest["rows"]["impressions"] for s in days[asked.get("first", 1) - 1 :])
    return _figures(took) | {"impressions": rows}


def _curve(asked: Asked) -> dict[str, Any]:
    """Time single nights, each given the chain before it, each a few times."""
    nights: dict[str, dict[str, Any]] = {}
    for number in asked["nights"]:
        snapshot = _days(asked, number)[-1]
        taken: list[Spent] = []
        for _ in range(asked["repeats"]):
            shutil.rmtree(snapshot.path)
            with spent() as took:
                snapshot = _days(asked, number)[-1]
            taken.append(took)
        nights[str(number)] = {
            "wall_s": statistics.median(t.wall_s for t in taken),
            "cpu_s": statistics.median(t.cpu_s for t in taken),
            "impressions": snapshot.manifest["rows"]["impressions"],
            "snapshot_bytes": _bytes(snapshot.path),
            "users": snapshot.table("users").height,
            "crosses": snapshot.table("cross_category").height,
            "tail_events": snapshot.table("tail").height,
        }
    return {"nights": nights, "peak_rss_mb": peak_rss() / 1e6}


def _training(asked: Asked) -> dict[str, Any]:
    from benchmarks.speed.features.in_polars import write_training_rows

    wanted = [day_number(n) for n in asked["training"]]
    days = _days(asked, asked["last"])
    out = _empty(asked["out"])
    with spent() as took:
        rows = write_training_rows(days, wanted, _config(asked), out)
    return _figures(took) | {"impressions": rows, "bytes_written": _bytes(out)}


def _duckdb_nights(asked: Asked) -> dict[str, Any]:
    nights = _duck(asked)
    with spent() as took:
        for number in range(asked["first"], asked["last"] + 1):
            shutil.rmtree(nights.folder / str(day_number(number)), ignore_errors=True)
            nights.night(day_number(number))
    return _figures(took)


def _duckdb_training(asked: Asked) -> dict[str, Any]:
    nights, config = _duck(asked), _config(asked)
    as_of = period_end(day_number(asked["last"]), config.timezone)
    out = _empty(asked["out"])
    with spent() as took:
        nights.training_rows([day_number(n) for n in asked["training"]], as_of, out)
    return _figures(took)


def _pandas(asked: Asked) -> dict[str, Any]:
    """Do all three in one process: its state is its memory."""
    from benchmarks.speed.features.in_pandas import PandasNights

    config, backfill = _config(asked), asked["last"]
    nights = PandasNights(InteractionLog(Path(asked["log"])), config)
    for number in range(1, backfill + 2):
        nights.read(day_number(number))
    with spent() as filled:
        for number in range(1, backfill + 1):
            nights.night(day_number(number))
    with spent() as trained:
        as_of = period_end(day_number(backfill), config.timezone)
        nights.training_rows([day_number(n) for n in asked["training"]], as_of)
    with spent() as one:
        nights.night(day_number(backfill + 1))
    return {"backfill": _figures(filled), "training": _figures(trained), "day": _figures(one)}


PHASES: dict[str, Callable[[Asked], dict[str, Any]]] = {
    "write": _write,
    "nights": _nights,
    "curve": _curve,
    "training": _training,
    "duckdb_nights": _duckdb_nights,
    "duckdb_training": _duckdb_training,
    "pandas": _pandas,
}


def _config(asked: Asked) -> RunConfig:
    base = default_config()
    execution = base.execution.model_copy(update={"shards": asked.get("shards", 1)})
    return base.model_copy(update={"execution": execution})


def _days(asked: Asked, last: int) -> Days:
    log, stages = InteractionLog(Path(asked["log"])), Stages(Path(asked["stages"]))
    return build_snapshots(log, day_number(last), _config(asked), stages)


def _duck(asked: Asked) -> Any:
    from benchmarks.speed.features.in_duckdb import DuckNights

    log, folder = InteractionLog(Path(asked["log"])), Path(asked["duckdb"])
    return DuckNights(log, folder, _config(asked), num_threads())


def _empty(folder: str) -> Path:
    path = Path(folder)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.parquet"))


def _figures(took: Spent) -> dict[str, Any]:
    return {"wall_s": took.wall_s, "cpu_s": took.cpu_s, "peak_rss_mb": peak_rss() / 1e6}


if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    print(json.dumps(PHASES[wanted["phase"]](wanted)))
