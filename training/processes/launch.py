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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.environment import environment
from training.errors import DivergedError, RankError
from training.processes.join import memory_for

ENDED = "ended.json"
"""What a rank that ends by an error of ours leaves in its folder of logs: `rank<r>.ended.json`."""
LOGS = "RECSYS_RANK_LOGS"
"""The environment variable that names this folder to the ranks."""
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
        memory_for(processes) as memory,
        environment(_inherited(logs) | memory),
        _own_signals(),
        _open_files_left(),
    ):
        ended = _run(arguments, processes, logs)
    if ended is not None and ended.rank is not None:
        raise _error(logs, ended.rank, processes, ended.code)
    shutil.rmtree(logs, ignore_errors=True)
    if ended is not None:
        raise KeyboardInterrupt if ended.code == signal.SIGINT else SystemExit(128 + ended.code)


@dataclass(frozen=True, slots=True)
class _Ended:
    """How a launch failed: the first rank that did and its exit code; no rank: a signal to the parent."""

    rank: int | None
    code: int


def _run(arguments: Sequence[str], processes: int, logs: Path) -> _Ended | None:
    """Wait for all ranks. Errors become values: their frames would hold the launcher's files open."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    try:
        elastic_launch(_launch_config(processes, logs), sys.executable)(*arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        return _Ended(rank, failure.exitcode)
    except SignalException as error:
        return _Ended(None, error.sigval)
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
def _own_signals() -> Iterator[None]:
    """Give the signals back that the launcher takes; keep its reports to ours."""
    handlers = {name: signal.getsignal(getattr(signal, name)) for name in SIGNALS}
    logger = logging.getLogger("torch.distributed.elastic")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
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


def _error(logs: Path, rank: int, processes: int, code: int) -> RankError | DivergedError:
    """Say what the first rank died of, in its own words where it left any."""
    for file in sorted(logs.glob(f"*.{ENDED}")):
        said = json.loads(file.read_text())
        if said["error"] == DivergedError.__name__:
            shutil.rmtree(logs, ignore_errors=True)
            return DivergedError(said["message"])
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
