"""Executors: they build the shares of a period. EXECUTORS maps the name in TOML to a function.

All run `features.parts.build_part` on the same tasks, so they give the same files; they differ in where.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from multiprocessing import get_context
from typing import Any

from features.parts import PartResult, PartTask, build_part
from recsys.config import ExecutionConfig
from recsys.environment import environment
from recsys.errors import ConfigError, RecsysError

_THREADS = "POLARS_MAX_THREADS"


RunParts = Callable[[Sequence[PartTask]], list[PartResult]]
"""Build all shares of one period, in any order; results come in the order of the tasks."""


@contextmanager
def open_executor(execution: ExecutionConfig) -> Iterator[RunParts]:
    """Give what builds shares; workers start with the first period to build and live until the last.

    Raises: ConfigError for an executor that is unknown or not installed; when used, what `build_part` raises.
    """
    if execution.executor not in EXECUTORS:
        raise ConfigError(
            f"[execution] executor = {execution.executor!r} is unknown; known: {', '.join(EXECUTORS)}"
        )
    with EXECUTORS[execution.executor](execution) as run_parts:
        yield run_parts


@contextmanager
def _local(execution: ExecutionConfig) -> Iterator[RunParts]:
    """Build in this process, or in a pool of new ones: Polars' threads do not survive a fork."""
    workers = min(execution.workers, execution.shards)
    if workers == 1:
        yield lambda tasks: [build_part(task) for task in tasks]
        return
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:

        def run_parts(tasks: Sequence[PartTask]) -> list[PartResult]:
            try:
                with environment({_THREADS: threads}):
                    return list(pool.map(build_part, tasks))
            except BrokenProcessPool as error:
                raise RecsysError(
                    f"a process that built shares of {tasks[0].period.day} was killed, as a rule because "
                    f"memory ran out; raise [execution] shards ({execution.shards}) or lower workers "
                    f"({workers})"
                ) from error

        yield run_parts


@contextmanager
def _ray(execution: ExecutionConfig) -> Iterator[RunParts]:
    """Build on a Ray cluster whose machines see the log and the runs under the same paths.

    A cluster that is started here ends here; one that runs already is left as it is.
    """
    if not execution.ray_address:
        _require_plain_interpreter()
    ray = _import_ray()
    ours = not ray.is_initialized()
    try:
        yield lambda tasks: _run_on_ray(ray, tasks, execution)
    finally:
        if ours:
            ray.shutdown()


def _run_on_ray(ray: Any, tasks: Sequence[PartTask], execution: ExecutionConfig) -> list[PartResult]:
    """Have at most `workers` tasks under way at once: each holds one share in memory."""
    if not ray.is_initialized():
        ray.init(
            address=execution.ray_address or None,
            num_cpus=None if execution.ray_address else execution.workers,
            include_dashboard=False,
            log_to_driver=False,
        )
    remote = ray.remote(num_cpus=1, runtime_env={"env_vars": {_THREADS: "1"}})(build_part)
    waiting = list(enumerate(tasks))
    under_way: dict[Any, int] = {}
    results: dict[int, PartResult] = {}
    try:
        while waiting or under_way:
            while waiting and len(under_way) < execution.workers:
                number, task = waiting.pop(0)
                under_way[remote.remote(task)] = number
            done, _ = ray.wait(list(under_way), num_returns=1)
            results[under_way.pop(done[0])] = _result(ray, done[0])
    finally:
        for reference in under_way:
            ray.cancel(reference)
    return [results[number] for number in range(len(tasks))]


def _result(ray: Any, reference: Any) -> PartResult:
    """Fetch one result; the task's own error comes out as it was raised, not wrapped in Ray's."""
    try:
        result: PartResult = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    return result


def _require_plain_interpreter() -> None:
    """Refuse an interpreter whose path has a space: Ray puts it into a shell command as it is.

    No worker starts then, and every task waits for ever. (Ray 2.60: spaces in the working folder, the
    temporary folder and the packages' folder do no harm.)
    """
    if " " in sys.executable:
        raise ConfigError(
            f"[execution] executor = 'ray': Ray cannot start workers with the Python interpreter "
            f"{sys.executable!r}, whose path has a space; make the virtual environment in a folder without "
            "one, or write executor = 'local'"
        )


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "[execution] executor = 'ray' needs Ray, which is not installed: pip install 'recsys-mtl[ray]', "
            "or write executor = 'local'"
        ) from error
    return ray


EXECUTORS: dict[str, Callable[[ExecutionConfig], AbstractContextManager[RunParts]]] = {
    "local": _local,
    "ray": _ray,
}
