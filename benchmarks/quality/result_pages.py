"""Pages of `docs/benchmarks*`: prose by hand, and tables made from the JSON of the benches.

A table stands between markers:

    <!-- table: rows -->
    <!-- end of table -->

A set's page can have `rows` and `differences`, the page of all sets has `summary`. A set that was measured on
more logs has their JSON in `results/SET`, and its page can have `logs` and `log_differences`. The JSON of
`recsys bench train` and `recsys bench nights` is in `results/training`, that of `recsys bench serve` in
`results/serving`, that of `recsys bench inside` in `results/inside`, that of `recsys bench lists` in
`results/lists`; their pages have the tables that they print.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.grids import Grid
from benchmarks.lists import lists_tables
from benchmarks.nights import nights_tables
from benchmarks.offpolicy import run as offpolicy_tables
from benchmarks.quality.inside_lists import run_diagnosis
from benchmarks.quality.result_tables import differences_grid, rows_grid, summary_grid
from benchmarks.quality.several_logs import log_differences_grid, logs_grid
from benchmarks.speed.serve import serve_tables
from benchmarks.speed.training import training_tables
from recsys.errors import ConfigError

BENCH_PAGES: Mapping[str, Mapping[str, Callable[[Mapping[str, Any]], Grid]]] = {
    "training/training-speed": training_tables.GRIDS,
    "training/nights": nights_tables.GRIDS,
    "inside/inside-kuairand": run_diagnosis.GRIDS,
    "inside/inside-shop": run_diagnosis.GRIDS,
    "serving/serving": serve_tables.GRIDS,
    "lists/lists": lists_tables.GRIDS,
    "offpolicy/offpolicy": offpolicy_tables.GRIDS,
}
"""JSON below `results`, without its ending -> tables of the page of its name."""
_BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def fill_pages(docs: Path) -> dict[Path, str]:
    """Give the text of every page below `docs`, with its tables made anew.

    Raises: ConfigError when there is no JSON, a set has no page, or a page names a table that there is not.
    """
    folder = docs / "benchmarks" / "results"
    results = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    if not results:
        raise ConfigError(f"{folder} has no *.json; write one with `recsys bench quality --json`")
    pages: dict[Path, dict[str, Callable[[], Grid]]] = {
        docs / "benchmarks.md": {"summary": partial(summary_grid, results)}
    }
    for name, tree in results.items():
        page = docs / "benchmarks" / f"{name}.md"
        if not page.exists():
            raise ConfigError(f"{page} is missing; write the page of {name}, with markers for its tables")
        pages[page] = {"rows": partial(rows_grid, tree), "differences": partial(differences_grid, tree)}
        if logs := [json.loads(path.read_text()) for path in sorted((folder / name).glob("*.json"))]:
            pages[page] |= {
                "logs": partial(logs_grid, logs),
                "log_differences": partial(log_differences_grid, logs),
            }
    for name, grids_of in BENCH_PAGES.items():
        if (path := folder / f"{name}.json").exists():
            tree = json.loads(path.read_text())
            pages[docs / "benchmarks" / f"{path.stem}.md"] = {
                table: partial(grid, tree) for table, grid in grids_of.items()
            }
    return {page: _filled(page, grids) for page, grids in pages.items()}


def _filled(page: Path, grids: Mapping[str, Callable[[], Grid]]) -> str:
    def made(block: re.Match[str]) -> str:
        if block[2] not in grids:
            raise ConfigError(f"{page} asks for table {block[2]!r}; it can have: {', '.join(grids)}")
        titles, *lines = grids[block[2]]()
        ruled = [titles, ["---"] * len(titles), *lines]
        return block[1] + "".join(f"| {' | '.join(cells)} |\n" for cells in ruled) + block[3]

    return _BLOCK.sub(made, page.read_text())
