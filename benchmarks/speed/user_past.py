"""What a request pays for the user's own past, in processor time: `python -m benchmarks.speed.user_past`."""

import json
import time
from collections.abc import Callable

import numpy as np

from features.taken_events import unpacked_taken
from recsys.item_item.neighbours import ItemItem
from recsys.source_terms import SourceTerms
from recsys.user_past import UserPast
from recsys.user_sources import PastNumbers

CATALOGUES = {10_000: 200, 1_000_000: 40}
"""Items -> neighbours of each."""
EVENTS = (50, 200, 500)
_NOW_MS = 1_800_000_000_000
_CALLS = 200


def main() -> None:
    """Print a line per catalogue and length of the past."""
    rng = np.random.default_rng(0)
    for num_items, most in CATALOGUES.items():
        table = ItemItem(
            neighbours=rng.integers(0, num_items, (num_items, most)).astype(np.int32),
            weights=rng.random((num_items, most)).astype(np.float32),
        )
        mega = (table.neighbours.nbytes + table.weights.nbytes) / 1e6
        for events in EVENTS:
            parts = _parts(table, num_items, events, rng)
            costs = ", ".join(f"{name} {_median_us(call):.0f}" for name, call in parts.items())
            print(f"{num_items:,} items ({mega:.0f} MB), {events} events, µs: {costs}")


def _parts(
    table: ItemItem, num_items: int, events: int, rng: np.random.Generator
) -> dict[str, Callable[[], object]]:
    kinds = frozenset({"purchase"})
    terms = SourceTerms(item_item=1.0, repeat=1.0)
    past = UserPast(table=table, taking_kinds=kinds, repeat_kinds=kinds, terms=terms)
    rows = rng.integers(0, num_items, events)
    at_ms = _NOW_MS - rng.integers(0, 365 * 86_400_000, events)
    packed = {"purchase": {f"item-{row:07d}": [int(at)] for row, at in zip(rows, at_ms, strict=True)}}
    text = json.dumps(packed)
    scored = past.of_user(rows, ["purchase"] * events, at_ms, _NOW_MS)
    candidates = rng.choice(num_items, 500, replace=False)
    numbers = PastNumbers.of(scored)
    return {
        "unpack": lambda: unpacked_taken(json.loads(text), [], 500, _NOW_MS),
        "score": lambda: past.of_user(rows, ["purchase"] * events, at_ms, _NOW_MS),
        "150 candidates": lambda: (scored.item_item.best(50, _all), scored.repeat.best(100, _all)),
        "order for the ranker": lambda: PastNumbers.of(scored),
        "numbers of 500": lambda: numbers.of_rows(candidates),
        "score of 500": lambda: (scored.item_item.of(candidates), scored.repeat.of(candidates)),
    }


def _all(rows: np.ndarray) -> np.ndarray:
    return np.ones(rows.size, np.bool_)


def _median_us(call: Callable[[], object]) -> float:
    call()
    taken = []
    for _ in range(_CALLS):
        start = time.process_time_ns()
        call()
        taken.append(time.process_time_ns() - start)
    return float(np.median(taken)) / 1e3


if __name__ == "__main__":
    main()
