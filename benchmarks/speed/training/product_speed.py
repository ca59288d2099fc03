"""The product model's cold start, and the same in the code of an earlier commit, in alternating processes."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.commit import CHECKOUT
from benchmarks.speed.fresh_run import NUM_CORES, FreshRun, Patience, fresh_run, quiet_run
from benchmarks.speed.shop_days import simulate_days
from benchmarks.speed.training.systems import PRECISIONS
from benchmarks.speed.training.throughput import load_of, samples_per_second, say_rate, spread
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

    def __str__(self) -> str:
        """Say it in words."""
        return f"{self.precision}, {self.processes} × {self.threads} threads"

    @property
    def arguments(self) -> list[str]:
        """Give the program's options."""
        named = {"threads": self.threads, "precision": self.precision, "processes": self.processes}
        return [word for name, value in named.items() for word in (f"--{name}", str(value))]


def measure_product(
    config: Path | None,
    log: Path | None,
    seed: int,
    repeats: int,
    before: str | None,
    cores: Sequence[int],
    patience: Patience,
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
        forms, rates = _fastest(asked[NOW], cores, patience)
        chosen = {NOW: forms, BEFORE: {"one_thread": Form(1), "free": Form(NUM_CORES)}}
        return {
            "product": _alternate(trees, asked, chosen, repeats, cores, patience),
            "product_choice": rates,
        }


def _fastest(
    command: list[str], cores: Sequence[int], patience: Patience
) -> tuple[dict[str, Form], dict[str, float]]:
    """Choose today's precision on one thread, then how to use all cores, by a run of each form."""
    rates: dict[Form, float] = {}

    def rate(form: Form) -> float:
        if form not in rates:
            run = quiet_run([*command, *form.arguments], cores, patience, form.threads, (CHECKOUT,))
            rates[form] = samples_per_second(run)
            say_rate(f"product model, {form}", run)
        return rates[form]

    one = max((Form(1, precision) for precision in PRECISIONS), key=rate)
    free = max((one, replace(one, threads=NUM_CORES), replace(one, processes=NUM_CORES)), key=rate)
    return {"one_thread": one, "free": free}, {str(form): rate for form, rate in rates.items()}


def _command(config: Path | None, log: Path, stages: Path) -> list[str]:
    # -P: the script's folder is no place to import from; the checkout in PYTHONPATH is.
    program = [sys.executable, "-P", str(EPOCH), "--log", str(log.resolve()), "--stages", str(stages)]
    return program + ([] if config is None else ["--config", str(config.resolve())])


def _alternate(
    trees: dict[str, Path],
    asked: dict[str, list[str]],
    forms: dict[str, dict[str, Form]],
    repeats: int,
    cores: Sequence[int],
    patience: Patience,
) -> dict[str, Any]:
    runs: dict[tuple[str, str], list[FreshRun]] = {}
    for repeat in range(repeats):
        for name in trees if repeat % 2 == 0 else reversed(trees):
            for how, form in forms[name].items():
                command = [*asked[name], *form.arguments]
                found = quiet_run(command, cores, patience, form.threads, (trees[name],))
                runs.setdefault((name, how), []).append(found)
                say_rate(f"product model {name}, {how}", found)
    return {
        name: {how: _figures(runs[name, how]) | asdict(form) for how, form in forms[name].items()}
        for name in trees
    }


def _figures(runs: Sequence[FreshRun]) -> dict[str, Any]:
    rates = spread([samples_per_second(run) for run in runs])
    return {"samples_per_second": rates, **load_of(runs), "losses": runs[0].report["losses"]}


def ratios(product: dict[str, Any]) -> dict[str, float] | None:
    """Give now over before; free is compared with the better of the earlier code's two ways."""
    if BEFORE not in product:
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
