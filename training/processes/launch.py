"""Start the ranks of one host by torchrun's own launcher, and end them together."""

import gc
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.environment import environment
from training.errors import DivergedError, RankError
from training.progress import say
from training.trainer.shared_memory import Plan, make_memory, path_of

ENDED = "ended.json"
"""What a rank that ends by an error of ours leaves in its folder of logs: `rank<r>.ended.json`."""
LOGS = "RECSYS_RANK_LOGS"
"""The environment variable that names this folder to the ranks."""
MEMORY = "RECSYS_RANKS_MEMORY"
"""The environment variable that names the memory which they share; not set where there is none."""
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
LAST_LINES = 8


def launch(arguments: Sequence[str], processes: int) -> None:
    """Run `python ARGUMENTS` once per rank, one thread each, and wait for all.

    torchrun's variables (RANK, WORLD_SIZE, MASTER_ADDR, …) are set. Ctrl-C and SIGTERM end all ranks. Logs
    are kept when a rank fails.

    Raises: RankError that names the first rank that died, and its log; what the rank itself raised when that
    was a DivergedError.
    """
    logs = Path(tempfile.mkdtemp(prefix="recsys-ranks-"))
    with (
        _memory(processes) as memory,
        environment(_inherited(logs) | memory),
        _own_signals(),
        _open_files_left(),
    ):
        ended = _run(arguments, processes, logs)
    if ended is not None and ended.codes:
        raise _error(logs, ended.codes, processes)
    shutil.rmtree(logs, ignore_errors=True)
    if ended is not None:
        raise KeyboardInterrupt if ended.signal == signal.SIGINT else SystemExit(128 + ended.signal)


@dataclass(frozen=True, slots=True)
class _Ended:
    """How a launch failed: ranks, the first one first, with their exit codes; or a signal to the parent."""

    codes: Mapping[int, int]
    signal: int = 0


def _run(arguments: Sequence[str], processes: int, logs: Path) -> _Ended | None:
    """Wait for all ranks. Errors become values: their frames would hold the launcher's files open."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    try:
        elastic_launch(_launch_config(processes, logs), sys.executable)(*arguments)
    except ChildFailedError as error:
        first, _ = error.get_first_failure()
        ranks = sorted(error.failures, key=lambda rank: rank != first)
        return _Ended({rank: error.failures[rank].exitcode for rank in ranks})
    except SignalException as error:
        return _Ended({}, error.sigval)
    return None


def _launch_config(processes: int, logs: Path) -> Any:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.launcher.api import LaunchConfig

    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=logs.name,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=str(logs), redirects=Std.ALL),
        signals_to_handle=",".join(SIGNALS),
        shutdown_timeout=5,
    )


def _inherited(logs: Path) -> dict[str, str]:
    """Give what ranks inherit: where their logs are, one thread each, the loopback interface."""
    own = {LOGS: str(logs), "OMP_NUM_THREADS": "1"}
    if sys.platform == "linux":
        own["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    # The launcher sets this one itself, and leaves it.
    return own | {"TORCHELASTIC_SIGNALS_TO_HANDLE": ",".join(SIGNALS)}


@contextmanager
def _memory(processes: int) -> Iterator[dict[str, str]]:
    """Make the memory that ranks share, and give its name; say so where there is none: they use gloo."""
    if processes == 1:
        yield {}
        return
    plan = Plan(processes)
    try:
        file = make_memory(plan)
    except OSError as error:
        say(
            f"no shared memory of {plan.size >> 20} MB for {processes} processes ({error}): they exchange "
            "gradients through sockets (gloo), which is slower; free memory, or train with one process"
        )
        yield {}
        return
    try:
        yield {MEMORY: path_of(file)}
    finally:
        os.close(file)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Give the signals back that the launcher takes; keep its reports to ours."""
    import torch.distributed.launcher.api  # noqa: F401 - makes the loggers, each with a level of its own

    handlers = {name: signal.getsignal(getattr(signal, name)) for name in SIGNALS}
    names = [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed.elastic")]
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    for logger in levels:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
        for name, handler in handlers.items():
            signal.signal(getattr(signal, name), handler)


@contextmanager
def _open_files_left() -> Iterator[None]:
    """Collect the files of logs that the launcher leaves open, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            yield
        finally:
            gc.collect()


def _error(logs: Path, codes: Mapping[int, int], processes: int) -> RankError | DivergedError:
    """Say what the first rank died of, in its own words where it left any.

    One that ended because another was gone is not the first, whichever was seen first.
    """
    followed = set()
    for file in sorted(logs.glob(f"*.{ENDED}")):
        said = json.loads(file.read_text())
        if said["error"] == DivergedError.__name__:
            shutil.rmtree(logs, ignore_errors=True)
            return DivergedError(said["message"])
        if said["error"] == RankError.__name__:
            followed.add(said["rank"])
    rank = next((r for r in codes if r not in followed), next(iter(codes)))
    code = codes[rank]
    log = next(iter(sorted(logs.rglob(f"{rank}/stderr.log"))), logs)
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    again = "run the same command again: no weights were written, and it goes on from the last checkpoint"
    remedy = f"read the log and {again}"
    if code == -signal.SIGKILL:
        remedy = (
            "the system may have run out of memory: take fewer ([training] processes = 1, --nproc 1), or "
            f"free memory, and {again}"
        )
    last = log.read_text(errors="replace").splitlines()[-LAST_LINES:] if log.is_file() else []
    return RankError(
        f"rank {rank} of {processes} ended {how}; its log is {log}; {remedy}"
        + "".join(f"\n    {line}" for line in last)
    )
