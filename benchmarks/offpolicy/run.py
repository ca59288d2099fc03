"""Both parts of `recsys bench offpolicy`, their tables, and the plot of coverage."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.grids import Grid
from benchmarks.offpolicy.open_bandit import PUBLISHED, check_folder, measure_open_bandit
from benchmarks.offpolicy.simulated import SETTINGS, measure_simulated
from recsys.svg import line, svg, text

ORDER = ("ips", "clipped_ips", "snips", "rips", "snrips", "dm", "dr", "switch_dr", "cascade_dr")
_STYLE = (
    "<style>text{font:13px sans-serif;fill:#555}.zero{stroke:#888}.grid{stroke:#ccc}"
    ".a{fill:#2a6fdb}.b{fill:#d9822b}.soft{font-size:11px}</style>"
)


def measure_offpolicy(
    runs: int, requests: int, replicates: int, seed: int, open_bandit: Path | None
) -> dict[str, Any]:
    """Measure the estimators on the simulated shop and, where its folder is given, on Open Bandit.

    Raises: DataError before anything is measured when a file of Open Bandit is missing.
    """
    if open_bandit is not None:
        check_folder(open_bandit)
    with Progress(transient=True, console=Console(stderr=True)) as progress:
        task = progress.add_task("logs of the shop")
        tree = measure_simulated(
            SETTINGS,
            runs,
            requests,
            replicates,
            seed,
            lambda n, of: progress.update(task, completed=n, total=of),
        )
        if open_bandit is not None:
            other = progress.add_task("Open Bandit")
            tree["open_bandit"] = measure_open_bandit(
                open_bandit, seed, lambda n, of: progress.update(other, completed=n, total=of)
            )
    return tree


def show_offpolicy(tree: Mapping[str, Any]) -> None:
    """Print the tables."""
    console = Console()
    for name, grid in GRIDS.items():
        if name.startswith("bandit") and "open_bandit" not in tree:
            continue
        titles, *lines = grid(tree)
        table = Table(*titles, title=name, box=None)
        for cells in lines:
            table.add_row(*cells)
        console.print(table)


def settings_grid(tree: Mapping[str, Any]) -> Grid:
    """Say what each setting's logs support."""
    titles = [
        "setting",
        "truth",
        "effective lists",
        "effective positives",
        "largest weight",
        "stamped",
        "disagreed",
    ]
    return [
        titles,
        *(
            [
                name,
                f"{s['truth']:.4f}",
                f"{s['effective']:,.0f}",
                f"{s['positives']:,.0f}",
                f"{s['max_weight']:.1f}",
                f"{s['stamped']:.0%}",
                f"{s['disagreed']:.1%}",
            ]
            for name, s in tree["settings"].items()
        ),
    ]


def _of_estimators(tree: Mapping[str, Any], cell: str) -> Grid:
    settings = tree["settings"]
    return [
        ["estimator", *settings],
        *(
            [name, *(_CELLS[cell](s["estimators"][name], s["truth"]) for s in settings.values())]
            for name in ORDER
        ),
    ]


_CELLS = {
    "error": lambda e, _truth: f"{e['bias']:+.4f} ± {e['bias_error']:.4f}; {e['variance'] ** 0.5:.4f}",
    "coverage": lambda e, _truth: f"{e['coverage']:.0%} ({e['width']:.3f})",
}


def errors_grid(tree: Mapping[str, Any]) -> Grid:
    """Give bias ± its standard error, and the standard deviation, of each estimator."""
    return _of_estimators(tree, "error")


def coverage_grid(tree: Mapping[str, Any]) -> Grid:
    """Give the coverage of 95 % intervals, and their mean width."""
    return _of_estimators(tree, "coverage")


