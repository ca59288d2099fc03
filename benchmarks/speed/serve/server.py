"""`recsys serve` and the echo server as processes of the bench, and what they hold of the memory."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.speed.processes import command_of, family, pss_mb, tree_cpu_s
from benchmarks.speed.serve.bundle import CLOCK_START, SyntheticShop
from recsys.errors import BundleError, DataError
from recsys.registry import Registry
from serving.demo.children import Children, ServerChild, StepError
from serving.processes.child import WORKER

START_S: Final = 600.0
"""Longest start of a server that is waited for."""
_ECHO_START_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchServer:
    """A running `recsys serve`."""

    child: ServerChild
    folder: Path
    start_s: float
    """From starting the process to its ready line."""

    @property
    def target(self) -> str:
        """Give HOST:PORT of the ranking service."""
        return self.child.target

    @property
    def admin_target(self) -> str:
        """Give HOST:PORT of the admin service."""
        return self.child.admin_target

    @property
    def log(self) -> Path:
        """Give the log folder; the journal lies in it."""
        return self.folder / "log"

    def processes(self) -> list[int]:
        """List the server's processes: the one that was started, and all below it."""
        return family(self.child.child.pid)

    def workers(self) -> list[int]:
        """List the processes that answer: the workers, or the server itself where it is one process.

        Children that prepare a version or compile an engine are no workers.
        """
        first, *others = self.processes()
        return [pid for pid in others if WORKER[-1] in command_of(pid)] or [first]

    def cpu_s(self) -> float:
        """Give the processor seconds of its processes so far."""
        return tree_cpu_s(self.child.child.pid)

    def pss_mb(self) -> float:
        """Sum the proportional set sizes of its processes: a page that several share counts once."""
        return sum(map(pss_mb, self.processes()))


@contextmanager
def served(shop: SyntheticShop, folder: Path, options: Sequence[str] = ()) -> Iterator[BenchServer]:
    """Serve the shop's first version for the length of a block.

    Args: folder: on the cache's file system, for runs (links into the cache) and log.
    Raises: BundleError with the server's last words when it does not start.
    """
    runs, log = link_runs(shop, folder), folder / "log"
    log.mkdir(exist_ok=True)
    arguments = ["serve", "--config", str(shop.config), "--log", str(log), "--runs", str(runs)]
    arguments += ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--clock-start", CLOCK_START]
    said = folder / "serve.log"
    with Children() as children:
        began = time.perf_counter()
        try:
            child = children.serve([*arguments, *options], folder / "ports.json", said, START_S)
        except StepError as error:
            raise BundleError(f"the server did not start: {said.read_text()[-1000:]}") from error
        yield BenchServer(child=child, folder=folder, start_s=time.perf_counter() - began)
        if child.child.poll() is None:
            child.stop()


def link_runs(shop: SyntheticShop, folder: Path) -> Path:
    """Make a RUNS folder of links into the shop's, with its first version live; one that is there stays."""
    runs = folder / "runs"
    if not runs.exists():
        ignored = shutil.ignore_patterns("delta.sqlite*", "*.lock")
        shutil.copytree(shop.runs, runs, copy_function=os.link, ignore=ignored)
        Registry(runs).activate(shop.versions[0])
    return runs


@contextmanager
def echoed(answer: bytes, folder: Path, processes: int) -> Iterator[str]:
    """Answer every call with the same bytes, by so many processes on one port; give the address.

    They have as many threads as the server has for ranking: one each, or one a core in a process alone.
    """
    threads = 1 if processes > 1 else max(2, len(os.sched_getaffinity(0)))
    (folder / "answer.bin").write_bytes(answer)
    with ExitStack() as stack:
        port = 0
        if processes > 1:
            held = stack.enter_context(socket.socket())
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind(("127.0.0.1", 0))
            port = held.getsockname()[1]
        for number in range(processes):
            ready = folder / f"echo-{number}.port"
            ready.unlink(missing_ok=True)
            program = [sys.executable, "-m", "benchmarks.speed.serve.echo", str(folder / "answer.bin")]
            child = subprocess.Popen([*program, str(ready), str(threads), *([str(port)] if port else [])])
            stack.callback(_end, child)
            port_text = _wait_for(ready, child)
        yield f"127.0.0.1:{port_text}"


def _wait_for(file: Path, child: subprocess.Popen[bytes]) -> str:
    end = time.monotonic() + _ECHO_START_S
    while not file.exists():
        if child.poll() is not None or time.monotonic() > end:
            raise DataError("the echo server did not start; its error is above")
        time.sleep(0.01)
    return file.read_text()


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    child.wait()
