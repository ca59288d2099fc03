"""Tables of `recsys bench train`'s JSON, for the terminal and for its page."""

import statistics
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

Tree = Mapping[str, Any]
Grid = list[list[str]]
"""Lines of cells; the first has the titles."""
NONE = "–"


def systems_grid(tree: Tree) -> Grid:
    """Lay out every system at every batch size: rate, memory, AUC."""
    tasks = tasks_of(tree)
    lines = [["system", "batch", "samples/s", "peak MB", *(f"{task} AUC" for task in tasks), "ran with"]]
    speed, scored = tree.get("systems", {}), tree.get("auc", {})
    for name in dict.fromkeys([*speed, *scored]):
        for size in dict.fromkeys([*speed.get(name, {}), *scored.get(name, {})]):
            figures = speed.get(name, {}).get(size, {})
            aucs = [scored.get(name, {}).get(size, {}).get(task) for task in tasks]
            memory = f"{figures['peak_rss_mb']:,.0f}" if "peak_rss_mb" in figures else NONE
            lines.append([name, size, rate(figures), memory, *map(mean, aucs), ran_with(figures)])
    return lines


def ratios_grid(tree: Tree) -> Grid:
    """Lay out what is asked for by name, a column per batch size."""
    names = {
        "ratio_to_best_peer": "samples/s over the best peer's",
        "auc_minus_best_peer": "AUC minus the best peer's, worst task",
        "floor_share": "share of the floor",
    }
    found = {title: tree[key] for key, title in names.items() if key in tree}
    sizes = list(dict.fromkeys(size for of in found.values() for size in of))
    lines = [["", *(f"batch {size}" for size in sizes)]]
    for title, of in found.items():
        lines.append([title, *(NONE if of.get(s) is None else f"{of[s]:.4g}" for s in sizes)])
    return lines


def tasks_of(tree: Tree) -> list[str]:
    """Name the tasks that are scored."""
    return list(next(iter(tree.get("sanity_auc", {}).values()), {}))


def measure_grid(tree: Tree) -> Grid:
    """Lay out what says whether the measure is right."""
    tasks = tasks_of(tree)
    lines = [["scores", *(f"{task} AUC" for task in tasks)]]
    for name, aucs in tree.get("sanity_auc", {}).items():
        lines.append([name.replace("_", " "), *(f"{aucs[task]:.4f}" for task in tasks)])
    return lines


def product_grid(tree: Tree) -> Grid:
    """Lay out the product model, today's and before."""
    hows = {"one_thread": "one process, one thread", "free": "free"}
    lines = [["product model", *hows.values()]]
    for name, of in tree["product"].items():
        lines.append([name, *(rate(of[how]) for how in hows)])
    if tree["product_ratio_to_before"] is not None:
        lines.append(["ratio", *(f"{tree['product_ratio_to_before'][how]:.2f}" for how in hows)])
    return lines


def rate(figures: Tree) -> str:
    """Write a median and both ends."""
    if "samples_per_second" not in figures:
        return "not measured" if "not_measured" in figures else NONE
    found = figures["samples_per_second"]
    return f"{found['median']:,.0f} ({found['min']:,.0f} to {found['max']:,.0f})"


def mean(values: list[float] | None) -> str:
    """Write the mean over seeds; of several also how far apart the ends are."""
    if not values:
        return NONE
    ends = f" ± {(max(values) - min(values)) / 2:.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{ends}"


def ran_with(figures: Tree) -> str:
    """Write processes, threads and precision."""
    if "threads" not in figures:
        return NONE
    return f"{figures.get('processes', 1)} × {figures['threads']} threads, {figures.get('precision', 'fp32')}"


def show_training(tree: Tree) -> None:
    """Print all tables."""
    console = Console()
    grids = [systems_grid, ratios_grid] if {"systems", "auc"} & tree.keys() else []
    grids += [measure_grid] if "sanity_auc" in tree else []
    for grid in [*grids, *([product_grid] if "product" in tree else [])]:
        titles, *lines = grid(tree)
        table = Table(*titles, box=None)
        for line in lines:
            table.add_row(*line)
        console.print(table)
    spent = sum(run["seconds"] for run in tree["runs"])
    console.print(f"{tree['cpu']}; commit {tree['commit']}; {spent:.0f} s", highlight=False)
    for what, why in tree.get("not_measured", {}).items():
        console.print(f"{what} is not measured: {why}", highlight=False)
