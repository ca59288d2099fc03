"""Tables of `recsys bench train`'s JSON, for the terminal and for its page."""

import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.console import Console

from benchmarks.grids import Grid, print_grid
from benchmarks.speed.training.profile_part import profile_grid

Tree = Mapping[str, Any]
NONE = "–"


def systems_grid(tree: Tree) -> Grid:
    """Lay out every system at every batch size: rate, memory, AUC."""
    tasks = tasks_of(tree)
    lines = [["system", "batch", "samples/s", "peak MB", *(f"{task} AUC" for task in tasks), "ran with"]]
    speed, scored = tree.get("systems", {}), tree.get("auc", {})
    for size in tree["batch_sizes"]:
        for name in (
            n for n in dict.fromkeys([*speed, *scored]) if size in speed.get(n, {}) | scored.get(n, {})
        ):
            figures = speed.get(name, {}).get(size, {})
            aucs = [_of_task(scored.get(name, {}).get(size, {}), task) for task in tasks]
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
    sizes = tree["batch_sizes"]
    lines = [["", *(f"batch {size}" for size in sizes)]]
    for key, title in names.items():
        lines.append([title, *(NONE if tree[key].get(s) is None else f"{tree[key][s]:.3g}" for s in sizes)])
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
        lines.append([name, *(f"{rate(of[how])}; {ran_with(of[how])}" for how in hows)])
    if tree["product_ratio_to_before"] is not None:
        lines.append(["ratio", *(f"{tree['product_ratio_to_before'][how]:.2f}" for how in hows)])
    return lines


def choice_grid(tree: Tree) -> Grid:
    """Lay out the short runs that chose precision and processes."""
    lines = [["short run", "precision, processes", "samples/s"]]
    for size, rates in tree.get("choice", {}).items():
        lines += [[f"batch {size}", form, f"{value:,.0f}"] for form, value in rates.items()]
    lines += [
        ["product model", form, f"{value:,.0f}"] for form, value in tree.get("product_choice", {}).items()
    ]
    return lines


def stages_grid(tree: Tree) -> Grid:
    """Lay out the stages of the product model's day, and its fit beside the floor."""
    parts = tree["product_parts"]
    stages = ("snapshot", "encode", "batch")
    return [
        ["stage of a day", "rows/s", "share of the floor"],
        *([name, f"{parts[f'{name}_rows_per_second']:,.0f}", NONE] for name in stages),
        *(
            [f"fit, {name}", f"{of['rows_per_second']:,.0f}", f"{of['share_of_floor']:.3g}"]
            for name, of in parts["fit"].items()
        ),
    ]


def processes_grid(tree: Tree) -> Grid:
    """Lay out one process beside several, of both models."""
    synthetic, product = tree["processes"]["synthetic log"], tree["processes"]["product model"]
    sizes = list(dict.fromkeys(size for of in synthetic.values() for size in of))
    lines = [["samples/s", *(f"synthetic log, batch {size}" for size in sizes), "product model", "precision"]]
    for name, of in product.items():
        lines.append([name, *(rate(synthetic[name].get(s, {})) for s in sizes), rate(of), of["precision"]])
    return lines


def precision_grid(tree: Tree) -> Grid:
    """Lay out both precisions' figures, their difference, and how far seeds lie apart."""
    found = tree["precision"]
    figures: dict[str, dict[str, list[float]]] = {}
    for precision, sizes in found["synthetic log"].items():
        for size, of in sizes.items():
            for task in next(iter(of.values())):
                named = figures.setdefault(f"synthetic log, batch {size}, {task} AUC", {})
                named[precision] = [values[task] for values in of.values()]
    for precision, by_name in found["product model"].items():
        for name, values in by_name.items():
            figures.setdefault(f"product model, {name}", {})[precision] = values
    lines = [["figure", "fp32", "bf16", "bf16 - fp32, means", "from lowest to highest seed, fp32"]]
    for name, by_precision in figures.items():
        full, half = by_precision["fp32"], by_precision["bf16"]
        moved = statistics.fmean(half) - statistics.fmean(full)
        lines.append([name, mean(full), mean(half), f"{moved:+.4f}", f"{max(full) - min(full):.4f}"])
    return lines


