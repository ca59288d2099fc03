"""The product model's cold start under torch's profiler, by operator and shape, in the code of a checkout.

`recsys bench train --part profile` starts it with `PYTHONPATH` at this checkout, for `--before REV` also at
one of REV: it imports only what both have, and nothing of the benchmarks. The thread that makes the steps is
seen, not the one that cuts batches. One line of JSON comes out.

Shape letters: B the rows of a batch, n any other number of a step's own (distinct rows, events, candidates).
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from features.build import build_snapshots
from features.definitions import read_config
from recsys.log import InteractionLog
from recsys.stages import Stages
from training.threads import use_threads
from training.train import train

LISTED = 16
"""Operators and shapes that are named one by one."""
LARGEST_WIDTH = 600
"""No layer is wider: what is, is a number of rows."""
KINDS = {
    "products": ("mm", "addmm", "bmm", "baddbmm", "linear", "_linear_pointwise", "mv", "addmv", "dot"),
    "gathers and sums of rows": ("index", "embedding", "gather", "scatter"),
    "copies": ("copy_", "cat", "stack", "_to_copy", "clone", "fill_", "zero_", "repeat"),
    "optimiser": ("_fused_adamw_",),
}


def main() -> None:
    """Read the arguments and print the profile."""
    parser = argparse.ArgumentParser(description="Profile a cold start of the product model by shape")
    parser.add_argument("--config", type=Path, help="the run's TOML file; default: the simulated shop's")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--stages", type=Path, required=True, help="of this code alone")
    parser.add_argument("--precision", choices=("fp32", "bf16"), required=True)
    print(json.dumps(run(parser.parse_args())), flush=True)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Profile the training on all days, with one thread."""
    use_threads(1)
    config = read_config(args.config)
    log = InteractionLog(args.log)
    days = build_snapshots(log, log.require_days("impressions")[-1], config, Stages(args.stages))
    training = config.training.model_copy(update={"precision": args.precision})
    config = config.model_copy(update={"training": training})
    periods = {task.name: (0, len(days) - 1) for task in config.tasks}
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, record_shapes=True) as profiler:
        done = train(days, periods, config, None, 1).log
    rows = [days.num_impressions(i) for i in range(len(days))]
    found = summary(profiler.key_averages(group_by_input_shape=True), rows, config.training.batch_size)
    return found | {"rows": done.rows, "precision": args.precision}


def summary(events: Iterable[Any], rows: list[int], batch_size: int) -> dict[str, Any]:
    """Add up the time that operators took themselves, per step, by kind and by shape.

    Args: events: with key, input_shapes, count and self_cpu_time_total (µs). rows: of each day.
    """
    batches = [-(-num // batch_size) for num in rows]
    sizes = {num // of + more for num, of in zip(rows, batches, strict=True) if of for more in (0, 1)}
    taken: Counter[tuple[str, str]] = Counter()
    calls: Counter[tuple[str, str]] = Counter()
    kinds: Counter[str] = Counter()
    for event in events:
        name = event.key.split("::")[-1]
        place = name, _shapes(event.input_shapes, sizes)
        taken[place] += event.self_cpu_time_total
        calls[place] += event.count
        kinds[_kind(name)] += event.self_cpu_time_total
    steps, total = sum(batches), sum(kinds.values())
    return {
        "steps": steps,
        "ms_per_step": total / steps / 1e3,
        "kinds": {kind: {"ms": us / steps / 1e3, "share": us / total} for kind, us in kinds.most_common()},
        "operators": [
            {"name": name, "shapes": shapes, "calls": calls[name, shapes] / steps, "ms": us / steps / 1e3,
             "share": us / total}
            for (name, shapes), us in taken.most_common(LISTED)
        ],
    }  # fmt: skip


def _shapes(shapes: Iterable[Any], sizes: set[int]) -> str:
    """Write an operator's inputs; numbers and empty ones are left out."""
    found = []
    for shape in shapes:
        if shape and all(isinstance(n, int) for n in shape):
            dims = ("B" if n in sizes else "n" if n > LARGEST_WIDTH else str(n) for n in shape)
            found.append(f"[{', '.join(dims)}]")
    return " ".join(found[:3])


def _kind(name: str) -> str:
    for kind, parts in KINDS.items():
        if name in parts or (kind.startswith("gathers") and any(part in name for part in parts)):
            return kind
    return "elementwise and the rest"


if __name__ == "__main__":
    main()
