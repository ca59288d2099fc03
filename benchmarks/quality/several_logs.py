"""Tables of one set measured on several logs, such as simulated shops of other seeds: means, and over logs.

Each log is a draw of its own, so Student's intervals over logs hold the luck of labels and trainings.
"""

import statistics
from collections.abc import Sequence

from benchmarks.grids import Grid
from benchmarks.quality.driver import over_repeats
from benchmarks.quality.quality_set import Key
from benchmarks.quality.result_tables import NONE, Tree

ORDERS = ("list_auc", "true_list_auc")
"""Metrics that are shown, by labels and by the chances that these were drawn with."""


def logs_grid(trees: Sequence[Tree]) -> Grid:
    """Lay out each row's order inside lists: the mean over logs, and what each log gave."""
    keys = _keys(trees)
    lines = [["row", *(f"{head} {metric}" for head, metric in keys)]]
    for name in trees[0]["by_row"]:
        cells = [_values(trees, name, key) for key in keys]
        lines.append(
            [name, *(f"{statistics.fmean(v):.4f} ({', '.join(_short(x) for x in v)})" for v in cells)]
        )
    return lines


def log_differences_grid(trees: Sequence[Tree]) -> Grid:
    """Lay out the first row less every other: mean, Student's 95 % over logs, and how often it is above."""
    keys, (first, *others) = _keys(trees), trees[0]["by_row"]
    lines = [["row - other row", *(f"{head} {metric}" for head, metric in keys)]]
    for name in others:
        cells = []
        for key in keys:
            both = zip(_values(trees, first, key), _values(trees, name, key), strict=True)
            cells.append(_difference([own - other for own, other in both]))
        lines.append([f"{first} - {name}", *cells])
    return lines


def _keys(trees: Sequence[Tree]) -> list[Key]:
    """List the orders that all logs have of all rows."""
    heads = next(iter(trees[0]["by_row"].values()))
    return [(head, metric) for head, of in heads.items() for metric in ORDERS if metric in of]


def _values(trees: Sequence[Tree], row: str, key: Key) -> list[float]:
    head, metric = key
    return [tree["by_row"][row][head][metric] for tree in trees]


def _difference(values: Sequence[float]) -> str:
    found = over_repeats(values)
    between = NONE if found.low is None or found.high is None else f"{found.low:+.4f} to {found.high:+.4f}"
    return f"{found.value:+.4f} ({between}), above on {sum(v > 0 for v in values)} of {len(values)}"


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")
