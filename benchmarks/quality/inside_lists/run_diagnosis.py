"""`recsys bench inside`: train a night's model from several seeds, diagnose it, and show the tables."""

import importlib
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.commit import commit
from benchmarks.grids import Grid, print_grid
from benchmarks.quality.inside_lists.diagnosis import diagnose
from benchmarks.quality.sets.night import Night
from recsys.errors import ConfigError
from training.threads import use_threads

OpenNight = Callable[[Path, Path], Night]
"""(folder of the set's files, scratch folder) -> the night."""
NIGHTS: dict[str, str] = {
    "kuairand": "benchmarks.quality.sets.kuairand:kuairand_night",
    "shop": "benchmarks.quality.sets.simulated_shop:shop_night",
}
"""Set -> "module:function" that plans its night: `OpenNight`."""
_ROWS = {
    "the model": "model",
    "the item's own smoothed rate": "item_rate",
    "the model, mean of other users": "of_others",
    "the model, less that mean": "own_part",
}


def run_diagnosis(name: str, data: Path, seeds: int) -> dict[str, Any]:
    """Train a set's config and diagnose it on the calibration day; news go to the terminal.

    Returns: JSON, with the command and the commit that made it.
    Raises: ConfigError on an unknown set; DataError when its files are missing.
    """
    if name not in NIGHTS:
        raise ConfigError(f"--set {name!r} has no night to diagnose; those that have: {', '.join(NIGHTS)}")
    module, function = NIGHTS[name].split(":")
    open_night: OpenNight = getattr(importlib.import_module(module), function)
    use_threads(1)
    console = Console(stderr=True)

    def say(line: str) -> None:
        console.print(line, highlight=False)

    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as scratch:
        night = open_night(data, Path(scratch))
        runs, config = night.runs, night.config
        trained = []
        for seed in range(seeds):
            say(f"training, seed {seed}")
            trained.append(runs.train(config, config.tasks, seed, prepared=runs.prepared))
        found = diagnose(night, trained, say)
    command = f"recsys bench inside --set {name} --data DIR --seeds {seeds} --json FILE"
    return {"set": name, **found, "command": command, "commit": commit()}


def show_diagnosis(tree: Mapping[str, Any]) -> None:
    """Print the tables, and what they are of as one line of JSON."""
    for grid in (orders_grid(tree), inputs_grid(tree)):
        print_grid(grid)
    about = {key: tree[key] for key in ("set", "day", "rows", "models")}
    Console().print(json.dumps(about), highlight=False)


def orders_grid(tree: Mapping[str, Any]) -> Grid:
    """Lay out what orders lists, a column per head."""
    heads = tree["heads"]
    lines = [["list_auc", *heads]]
    lines += [[title, *(f"{h['list_auc'][key]:.4f}" for h in heads.values())] for title, key in _ROWS.items()]
    lines.append(["what the user adds", *(_effect(h["user_adds"]) for h in heads.values())])
    lines.append(["personal share of the variance", *(f"{h['personal_share']:.3f}" for h in heads.values())])
    return [*lines, ["lists with both labels", *(str(h["lists"]) for h in heads.values())]]


def inputs_grid(tree: Mapping[str, Any]) -> Grid:
    """Lay out what is lost when an input is exchanged, a line per input."""
    heads = tree["heads"]
    lines = [["input", "exchanged with", *heads]]
    for of_input in zip(*(head["inputs"] for head in heads.values()), strict=True):
        first = of_input[0]
        other = "another item of the list" if first["side"] == "item" else "another user"
        lines.append([first["input"], other, *map(_effect, of_input)])
    return lines


def _effect(effect: Mapping[str, float | None]) -> str:
    value, low, high = (effect[key] for key in ("value", "low", "high"))
    if value is None:
        return "–"
    return f"{value:+.4f}" if low is None else f"{value:+.4f} ({low:+.4f} to {high:+.4f})"


GRIDS: Mapping[str, Callable[[Mapping[str, Any]], Grid]] = {"orders": orders_grid, "inputs": inputs_grid}
"""Tables of a page: name -> what lays it out."""
