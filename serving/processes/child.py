"""A worker process as its parent sees it: started in a fresh interpreter, told what to serve, and watched."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from recsys.environment import environment
from serving.processes.orders import Report, ServeSettings, WorkerOrder, WorkerSeat

WORKER = (sys.executable, "-m", "serving.processes.worker")
_READ_BYTES = 65_536
# Libraries that count processors would start as many threads in every worker.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")


class Child:
    """One process. It ends when its parent does: its standard input is a pipe that only the parent holds."""

    def __init__(self, settings: ServeSettings, seat: WorkerSeat, command: Sequence[str] = WORKER) -> None:
        self.report: Report | None = None
        """Its first report; None until it serves or has failed."""
        self.started = time.monotonic()
        self._text = b""
        self.reports_fd, report_fd = os.pipe()
        try:
            self.process = _start(command, (report_fd, seat.board_fd), settings.config.serving.threads)
        except OSError:
            os.close(self.reports_fd)
            raise
        finally:
            os.close(report_fd)
        order = WorkerOrder(settings=settings, seat=seat, report_fd=report_fd)
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended already, which its parent finds out
            self.process.stdin.write(order.model_dump_json(by_alias=True).encode() + b"\n")
            self.process.stdin.flush()

    def read(self) -> bool:
        """Read what it reports; return False when it can report no more, because it has ended."""
        data = os.read(self.reports_fd, _READ_BYTES)
        self._text += data
        line, newline, _ = self._text.partition(b"\n")
        if newline and self.report is None:
            self.report = Report.model_validate_json(line)
        return bool(data)

    @property
    def ready(self) -> bool:
        """Tell whether it serves."""
        return self.report is not None and self.report.error is None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        self.process.send_signal(number)

    def close(self) -> str:
        """Wait until it has ended, and say how: "code 1" or "SIGKILL"."""
        assert self.process.stdin is not None
        code = self.process.wait()
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        os.close(self.reports_fd)
        return signal.Signals(-code).name if code < 0 else f"code {code}"


def _start(command: Sequence[str], descriptors: tuple[int, ...], threads: int) -> "subprocess.Popen[bytes]":
    """Start a fresh interpreter: gRPC, torch and FAISS do not survive a fork."""
    with environment(dict.fromkeys(_THREAD_VARIABLES, str(threads))):
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            pass_fds=descriptors,
            process_group=0,  # Ctrl-C is for the parent, which lets all workers drain
        )
