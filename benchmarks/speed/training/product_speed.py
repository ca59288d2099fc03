"""The product model's cold start, and the same in the code of an earlier commit, in alternating processes."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
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
WAYS: Final = ("one_thread", "free")


@dataclass(frozen=True, slots=True)
class Form:
    """How a training is run; earlier code chooses its precision itself and has one process."""

    threads: int
    precision: str = "auto"
    processes: int = 1

    @property
    def arguments(self) -> list[str]:
        """Give the program's options."""
        named = {"threads": self.threads, "precision": self.precision, "processes": self.processes}
        return [word for name, value in named.items() for word in (f"--{name}", str(value))]


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
        forms = {(BEFORE, "one_thread"): Form(1), (BEFORE, "free"): Form(NUM_CORES)}
        forms |= {(NOW, how): _fastest(asked[NOW], how, cores) for how in WAYS}
        return _alternate(trees, asked, forms, repeats, cores)


def _fastest(command: list[str], how: str, cores: Sequence[int]) -> Form:
    """Choose today's precision, and where it is free the processes, by a run of each."""
    precisions = ("fp32", "bf16")
    if how == "one_thread":
        forms = [Form(1, precision) for precision in precisions]
    else:
        shapes = ((1, 1), (NUM_CORES, 1), (1, NUM_CORES))
        forms = [Form(threads, p, processes) for p in precisions for threads, processes in shapes]
    rates: dict[Form, float] = {}
    for form in forms:
        run = fresh_run([*command, *form.arguments], cores, form.threads, (CHECKOUT,))
        rates[form] = samples_per_second(run)
        print(f"product model, {form}: {rates[form]:,.0f} samples/s", file=sys.stderr, flush=True)
    return max(rates, key=rates.__getitem__)


def _command(config: Path | None, log: Path, stages: Path) -> list[str]:
    # -P: the script's folder is no place to import from; the checkout in PYTHONPATH is.
    program = [sys.executable, "-P", str(EPOCH), "--log", str(log.resolve()), "--stages", str(stages)]
    return program + ([] if config is None else ["--config", str(config.resolve())])


def _alternate(
    trees: dict[str, Path],
    asked: dict[str, list[str]],
    forms: dict[tuple[str, str], Form],
    repeats: int,
    cores: Sequence[int],
) -> dict[str, Any]:
    runs: dict[tuple[str, str], list[FreshRun | None]] = {}
    for repeat in range(repeats):
        for name in trees if repeat % 2 == 0 else reversed(trees):
            for how in WAYS:
                form = forms[name, how]
                found = quiet_run([*asked[name], *form.arguments], cores, form.threads, (trees[name],))
                runs.setdefault((name, how), []).append(found)
                said = "not measured" if found is None else f"{samples_per_second(found):,.0f} samples/s"
                print(f"product model {name}, {how}: {said}", file=sys.stderr, flush=True)
    return {
        name: {how: _figures(runs[name, how]) | asdict(forms[name, how]) for how in WAYS} for name in trees
    }


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
