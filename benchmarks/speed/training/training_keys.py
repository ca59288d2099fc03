"""What is asked for by name in `recsys bench train`'s JSON, and why a figure is not there or is noisy."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.speed.training.product_speed import NOW, ratios
from benchmarks.speed.training.ranking import worst_difference
from benchmarks.speed.training.systems import OURS
from benchmarks.speed.training.throughput import median_of

Tree = Mapping[str, Any]
NO_PEER = "no --peer was given"


def named_keys(tree: Tree) -> dict[str, Any]:
    """Give the named figures of all parts measured so far; a null is explained under `not_measured`."""
    speed, scored = tree.get("systems", {}), tree.get("auc", {})
    ways: dict[str, Callable[[str], float | None]] = {
        "samples_per_second": lambda size: median_of(speed[OURS][size]),
        "ratio_to_best_peer": lambda size: _ratio(speed, size),
        "auc_minus_best_peer": lambda size: worst_difference(scored, OURS, size),
        "floor_share": lambda size: median_of(speed[OURS][size]) / tree["floor"][size]["rows_per_second"],
        "peak_rss_mb": lambda size: speed[OURS][size]["peak_rss_mb"],
    }
    missing: dict[str, str] = {}
    keys: dict[str, Any] = {name: {} for name in ways}
    for size in tree["batch_sizes"]:
        for name, way in ways.items():
            part, of = ("auc", scored) if name.startswith("auc") else ("speed", speed)
            measured = size in of.get(OURS, {})
            keys[name][size] = way(size) if measured else None
            if keys[name][size] is None:
                missing[f"{name}, batch {size}"] = NO_PEER if measured else _not_run(part)
    keys |= _product_keys(tree, missing)
    return keys | {"not_measured": missing, "noisy": dict(_noisy(tree))}


def _ratio(speed: Tree, size: str) -> float | None:
    peers = [median_of(of[size]) for name, of in speed.items() if name != OURS and size in of]
    return median_of(speed[OURS][size]) / max(peers) if peers else None


def _product_keys(tree: Tree, missing: dict[str, str]) -> dict[str, Any]:
    product = tree.get("product")
    if product is None:
        missing |= dict.fromkeys(
            ("product_samples_per_second", "product_ratio_to_before"), _not_run("product")
        )
        return {"product_samples_per_second": None, "product_ratio_to_before": None}
    found = ratios(product)
    if found is None:
        missing["product_ratio_to_before"] = "no --before REV was given"
    rates = {how: median_of(figures) for how, figures in product[NOW].items()}
    return {"product_samples_per_second": rates, "product_ratio_to_before": found}


def _not_run(part: str) -> str:
    return f"--part {part} was not run"


def _noisy(tree: Tree) -> Iterator[tuple[str, str]]:
    """Name the figures beside which others took too much of the cores."""
    titles = {"systems": "{}, batch {}", "product": "product model {}, {}"}
    for key, title in titles.items():
        for name, of in tree.get(key, {}).items():
            for how, figures in of.items():
                if figures["noisy"]:
                    yield title.format(name, how), f"others took up to {figures['other_cores']:.2f} cores"
