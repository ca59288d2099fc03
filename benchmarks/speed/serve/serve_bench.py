"""`recsys bench serve`: one host serving a synthetic bundle of a million items, under load from beside it.

The bundle is made once and kept in the user's cache. Parts can be measured one by one into the same JSON. A
figure that was not measured is null, and `not_measured` says why. What other processes took of the cores is
said for every part: beside more than `MAX_OTHER_CORES` its figures are noisy.
"""

import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from benchmarks.commit import commit
from benchmarks.speed.fresh_run import MAX_OTHER_CORES, cpu_name
from benchmarks.speed.processes import others
from benchmarks.speed.serve.bundle import Sizes, synthetic_shop
from benchmarks.speed.serve.kill_part import measure_kills
from benchmarks.speed.serve.latency_parts import measure_latency, measure_max_rate
from benchmarks.speed.serve.month_part import measure_month
from benchmarks.speed.serve.overload_part import measure_overload
from benchmarks.speed.serve.profile_part import measure_profile
from benchmarks.speed.serve.recall_part import measure_recall
from benchmarks.speed.serve.resource_part import measure_resources
from benchmarks.speed.serve.session import Asked, Session
from benchmarks.speed.serve.soak_part import measure_soak
from benchmarks.speed.serve.swap_part import measure_swaps
from recsys.errors import ConfigError
from recsys.scratch import scratch_folder

Part = Callable[[Session], dict[str, Any]]
PARTS: Final[Mapping[str, Part]] = {
    "latency": measure_latency,
    "max-rate": measure_max_rate,
    "swaps": measure_swaps,
    "overload": measure_overload,
    "recall": measure_recall,
    "resources": measure_resources,
    "profile": measure_profile,
    "soak": measure_soak,
    "month": measure_month,
    "kills": measure_kills,
}
DEFAULT_PARTS: Final = ("latency", "max-rate", "swaps", "overload", "recall", "resources")
KEYS: Final[Mapping[str, str]] = {
    "echo": "latency",
    "one_client": "latency",
    "eight_clients": "latency",
    "echo_ratio": "latency",
    "stages_ms": "latency",
    "max_rate": "max-rate",
    "half_load": "max-rate",
    "swaps": "swaps",
    "overload": "overload",
    "recall": "recall",
    "forbidden_ids": "recall",
    "start_seconds": "resources",
    "rss_mb": "resources",
}
"""What is asked for by name -> the part that measures it."""


def measure_serve(
    asked: Asked, sizes: Sizes, cache: Path | None = None, known: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Measure the parts that are asked for; give the tree of the JSON.

    Args: cache: folder of the bundles; known: the JSON of earlier runs, whose `max_rate` is used.
    Raises: ConfigError for a part that there is not; BundleError when the server does not start.
    """
    for part in asked.parts:
        if part not in PARTS:
            raise ConfigError(f"--part {part!r} is not known; choose of: {', '.join(PARTS)}")
    began = time.perf_counter()
    cores = sorted(os.sched_getaffinity(0))
    tree: dict[str, Any] = {
        "cpu": cpu_name(),
        "cores": len(cores),
        "items": sizes.items,
        "users": sizes.users,
    }
    shop = synthetic_shop(sizes, cache)
    tree |= {"bundle_s": shop.build_s, "commit": commit(), "max_other_cores": MAX_OTHER_CORES}
    seconds: dict[str, float] = {}
    noise: dict[str, float] = {}
    known_rate = asked.rate or float((known or {}).get("max_rate") or 0.0)
    with (
        scratch_folder(shop.folder.parent, "run") as folder,
        Session(shop=shop, asked=asked, folder=folder, max_rate=known_rate) as session,
    ):
        for part in dict.fromkeys(asked.parts):
            started = time.perf_counter()
            with others(cores) as beside:
                tree |= PARTS[part](session)
            seconds[part], noise[part] = time.perf_counter() - started, beside.cores
    run = {"command": _command(), "commit": tree["commit"], "seconds": time.perf_counter() - began}
    tree["runs"] = [run | {"bundle_cached": shop.cached, "seconds_by_part": seconds, "other_cores": noise}]
    return with_keys(tree)


def added(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Put a run's figures beside those of earlier runs: a figure that both have is the new one."""
    measured = {key: value for key, value in new.items() if value is not None}
    return with_keys({**old, **measured, "runs": [*old["runs"], *new["runs"]]})


def with_keys(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Give every figure that is asked for by name; a null is explained under `not_measured`."""
    found = {**dict.fromkeys(KEYS), **tree}
    ran = {part for run in tree["runs"] for part in run["seconds_by_part"]}
    missing = {
        key: f"--part {part} {'found none' if part in ran else 'was not run'}"
        for key, part in KEYS.items()
        if found[key] is None
    }
    # a part that was measured again is as noisy as its last run
    beside = {part: cores for run in tree["runs"] for part, cores in run["other_cores"].items()}
    noisy = {
        part: f"others took {cores:.2f} cores" for part, cores in beside.items() if cores > MAX_OTHER_CORES
    }
    return found | {"not_measured": missing, "noisy": noisy}


def _command() -> str:
    """Give what was typed, with FILE for the JSON's place: that is of one machine."""
    words = ["recsys", *sys.argv[1:]]
    return shlex.join("FILE" if before == "--json" else word for before, word in pairwise(["", *words]))
