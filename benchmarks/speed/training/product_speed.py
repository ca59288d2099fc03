"""The product model's cold start, and the same in the code of an earlier commit, in alternating processes."""

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.commit import CHECKOUT
from benchmarks.speed.fresh_run import NUM_CORES, FreshRun, Patience, fresh_run, quiet_run
from benchmarks.speed.shop_days import simulate_days
from benchmarks.speed.training.systems import clearly_faster
from benchmarks.speed.training.throughput import load_of, samples_per_second, say_rate, spread
from benchmarks.speed.worktree import worktree
from recsys.device import CPU, has_fast_bf16
from recsys.log import InteractionLog
from recsys.simulator.dials import ShopDials

EPOCH: Final = Path(__file__).with_name("product_epoch.py")
DAYS: Final = 12
"""Some 400,000 rows, as `speed` has: the start of processes and first steps weigh as they do in a night."""
NOW: Final = "now"
BEFORE: Final = "before"
SHAPES: Final = {
    "one process, one thread": (1, 1),
    "one process, two threads": (1, NUM_CORES),
    "two processes, one thread each": (NUM_CORES, 1),
}
"""Words for processes and threads."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """What is started of every commit: on one log, each with snapshots of its own."""

    trees: dict[str, Path]
    commands: dict[str, list[str]]
    cores: Sequence[int]
    patience: Patience

    def run(self, name: str, form: Form) -> FreshRun:
        """Time one cold start of a commit's."""
        command = [*self.commands[name], *form.arguments]
        return quiet_run(command, self.cores, self.patience, form.threads, (self.trees[name],))


@contextmanager
def product_programs(
    config: Path | None,
    log: Path | None,
    seed: int,
    before: str | None,
    cores: Sequence[int],
    patience: Patience,
) -> Iterator[Programs]:
    """Simulate the log, check the commit out, and build what all runs read. Args: before: a commit."""
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as folder, worktree(before) as old:
        scratch = Path(folder)
        if log is None:
            log = scratch / "log"
            simulate_days(InteractionLog(log), ShopDials(days=DAYS), seed)
        trees = {NOW: CHECKOUT} | ({BEFORE: old} if old else {})
        commands = {name: _command(config, log, scratch / name) for name in trees}
        for name, tree in trees.items():
            fresh_run([*commands[name], "--threads", "1", "--build-only"], cores, NUM_CORES, (tree,))
        yield Programs(trees=trees, commands=commands, cores=cores, patience=patience)


def measure_product(programs: Programs, repeats: int) -> dict[str, Any]:
    """Time the product model with one thread and with all cores, and earlier code where there is some."""
    forms, rates = _fastest(programs)
    chosen = {NOW: forms, BEFORE: {"one_thread": Form(1), "free": Form(NUM_CORES)}}
    forms_of = {name: chosen[name] for name in programs.trees}
    return {"product": alternate(programs, forms_of, repeats), "product_choice": rates}


def measure_product_processes(programs: Programs, precision: str, repeats: int) -> dict[str, Any]:
    """Time today's product model in one process and in several; figures by words for the form."""
    forms = {name: Form(threads, precision, processes) for name, (processes, threads) in SHAPES.items()}
    return alternate(programs, {NOW: forms}, repeats)[NOW]


def _fastest(programs: Programs) -> tuple[dict[str, Form], dict[str, float]]:
    """Choose today's precision on one thread, then how to use all cores, by a run of each form."""
    rates: dict[Form, float] = {}

    def rate(form: Form) -> float:
        if form not in rates:
            run = programs.run(NOW, form)
            rates[form] = samples_per_second(run)
            say_rate(f"product model, {form}", run)
        return rates[form]

    one = Form(1, "fp32")
    if has_fast_bf16(CPU):
        one = clearly_faster(replace(one, precision="bf16"), one, rate)
    free = clearly_faster(replace(one, threads=NUM_CORES), one, rate)
    free = clearly_faster(replace(one, processes=NUM_CORES), free, rate)
    return {"one_thread": one, "free": free}, {str(form): rate for form, rate in rates.items()}


def _command(config: Path | None, log: Path, stages: Path) -> list[str]:
    # -P: the script's folder is no place to import from; the checkout in PYTHONPATH is.
    program = [sys.executable, "-P", str(EPOCH), "--log", str(log.resolve()), "--stages", str(stages)]
    return program + ([] if config is None else ["--config", str(config.resolve())])


def alternate(
    programs: Programs, forms: Mapping[str, Mapping[str, Form]], repeats: int
) -> dict[str, dict[str, Any]]:
    """Time every commit's forms; the order is turned round from one repeat to the next.

    A form that stands under two names is run once for both: free may be one thread.
    """
    runs: dict[tuple[str, Form], list[FreshRun]] = {}
    order = list(dict.fromkeys((name, form) for name, of in forms.items() for form in of.values()))
    for repeat in range(repeats):
        for name, form in order if repeat % 2 == 0 else reversed(order):
            found = programs.run(name, form)
            runs.setdefault((name, form), []).append(found)
            say_rate(f"product model {name}, {form}", found)
    return {
        name: {how: _figures(runs[name, form]) | asdict(form) for how, form in of.items()}
        for name, of in forms.items()
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
