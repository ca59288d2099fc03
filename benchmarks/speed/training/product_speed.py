"""The product model's cold start, and the same in the code of an earlier commit, in alternating processes."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.commit import CHECKOUT
from benchmarks.speed.fresh_run import NUM_CORES, FreshRun, fresh_run, quiet_run
from benchmarks.speed.shop_days import simulate_days
from benchmarks.speed.training.throughput import samples_per_second, spread
from recsys.errors import ConfigError
from recsys.log import InteractionLog
from recsys.simulator.dials import ShopDials

EPOCH: Final = Path(__file__).with_name("product_epoch.py")
DAYS: Final = 4
NOW: Final = "now"
BEFORE: Final = "before"


def measure_product(
    config: Path | None, log: Path | None, seed: int, repeats: int, before: str | None, cores: Sequence[int]
) -> dict[str, Any]:
    """Time the product model with one thread and with all cores. Args: before: a commit to compare with."""
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as folder, worktree(before) as old:
        scratch = Path(folder)
        if log is None:
            log = scratch / "log"
            simulate_days(InteractionLog(log), ShopDials(days=DAYS), seed)
        trees = {NOW: CHECKOUT} | ({BEFORE: old} if old else {})
        asked = {name: _command(config, log, scratch / name) for name in trees}
        for name, tree in trees.items():
            fresh_run([*asked[name], "--threads", "1", "--build-only"], cores, NUM_CORES, (tree,))
        return _alternate(trees, asked, repeats, cores)


def _command(config: Path | None, log: Path, stages: Path) -> list[str]:
    # -P: the script's folder is no place to import from; the checkout in PYTHONPATH is.
    program = [sys.executable, "-P", str(EPOCH), "--log", str(log.resolve()), "--stages", str(stages)]
    return program + ([] if config is None else ["--config", str(config.resolve())])


def _alternate(
    trees: dict[str, Path], asked: dict[str, list[str]], repeats: int, cores: Sequence[int]
) -> dict[str, Any]:
    runs: dict[tuple[str, str], list[FreshRun | None]] = {}
    for repeat in range(repeats):
        for name in trees if repeat % 2 == 0 else reversed(trees):
            for threads, how in ((1, "one_thread"), (NUM_CORES, "free")):
                command = [*asked[name], "--threads", str(threads)]
                found = quiet_run(command, cores, threads, (trees[name],))
                runs.setdefault((name, how), []).append(found)
                said = "not measured" if found is None else f"{samples_per_second(found):,.0f} samples/s"
                print(f"product model {name}, {how}: {said}", file=sys.stderr, flush=True)
    return {name: {how: _figures(runs[name, how]) for how in ("one_thread", "free")} for name in trees}


def _figures(runs: Sequence[FreshRun | None]) -> dict[str, Any]:
    quiet = [run for run in runs if run is not None]
    if len(quiet) < len(runs):
        return {"not_measured": f"{len(runs) - len(quiet)} of {len(runs)} runs found no quiet machine"}
    losses = quiet[0].report["losses"]
    return {"samples_per_second": spread([samples_per_second(r) for r in quiet]), "losses": losses}


def ratios(product: dict[str, Any]) -> dict[str, float] | None:
    """Give now over before; free is compared with the better of the earlier code's two ways."""
    if BEFORE not in product or any("not_measured" in f for of in product.values() for f in of.values()):
        return None
    rate = {
        (name, how): figures["samples_per_second"]["median"]
        for name, of in product.items()
        for how, figures in of.items()
    }
    best = max(rate[BEFORE, "one_thread"], rate[BEFORE, "free"])
    return {
        "one_thread": rate[NOW, "one_thread"] / rate[BEFORE, "one_thread"],
        "free": rate[NOW, "free"] / best,
    }


@contextmanager
def worktree(revision: str | None) -> Iterator[Path | None]:
    """Check a commit out beside this one for a while. Raises: ConfigError with git's words."""
    if revision is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="recsys-before-") as folder:
        place = Path(folder) / "tree"
        _git("worktree", "add", "--detach", str(place), revision)
        try:
            yield place
        finally:
            _git("worktree", "remove", "--force", str(place))


def _git(*words: str) -> None:
    done = subprocess.run(["git", "-C", str(CHECKOUT), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"--before: git {words[0]} {words[1]} failed: {done.stderr.strip()}")
