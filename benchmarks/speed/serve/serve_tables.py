"""Tables of `recsys bench serve`'s JSON, for the terminal and for its page."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console

from benchmarks.grids import Grid, print_grid

Tree = Mapping[str, Any]
NONE = "–"
_RUNS = {
    "echo": "echo, one client",
    "one_client": "one client",
    "eight_clients": "eight clients",
    "half_load": "half of the highest rate, open loop",
}


def latency_grid(tree: Tree) -> Grid:
    """Lay out every run of load: calls a second, percentiles, failures."""
    lines = [
        ["load", "calls/s", "p50 ms", "p99 ms", "p99.9 ms", "failed", "server's CPU ms", "generator's cores"]
    ]
    for key, title in _RUNS.items():
        run = tree.get(key)
        if run is not None:
            percentiles = [f"{run[name]:.2f}" for name in ("p50_ms", "p99_ms", "p999_ms")]
            spent = f"{run['server_cpu_ms']:.2f}" if "server_cpu_ms" in run else NONE
            rest = [f"{run['failed']}", spent, f"{run['generator_cores']:.2f}"]
            lines.append([title, f"{run['calls_per_s']:.0f}", *percentiles, *rest])
    return lines


def summary_grid(tree: Tree) -> Grid:
    """Lay out the single figures."""
    lines = [["figure", "value"]]
    lines += _line(f"highest rate ({tree.get('max_rate_limit')})", tree.get("max_rate"), "{:.0f} calls/s")
    lines += _line("one client's p50 over the echo's", tree.get("echo_ratio"), "{:.1f}")
    for name, ms in (tree.get("stages_ms") or {}).items():
        lines += _line(f"stage {name}, median", ms, "{:.2f} ms")
    swaps, overload = tree.get("swaps") or {}, tree.get("overload") or {}
    lines += _line("swaps at 60 % load", swaps.get("count"), "{}")
    lines += _line("failed calls meanwhile", swaps.get("failed_calls"), "{}")
    lines += _line("p99 meanwhile over steady p99", swaps.get("p99_ratio"), "{:.2f}")
    lines += _line("goodput at 2 × the highest rate, of peak", overload.get("goodput_ratio"), "{:.0%}")
    lines += _line("goodput at 5 × the highest rate, of peak", overload.get("goodput_ratio_5x"), "{:.0%}")
    lines += _line("a refusal takes, median", overload.get("shed_ms"), "{:.1f} ms")
    for share, found in (tree.get("recall") or {}).items():
        lines += _line(
            f"recall@500 where {100 * float(share):g} % of the items pass", found["recall"], "{:.3f}"
        )
    lines += _line("forbidden items found", tree.get("forbidden_ids"), "{}")
    for workers, seconds in (tree.get("start_seconds") or {}).items():
        lines += _line(f"start, workers: {workers}", seconds, "{:.1f} s")
    for workers, megabytes in (tree.get("rss_mb") or {}).items():
        lines += _line(f"memory (PSS), workers: {workers}", megabytes, "{:,.0f} MB")
    soak, kills = tree.get("soak") or {}, tree.get("kills") or {}
    lines += _line(
        f"memory's slope in {soak.get('minutes', 0):.0f} minutes",
        soak.get("memory_mb_per_hour"),
        "{:+.1f} MB/h",
    )
    month = tree.get("month") or {}
    lines += _line(f"start with {month.get('days')} days of journal", month.get("start_seconds"), "{:.1f} s")
    lines += _line(f"acknowledged rows lost by {kills.get('count')} kills", _total(kills), "{}")
    return lines


def _total(kills: Tree) -> int | None:
    lost = kills.get("acknowledged_lost")
    return None if lost is None else sum(lost.values())


def _line(title: str, value: float | None, form: str) -> Grid:
    return [] if value is None else [[title, form.format(value)]]


def runs_grid(tree: Tree) -> Grid:
    """Lay out which commands made the figures, and what others took of the cores meanwhile."""
    lines = [["command", "commit", "seconds", "others' cores"]]
    for run in tree["runs"]:
        beside = ", ".join(f"{part} {cores:.2f}" for part, cores in run["other_cores"].items())
        lines.append([f"`{run['command']}`", run["commit"] or NONE, f"{run['seconds']:.0f}", beside])
    return lines


GRIDS: Mapping[str, Callable[[Tree], Grid]] = {
    "latency": latency_grid,
    "summary": summary_grid,
    "runs": runs_grid,
}


def show_serve(tree: Tree) -> None:
    """Print the tables."""
    print_grid(latency_grid(tree))
    print_grid(summary_grid(tree))
    noisy = ", ".join(f"{part}: {why}" for part, why in tree["noisy"].items())
    if noisy:
        Console().print(f"noisy: {noisy}", style="dim")
