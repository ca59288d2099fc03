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
    lines += _line(tree, "max_rate", f"highest rate ({tree.get('max_rate_limit')})", "{:.0f} calls/s")
    lines += _line(tree, "echo_ratio", "one client's p50 over the echo's", "{:.1f}")
    stages = tree.get("stages_ms") or {}
    lines += [[f"stage {name}, median", f"{ms:.2f} ms"] for name, ms in stages.items()]
    return lines


def _line(tree: Tree, key: str, title: str, form: str) -> Grid:
    return [] if tree.get(key) is None else [[title, form.format(tree[key])]]


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