def memory_grid(tree: Tree) -> Grid:
    """Lay out peaks of a day's encoding and streaming, by its rows."""
    names = {
        "encode_anonymous_mb": "encode, own MB",
        "encode_files_mb": "encode, file pages MB",
        "stream_anonymous_mb": "stream, own MB",
        "stream_files_mb": "stream, file pages MB",
    }
    lines = [["rows", *names.values(), "encode s", "stream s"]]
    for rows, of in tree["memory"].items():
        peaks = [f"{of[name]:,.0f}" for name in names]
        lines.append([f"{int(rows):,}", *peaks, f"{of['encode_s']:.0f}", f"{of['stream_s']:.0f}"])
    return lines


def night_grid(tree: Tree) -> Grid:
    """Lay out the demo's first night."""
    lines = [["first night of the demo", "seconds, median (ends)"]]
    for name, of in tree["night"].items():
        seconds = of["seconds"]
        ends = f" ({seconds['min']:.1f} to {seconds['max']:.1f})" if len(seconds["runs"]) > 1 else ""
        lines.append([name, f"{seconds['median']:.1f}{ends}{noise(of)}"])
    return lines


def runs_grid(tree: Tree) -> Grid:
    """Lay out which command made which figures, of which commit, in how many seconds."""
    return [
        ["command", "commit", "seconds"],
        *([f"`{r['command']}`", r["commit"], f"{r['seconds']:,.0f}"] for r in tree["runs"]),
    ]


GRIDS: dict[str, Callable[[Tree], Grid]] = {
    "systems": systems_grid,
    "ratios": ratios_grid,
    "measure": measure_grid,
    "product": product_grid,
    "choice": choice_grid,
    "product_parts": stages_grid,
    "profile": profile_grid,
    "processes": processes_grid,
    "precision": precision_grid,
    "memory": memory_grid,
    "night": night_grid,
    "runs": runs_grid,
}
"""Name of a table on the page -> its lines."""
_NEEDED = {"ratios": ("systems", "auc"), "measure": ("sanity_auc",), "systems": ("systems", "auc")}
"""The keys of which a table needs one, where they are not its name."""


def rate(figures: Tree) -> str:
    """Write a median and both ends."""
    if "samples_per_second" not in figures:
        return NONE
    found = figures["samples_per_second"]
    return f"{found['median']:,.0f} ({found['min']:,.0f} to {found['max']:,.0f}){noise(figures)}"


def noise(figures: Tree) -> str:
    """Write beside what load a noisy figure was measured."""
    return f", noisy: {figures['other_cores']:.2f} cores of others" if figures["noisy"] else ""


def _of_task(by_seed: Tree, task: str) -> list[float]:
    return [of[task] for of in by_seed.values()]


def mean(values: Iterable[float]) -> str:
    """Write the mean over seeds; of several also the lowest and the highest."""
    known = list(values)
    if not known:
        return NONE
    ends = f" ({min(known):.4f} to {max(known):.4f})" if len(known) > 1 else ""
    return f"{statistics.fmean(known):.4f}{ends}"


def ran_with(figures: Tree) -> str:
    """Write processes, threads and precision."""
    if "threads" not in figures:
        return NONE
    return f"{figures.get('processes', 1)} × {figures['threads']} threads, {figures.get('precision', 'fp32')}"


def show_training(tree: Tree) -> None:
    """Print all tables of what was measured."""
    console = Console()
    for name, grid in GRIDS.items():
        if name != "runs" and any(key in tree for key in _NEEDED.get(name, (name,))):
            print_grid(grid(tree))
    spent = sum(run["seconds"] for run in tree["runs"])
    console.print(f"{tree['cpu']}; commit {tree['commit']}; {spent:.0f} s", highlight=False)
    for key, title in {"noisy": "noisy", "not_measured": "not measured"}.items():
        for what, why in tree[key].items():
            console.print(f"{title}: {what}: {why}", highlight=False)
