"""Tables of `docs/benchmarks*`, made from the JSON that `recsys bench quality --json` wrote.

A page holds prose by hand and tables between markers:

    <!-- table: rows -->
    <!-- end of table -->

`rows` has a line per row and per published one; `differences` a line per pair of rows. The summary page has
`summary`: the chosen row of every set beside its best baseline and the best published figure.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.quality.quality_set import LOWER_IS_BETTER, Key
from recsys.errors import ConfigError

Tree = Mapping[str, Any]
"""One set's JSON."""
ORACLES = ("informed_oracle", "truth")
"""They know what no system can: rows of the table, but no baselines to beat."""
NONE = "–"
_BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def read_results(folder: Path) -> dict[str, Tree]:
    """Read every set's JSON of a folder, by the set's name.

    Raises: ConfigError when there is none.
    """
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    if not found:
        raise ConfigError(f"{folder} has no *.json; write one with `recsys bench quality --json`")
    return found


def fill_pages(docs: Path) -> dict[Path, str]:
    """Give the text of every page below `docs`, with its tables made anew.

    Raises: ConfigError when a set has no page, or a page names a table that there is not.
    """
    results = read_results(docs / "benchmarks" / "results")
    pages: dict[Path, dict[str, Callable[[], str]]] = {
        docs / "benchmarks.md": {"summary": partial(summary_table, results)}
    }
    for name, tree in results.items():
        page = docs / "benchmarks" / f"{name}.md"
        if not page.exists():
            raise ConfigError(f"{page} is missing; write the page of {name}, with markers for its tables")
        pages[page] = {"rows": partial(rows_table, tree), "differences": partial(differences_table, tree)}
    return {page: _filled(page, tables) for page, tables in pages.items()}


def _filled(page: Path, tables: Mapping[str, Callable[[], str]]) -> str:
    def made(block: re.Match[str]) -> str:
        if block[2] not in tables:
            raise ConfigError(f"{page} asks for table {block[2]!r}; it can have: {', '.join(tables)}")
        return f"{block[1]}{tables[block[2]]()}\n{block[3]}"

    return _BLOCK.sub(made, page.read_text())


def rows_table(tree: Tree) -> str:
    """Lay out a set's rows; the chosen one is bold, published ones are in italics."""
    columns = _columns([row["heads"] for row in tree["rows"]])
    lines = []
    for row in tree["rows"]:
        cells = [_figure(row["heads"].get(h, {}).get(m)) for h, m in columns]
        chosen = row["name"] == tree["best"].get("row")
        name = f"**{row['name']}** (chosen on validation)" if chosen else row["name"]
        lines.append([name, *cells, str(row["seeds"])])
    for name, heads in tree["published"].items():
        known = [heads.get(h, {}).get(m) for h, m in columns]
        lines.append([f"*{name}*", *(NONE if v is None else _number(v) for v in known), ""])
    return _table(["row", *(f"{h} {m}" for h, m in columns), "seeds"], lines)


def differences_table(tree: Tree) -> str:
    """Lay out a set's paired differences; bold where the interval leaves out 0."""
    columns = list(dict.fromkeys((d["head"], d["metric"]) for d in tree["differences"]))
    lines: dict[tuple[str, str], dict[Key, str]] = {}
    for d in tree["differences"]:
        lines.setdefault((d["row"], d["against"]), {})[d["head"], d["metric"]] = _difference(d)
    return _table(
        ["row - other row", *(f"{h} {m}" for h, m in columns)],
        [[f"{row} - {other}", *(of.get(c, NONE) for c in columns)] for (row, other), of in lines.items()],
    )


def summary_table(results: Mapping[str, Tree]) -> str:
    """Lay out the figures of every set's chosen row; command and commit stand in a set's first line."""
    lines = []
    for name, tree in results.items():
        chosen = next(row for row in tree["rows"] if row["name"] == tree["best"]["row"])
        first = [f"[{name}](benchmarks/{name}.md)", f"`{tree['command']}`", tree["commit"]]
        for key in _columns([chosen["heads"]]):
            lines.append([first[0], *_summary(tree, chosen, key), *first[1:]])
            first = [""] * 3
    titles = ["set", "figure", "our best", "best baseline", "verdict", "published", "command", "commit"]
    return _table(titles, lines)


def _summary(tree: Tree, chosen: Tree, key: Key) -> list[str]:
    """Give the figure's name, ours, the best baseline, the verdict on both, the best published."""
    head, metric = key
    simple = {
        row["name"]: row["heads"][head][metric]["value"]
        for row in tree["rows"]
        if not row["ours"] and row["name"] not in ORACLES and metric in row["heads"].get(head, {})
    }
    published = {n: of[head][metric] for n, of in tree["published"].items() if metric in of.get(head, {})}
    best = min if metric in LOWER_IS_BETTER else max
    baseline = best(simple, key=lambda n: simple[n]) if simple else None
    compared = {(d["row"], d["against"], d["head"], d["metric"]): d["verdict"] for d in tree["differences"]}
    verdict = compared.get((chosen["name"], baseline, head, metric), "not compared" if baseline else NONE)
    return [
        f"{head} {metric}",
        f"{chosen['name']} {_number(chosen['heads'][head][metric]['value'])}",
        NONE if baseline is None else f"{baseline} {_number(simple[baseline])}",
        verdict,
        ", ".join(f"{n} {_number(v)}" for n, v in published.items() if v == best(published.values())) or NONE,
    ]


def _columns(rows: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[Key]:
    """Give the figures of rows, a head's beside each other, heads in the order in which rows have them."""
    named = [(head, metric) for heads in rows for head, metrics in heads.items() for metric in metrics]
    order = list(dict.fromkeys(head for head, _ in named))
    return sorted(dict.fromkeys(named), key=lambda column: order.index(column[0]))


def _figure(figure: Tree | None) -> str:
    if figure is None:
        return NONE
    if figure["low"] is None:
        return _number(figure["value"])
    return f"{_number(figure['value'])} ({_number(figure['low'])} to {_number(figure['high'])})"


def _difference(d: Tree) -> str:
    value, verdict = f"{d['value']:+.4f}", d["verdict"]
    if d["low"] is None:
        return f"{value} {verdict}"
    marked = value if verdict == "no evidence" else f"**{value}**"
    return f"{marked} ({d['low']:+.4f} to {d['high']:+.4f}) {verdict}"


def _number(value: float) -> str:
    return f"{value:.4f}"


def _table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    ruled = [list(titles), ["---"] * len(titles), *map(list, lines)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in ruled)
