"""What a server's catalogue costs: bytes an item, and the processor time of a request and an upsert.

`python -m benchmarks.speed.catalogue_memory --items 1000000` prints JSON. The items have ids, titles, a
category of 200, a price, and one in a hundred an end. The process reads them from Parquet, as it does a
bundle's. `frame` is what that takes, `catalogue` what the catalogue takes beside it, and `mapped` what of it
is a process's own when it is mapped from files.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import polars as pl

from recsys.mapped_frame import FrameInMemory
from serving.catalogue import Allowed, Catalogue, ItemRow
from serving.catalogue.base import BaseCatalogue
from serving.request import Filter

CATEGORIES: Final = 200
SEEN: Final = 500
REPEATS: Final = 200
FILTERS: Final = {
    "available": Filter(),
    "categories": Filter(categories=frozenset({"category 3", "category 77"})),
    "prices": Filter(min_price=1_000, max_price=5_000),
}


def measure_catalogue(items: int) -> dict[str, float]:
    """Build a catalogue and use it."""
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as folder:
        path = Path(folder) / "items.parquet"
        # In a process of its own: memory that it gives back here would be taken for the catalogue.
        own = [sys.executable, "-m", __spec__.name if __spec__ else __name__, "--items", str(items)]
        subprocess.run([*own, "--write", str(path)], check=True)
        before = _private_bytes()
        frame = pl.read_parquet(path)
    with_frame = _private_bytes()
    start = time.process_time()
    catalogue = Catalogue.from_frame(frame)
    build_s = time.process_time() - start
    found = {
        "items": items,
        "frame_bytes_per_item": (with_frame - before) / items,
        "catalogue_bytes_per_item": (_private_bytes() - with_frame) / items,
        "build_s": build_s,
    }
    found["mapped_bytes_per_item"] = _mapped_bytes(catalogue, frame) / items
    seen = [f"item-{n * items // SEEN}" for n in range(SEEN)]
    for name, conditions in FILTERS.items():
        found[f"{name}_us"] = _microseconds(partial(_allowed, catalogue, conditions, seen))
    upsert = partial(_upsert, catalogue)
    found["upsert_us"] = _microseconds(upsert)
    tracemalloc.start()
    upsert()
    found["upsert_peak_bytes"] = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def _upsert(catalogue: Catalogue) -> Catalogue:
    """Add an item and change one, without encoding them."""
    items = [ItemRow(item_id="new", price=5), ItemRow(item_id="item-7")]
    return catalogue.with_items(catalogue.next_rows([item.item_id for item in items]), items)


def _allowed(catalogue: Catalogue, conditions: Filter, seen: list[str]) -> Allowed:
    return catalogue.allowed(conditions, catalogue.rows_or_missing(seen), 0)


def _mapped_bytes(catalogue: Catalogue, frame: pl.DataFrame) -> float:
    """Map the same catalogue from files, use it, and return what of it is this process's own."""
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as folder:
        catalogue.base.write(Path(folder))
        before = _private_bytes()
        mapped = Catalogue.of(BaseCatalogue.open_folder(Path(folder), FrameInMemory(frame)))
        for conditions in FILTERS.values():
            mapped.allowed(conditions, mapped.rows_or_missing(["item-1"]), 0)
        return _private_bytes() - before


def synthetic_items(items: int) -> pl.DataFrame:
    """Make the canonical columns of so many items."""
    row = pl.int_range(items, eager=True).alias("row")
    return row.to_frame().select(
        item_id=pl.format("item-{}", "row"),
        title=pl.format("A thing of the kind {}", "row"),
        category=pl.format("category {}", pl.col("row") % CATEGORIES),
        price=pl.col("row") * 7 % 10_007,
        available_until=pl.when(pl.col("row") % 100 == 0)
        .then(pl.col("row") + 1)
        .cast(pl.Datetime("ms", "UTC")),
    )


def _microseconds(work: Callable[[], object]) -> float:
    work()
    start = time.thread_time()
    for _ in range(REPEATS):
        work()
    return (time.thread_time() - start) / REPEATS * 1e6


def _private_bytes() -> int:
    """Read the memory that is this process's own."""
    gc.collect()
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("/proc/self/smaps_rollup has no Private_Dirty")


def main() -> None:
    """Read the arguments and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--write", type=Path, help="only write the items there")
    args = parser.parse_args()
    if args.write:
        synthetic_items(args.items).write_parquet(args.write)
    else:
        print(json.dumps(measure_catalogue(args.items), indent=1))


if __name__ == "__main__":
    main()
