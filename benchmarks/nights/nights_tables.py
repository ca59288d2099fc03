"""Tables of `recsys bench nights`' JSON, for the terminal and for its page."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from benchmarks.grids import Grid, print_grid

Tree = Mapping[str, Any]


def policies_grid(tree: Tree) -> Grid:
    """Lay out each policy's means over the nights."""
    return _grid("policy", tree["policies"])


def new_head_grid(tree: Tree, task: str) -> Grid:
    """Lay out the ways to teach a new head."""
    return _grid(f"{task} is new", tree["new_heads"][task])


def new_inputs_grid(tree: Tree, name: str) -> Grid:
    """Lay out the ways to teach new inputs."""
    return _grid(f"{name} are new", tree["new_inputs"][name])


def hours_grid(tree: Tree) -> Grid:
    """Lay out the last day by the version alone and by its updates."""
    versions = tree["hours"]["versions"]
    names = list(next(iter(versions.values())))
    lines = [[name, *(f"{of[n]:.4f}" for n in names)] for name, of in versions.items()]
    return [["version", *names], *lines]


def _grid(title: str, rows: Mapping[str, Tree]) -> Grid:
    names = list(next(iter(rows.values()))["figures"])
    lines = [
        [name, *(f"{of['figures'][n]:.4f}" for n in names), str(of["cpu_seconds"])]
        for name, of in rows.items()
    ]
    return [[title, *names, "CPU s"], *lines]


GRIDS: Mapping[str, Callable[[Tree], Grid]] = {
    "policies": policies_grid,
    "new_purchase": partial(new_head_grid, task="purchase"),
    "new_rating": partial(new_head_grid, task="rating"),
    "new_attributes": partial(new_inputs_grid, name="attributes"),
    "new_counts": partial(new_inputs_grid, name="counts of days"),
    "hours": hours_grid,
}
"""Name of a table on the page -> its lines."""


def show_nights(tree: Tree) -> None:
    """Print all tables."""
    new_heads = [new_head_grid(tree, task) for task in tree["new_heads"]]
    new_inputs = [new_inputs_grid(tree, name) for name in tree["new_inputs"]]
    for grid in (policies_grid(tree), *new_heads, *new_inputs, hours_grid(tree)):
        print_grid(grid)
