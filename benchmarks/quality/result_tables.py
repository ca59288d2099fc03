"""Tables of a set's JSON, for the terminal and for the pages: one line per row, per pair of rows, per set."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from benchmarks.grids import Grid
from benchmarks.quality.quality_set import Key, lower_is_better

Tree = Mapping[str, Any]
"""One set's JSON: `QualityReport.as_json`."""
ORACLES = ("informed_oracle", "appeal_oracle", "truth")
"""They know what no system can: rows of the table, but no baselines to beat."""
NONE = "–"


def rows_grid(tree: Tree) -> Grid:
    """Lay out a set's rows, published ones below; heads in the order in which rows have them."""
    columns = _columns([*(row["heads"] for row in tree["rows"]), *tree["published"].values()])
    lines = [["row", *(f"{h} {m}" for h, m in columns), "seeds", "note"]]
    for row in tree["rows"]:
        cells = [_figure(row["heads"].get(h, {}).get(m)) for h, m in columns]
        chosen = " (chosen on validation)" if row["name"] == tree["best"].get("row") else ""
        chosen = " (its lists, chosen on validation)" if row["name"] == tree["best"].get("lists") else chosen
        lines.append([row["name"] + chosen, *cells, str(row["seeds"]), row["note"]])
    for name, heads in tree["published"].items():
        known = [heads.get(h, {}).get(m) for h, m in columns]
        lines.append([name, *(NONE if v is None else _number(v) for v in known), "", "published"])
    return lines if any(line[-1] for line in lines[1:]) else [line[:-1] for line in lines]


def differences_grid(tree: Tree) -> Grid:
    """Lay out a set's paired differences: a line per pair of rows, a column per figure."""
    columns = list(dict.fromkeys((d["head"], d["metric"]) for d in tree["differences"]))
    pairs: dict[tuple[str, str], dict[Key, str]] = {}
    for d in tree["differences"]:
        pairs.setdefault((d["row"], d["against"]), {})[d["head"], d["metric"]] = _difference(d)
    lines = [[f"{row} - {other}", *(of.get(c, NONE) for c in columns)] for (row, other), of in pairs.items()]
    return [["row - other row", *(f"{h} {m}" for h, m in columns)], *lines]


def summary_grid(results: Mapping[str, Tree]) -> Grid:
    """Lay out figures of every set's chosen row and lists; command and commit stand in its first line."""
    lines = [
        ["set", "figure", "our best", "best baseline", "verdict", "published", "command", "commit"],
    ]
    for name, tree in results.items():
        chosen = next(row for row in tree["rows"] if row["name"] == tree["best"]["row"])
        first = [f"[{name}](benchmarks/{name}.md)", f"`{tree['command']}`", tree["commit"]]
        of_lists = next((row for row in tree["rows"] if row["name"] == tree["best"].get("lists")), None)
        for key in _columns([chosen["heads"]]):
            leads = of_lists is not None and key[1] in of_lists["heads"].get(key[0], {})
            row = of_lists if of_lists is not None and leads else chosen
            lines.append([first[0], *_summary(tree, row, key), *first[1:]])
            first = [""] * 3
    return lines


def _summary(tree: Tree, chosen: Tree, key: Key) -> list[str]:
    """Give the figure's name, ours, the best baseline, the verdict on both, the best published."""
    head, metric = key
    simple = {
        row["name"]: row["heads"][head][metric]["value"]
        for row in tree["rows"]
        if not row["ours"] and row["name"] not in ORACLES and metric in row["heads"].get(head, {})
    }
    published = {n: of[head][metric] for n, of in tree["published"].items() if metric in of.get(head, {})}
    best: Callable[[Collection[float]], float] = min if lower_is_better(metric) else max
    baseline = next((n for n, v in simple.items() if v == best(simple.values())), None)
    compared = {(d["row"], d["against"], d["head"], d["metric"]): d["verdict"] for d in tree["differences"]}
    missing = NONE if baseline is None else "not compared"
    return [
        f"{head} {metric}",
        f"{chosen['name']} {_number(chosen['heads'][head][metric]['value'])}",
        NONE if baseline is None else f"{baseline} {_number(simple[baseline])}",
        compared.get((chosen["name"], baseline, head, metric), missing),
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
    between = "" if d["low"] is None else f" ({d['low']:+.4f} to {d['high']:+.4f})"
    return f"{d['value']:+.4f}{between} {d['verdict']}"


def _number(value: float) -> str:
    return f"{value:.4f}"
