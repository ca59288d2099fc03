"""What `recsys convert csv` takes: `python -m benchmarks.own_logs.conversion --rows 5000000 --before REV`.

One file of events, as a shop exports them: lists of eight views, clicks on some, purchases of some, over 30
days. Both codes convert the same files in turns, each in a process of its own. Prints one JSON object.
"""

import argparse
import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from benchmarks.commit import CHECKOUT, commit
from benchmarks.own_logs.made import MADE, START
from benchmarks.speed.command_cost import Cost, command_cost
from benchmarks.speed.worktree import worktree
from recsys.errors import RecsysError

PLACES = 8
CLICKED, BOUGHT = 0.15, 0.1
"""Shares of views that are clicked, and of clicks that become a purchase."""
DAYS = 30
USERS_PER_ROW, ITEMS = 1 / 50, 20_000


def main() -> None:
    """Read the arguments, and print what both codes took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.own_logs.conversion", description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000, help="Rows of the file, about.")
    parser.add_argument("--before", metavar="REV", help="Also an earlier commit.")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    try:
        print(json.dumps(measure_conversion(given.rows, given.before, given.repeats)))
    except RecsysError as error:
        parser.exit(2, f"{error}\n")


def measure_conversion(rows: int, before: str | None, repeats: int) -> dict[str, Any]:
    """Convert by today's code and an earlier one, in turns.

    Raises: ConfigError for a commit that git does not know, DataError for a conversion that fails.
    """
    costs: dict[str, list[Cost]] = {}
    with TemporaryDirectory(prefix="recsys-convert-") as temporary, worktree(before) as earlier:
        folder = Path(temporary)
        num_rows = write_events(folder / "src", rows)
        trees = {"now": CHECKOUT} | ({} if earlier is None else {"before": earlier})
        for repeat in range(repeats):
            for name, tree in list(trees.items())[:: 1 if repeat % 2 == 0 else -1]:
                words = ["convert", "csv", str(folder / "src" / "events.csv"), "--force"]
                words += ["--map", str(folder / "mapping.toml"), "--out", str(folder / "log" / name)]
                costs.setdefault(name, []).append(command_cost(words, tree))
    found = {name: _median(of) for name, of in costs.items()}
    return {"rows": num_rows, "commit": commit(), "commit_before": before, **found, **_ratios(found)}


def write_events(folder: Path, rows: int, seed: int = 1) -> int:
    """Write `events.csv` of about so many rows, and the mapping beside the folder; give their number."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    lists = max(1, round(rows / PLACES / (1 + CLICKED + CLICKED * BOUGHT)))
    user = rng.integers(max(1, int(rows * USERS_PER_ROW)), size=lists)
    second = rng.integers(DAYS * 86_400, size=lists)
    views = pl.DataFrame(
        {
            "user": np.repeat(user, PLACES),
            "item": (ITEMS * rng.random(lists * PLACES) ** 2).astype(np.int64),
            "kind": "view",
            "second": np.repeat(second, PLACES),
            "number": np.tile(np.arange(1, PLACES + 1), lists),
        }
    )
    nothing = pl.lit(None, pl.Int64)
    clicks = views.filter(pl.Series(rng.random(views.height) < CLICKED))
    clicks = clicks.with_columns(kind=pl.lit("click"), second=pl.col("second") + 20, number=nothing)
    bought = clicks.filter(pl.Series(rng.random(clicks.height) < BOUGHT))
    bought = bought.with_columns(kind=pl.lit("buy"), second=pl.col("second") + 300)
    events = pl.concat([views, clicks, bought]).sort("second", maintain_order=True)
    at = pl.lit(START) + pl.duration(seconds=pl.col("second"))
    events.select(
        pl.format("u{}", "user").alias("user"),
        pl.format("i{}", "item").alias("item"),
        "kind",
        at.dt.strftime("%Y-%m-%d %H:%M:%S").alias("time"),
        "number",
    ).write_csv(folder / "events.csv")
    (folder.parent / "mapping.toml").write_text(MADE["funnel"].mapping, encoding="utf-8")
    return events.height


def _median(costs: list[Cost]) -> dict[str, Any]:
    names = asdict(costs[0])
    return {name: statistics.median(getattr(cost, name) for cost in costs) for name in names}


def _ratios(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    if "before" not in found:
        return {}
    return {f"{name}_ratio": now / found["before"][name] for name, now in found["now"].items()}


if __name__ == "__main__":
    main()