def bandit_grid(tree: Mapping[str, Any]) -> Grid:
    """Give value, interval and support of each part of Open Bandit."""
    titles = [
        "log -> target, campaign",
        "target's own log",
        "ips",
        "snips",
        "dr [interval]",
        "effective",
        "positives",
        "largest weight",
        "coverage",
        "trusted",
    ]
    lines = []
    for name, part in tree["open_bandit"]["parts"].items():
        of, support = part["value"]["estimates"], part["value"]["support"]
        lines.append(
            [
                name,
                f"{part['truth']:.4f} ± {part['truth_error']:.4f}",
                *(_figure(of[e]["value"]) for e in ("ips", "snips")),
                f"{_figure(of['dr']['value'])} [{_figure(of['dr']['low'])}, {_figure(of['dr']['high'])}]",
                f"{support['effective']:,.0f}",
                f"{support['effective_positives']:.0f}",
                f"{support['max_weight']:,.1f}",
                f"{support['coverage']:.0%}",
                "yes" if part["trustworthy"] else "no",
            ]
        )
    return [titles, *lines]


def bandit_errors_grid(tree: Mapping[str, Any]) -> Grid:
    """Give relative errors over bootstrap samples, with the published ones of the first part."""
    names = list(PUBLISHED)
    parts = tree["open_bandit"]["parts"]
    published = ["published: random -> bts, all", *(f"{m:.3f} ± {s:.3f}" for m, s in PUBLISHED.values())]
    lines = [
        [name, *("{:.3f} ± {:.3f}".format(*part["relative_error"][e]) for e in names)]
        for name, part in parts.items()
    ]
    return [["log -> target, campaign", *names], published, *lines]


def propensities_grid(tree: Mapping[str, Any]) -> Grid:
    """Give predicted and observed propensities of the least and the most probable fifth."""
    titles = [
        "policy",
        "least probable fifth: predicted",
        "observed",
        "most probable fifth: predicted",
        "observed",
    ]
    lines = []
    for name, bins in tree["open_bandit"]["propensities"].items():
        if bins[0]["predicted"] == bins[-1]["predicted"]:
            continue  # all alike: there is nothing to tell apart
        ends = [f"{b[side]:.5f}" for b in (bins[0], bins[-1]) for side in ("predicted", "observed")]
        lines.append([name, *ends])
    return [titles, *lines]


GRIDS = {
    "settings": settings_grid,
    "errors": errors_grid,
    "coverage": coverage_grid,
    "bandit": bandit_grid,
    "bandit_errors": bandit_errors_grid,
    "bandit_propensities": propensities_grid,
}


def coverage_plot(
    tree: Mapping[str, Any],
    estimators: Sequence[str] = ("ips", "snips", "rips", "snrips", "dr", "cascade_dr"),
) -> str:
    """Draw how often 95 % intervals hold the truth; filled points: bootstrap, open ground: Bernstein."""
    settings, row, left, width, least = tree["settings"], 22.0, 200.0, 380.0, 0.8
    shapes, y = [_STYLE], 24.0

    def x(share: float) -> float:
        return left + width * (max(share, least) - least) / (1 - least)

    for name, setting in settings.items():
        shapes.append(text(4, y + 14, name, "start"))
        few = setting["intervals"] == ["empirical Bernstein"]
        for estimator in estimators:
            y += row
            share = setting["estimators"][estimator]["coverage"]
            shapes.append(text(left - 10, y + 14, estimator, "end", "soft"))
            shapes.append(
                f'<circle class="{"b" if few else "a"}" cx="{x(share):.1f}" cy="{y + 10:.1f}" r="5"/>'
            )
            shapes.append(text(left + width + 12, y + 14, f"{share:.1%}", "start", "soft"))
        y += row + 8
    for tick in (0.8, 0.85, 0.9, 0.95, 1.0):
        shapes.append(line((x(tick), 20), (x(tick), y), "zero" if tick == 0.95 else "grid"))
        shapes.append(text(x(tick), y + 16, f"{tick:.0%}", "middle"))
    shapes.append('<circle class="a" cx="210" cy="8" r="5"/>' + text(220, 12, "bootstrap", "start", "soft"))
    shapes.append(
        '<circle class="b" cx="310" cy="8" r="5"/>' + text(320, 12, "empirical Bernstein", "start", "soft")
    )
    drawn = str(
        svg(left + width + 80, y + 28, "".join(shapes), "Coverage of 95 % intervals by estimator and setting")
    )
    return drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"


def _figure(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"
