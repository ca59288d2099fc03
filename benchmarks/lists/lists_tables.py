"""Tables of `recsys bench lists`' JSON, for the terminal and for its page."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from benchmarks.grids import Grid, print_grid

Tree = Mapping[str, Any]


def values_grid(tree: Tree, regime: str) -> Grid:
    """Lay out the true value of each policy of a regime, best first."""
    of = tree["regimes"].get(regime)
    titles = ["policy", "kind", "true value", "95 %", "of the oracle", "click", "purchase", "stars"]
    titles += ["above the funnel", "above own clicks"]
    if of is None:
        return [titles]
    rows = sorted(of["true_value"].items(), key=lambda row: -float(row[1]["mean"]))
    return [
        titles,
        *(
            [
                name,
                value["kind"],
                f"{value['mean']:.3f}",
                f"{value['low']:.3f} to {value['high']:.3f}",
                f"{value['share_of_oracle']:.2f}",
                f"{value['clicks']:.4f}",
                f"{value['purchases']:.4f}",
                f"{value['stars']:.2f}",
                _share(of["above_funnel"][name]),
                _share(of["above_own_clicks"][name]),
            ]
            for name, value in rows
        ),
    ]


def metrics_grid(tree: Tree) -> Grid:
    """Lay out each metric's rank correlation with the truth, per regime: chosen; confirmed; random labels."""
    regimes = list(tree["regimes"])
    lines = []
    for metric, all_of in tree["policies"].items():
        cells = [metric]
        for regime in regimes:
            found = tree["regimes"][regime]["metrics"][metric]
            cells.append(
                f"{_figure(found['rank_correlation'])}; {_figure(found['confirmed'])}; "
                f"{_figure(found['random_labels'])}"
            )
            wrong = found["wrong_pairs"]
            cells.append("–" if wrong is None else f"{100 * wrong:.0f} % of {found['pairs']:.0f}")
        lines.append([*cells, "yes" if all_of["primary"] else "no"])
    titles = [title for regime in regimes for title in (regime, f"{regime}: wrong pairs")]
    return [["metric", *titles, "primary"], *lines]


def asked_grid(tree: Tree, regime: str) -> Grid:
    """Lay out what a rule, random pages, the funnel and the truth score by each metric."""
    policies = ("random", "recent popular", "own clicks, then popular", "funnel", "truth over the catalogue")
    of = tree["regimes"].get(regime)
    if of is None:
        return [["metric", *policies]]
    return [
        ["metric", *policies],
        *(
            [metric, *(_figure(figures[name], digits=3) for name in policies)]
            for metric, figures in of["figures"].items()
        ),
    ]


def _share(paired: Mapping[str, float]) -> str:
    return f"{100 * paired['mean']:+.1f} % ({100 * paired['low']:+.1f} to {100 * paired['high']:+.1f})"


def _figure(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


GRIDS: Mapping[str, Callable[[Tree], Grid]] = {
    "metrics": metrics_grid,
    **{
        f"{table}_{regime}": partial(grid, regime=regime)
        for regime in ("tastes", "ignorant", "uniform")
        for table, grid in (("values", values_grid), ("asked", asked_grid))
    },
}
"""Name of a table on the page -> its lines."""


def show_lists(tree: Tree) -> None:
    """Print all tables."""
    for name, grid in GRIDS.items():
        lines = grid(tree)
        if len(lines) > 1:
            print(name)
            print_grid(lines)
