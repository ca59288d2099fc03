"""The first night of `recsys demo` in seconds: a cold start, in today's code and in an earlier commit's.

What is timed is `recsys nightly` as the demo types it, from the start of Python to its end: features,
training, evaluation, gate and bundle. Both commits read one log; the allocator is as it comes.
"""

import sys
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from benchmarks.commit import CHECKOUT
from benchmarks.speed.fresh_run import NUM_CORES, FreshRun, Patience, quiet_run
from benchmarks.speed.shop_days import simulate_days
from benchmarks.speed.training.product_speed import BEFORE, NOW
from benchmarks.speed.training.throughput import load_of, spread
from benchmarks.speed.worktree import worktree
from recsys.log import InteractionLog
from recsys.simulator.dials import ShopDials
from serving.demo.workspace import config_text

FIRST_NIGHT: Final = timedelta(days=2)
"""Before the log's last day: the demo runs three nights."""


def measure_first_night(
    dials: ShopDials, repeats: int, before: str | None, cores: Sequence[int], patience: Patience
) -> dict[str, Any]:
    """Time the night; give seconds, and the load beside it, per commit.

    Raises: ConfigError when the commit is not there; DataError with a night's last words when it fails.
    """
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as folder, worktree(before) as old:
        log, config = Path(folder) / "log", Path(folder) / "shop.toml"
        config.write_text(config_text(None))
        simulate_days(InteractionLog(log), dials, 0)
        trees = {NOW: CHECKOUT} | ({BEFORE: old} if old else {})
        runs: dict[str, list[FreshRun]] = {name: [] for name in trees}
        for repeat in range(repeats):
            for name, tree in trees.items():
                place = Path(folder) / f"runs-{name}-{repeat}"
                night = ["nightly", "--json", "-", "--config", config, "--log", log, "--runs", place]
                asked = [*night, "--date", dials.last_day - FIRST_NIGHT]
                # -P: not from the working directory but from the checkout in PYTHONPATH.
                command = [sys.executable, "-P", "-m", "recsys", *map(str, asked)]
                runs[name].append(quiet_run(command, cores, patience, NUM_CORES, (tree,), {}))
                print(f"first night, {name}: {runs[name][-1].seconds:.1f} s", file=sys.stderr, flush=True)
    return {
        name: {"seconds": spread([run.seconds for run in of]), **load_of(of)} for name, of in runs.items()
    }
