"""The parent of several worker processes: starts them, replaces those that die, and stops them together.

It answers no call itself, so it loads neither gRPC nor torch, FAISS or Polars.

    starting  every worker has its order ─▶ all are ready: the server is announced
    serving   a worker ends ─▶ it is started again, later and later while it keeps ending
    stopping  SIGTERM or SIGINT ─▶ passed on ─▶ all have drained, or are killed after `[serving] drain_s`
"""

import contextlib
import mmap
import os
import selectors
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from recsys.errors import WorkerError
from serving.processes.child import WORKER, Child
from serving.processes.orders import Report, ServeSettings, WorkerSeat
from serving.stats_board import StatsBoard

MAX_SOCKET_PATH = 107
"""Bytes of a unix socket's path, as Linux has it."""
SLACK_S = 5.0
"""A worker that has not ended so long after the limit of its drain is killed."""
_MAX_EARLY_ENDS = 3
"""Before all workers have been ready once, so many ends of one of them end the server."""
_FIRST_DELAY_S, _LAST_DELAY_S = 0.5, 30.0
_STEADY_S = 60.0
_WOKEN_BYTES = 4096
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Seat:
    """A worker's place, and the process that has it now."""

    number: int
    child: Child | None = None
    num_ends: int = 0
    """Ends in a row, each less than _STEADY_S after its start."""
    start_at: float = 0.0
    """When the next process is started, by `time.monotonic`, while there is none."""

    def ended(self, now: float) -> float:
        """Note that a process has ended, or could not be started; return the seconds until the next one is.

        The first is replaced at once, the next ones after .5, 1, 2, ... up to 30 seconds.
        """
        child = self.child
        steady = child is not None and child.ready and now - child.started >= _STEADY_S
        self.num_ends = 1 if steady else self.num_ends + 1
        delay_s = 0.0 if self.num_ends == 1 else min(_LAST_DELAY_S, _FIRST_DELAY_S * 2 ** (self.num_ends - 2))
        self.child, self.start_at = None, now + delay_s
        return delay_s


@dataclass(slots=True)
class Parent:
    """Runs the workers of one server."""

    settings: ServeSettings
    num_workers: int
    announce: Callable[[str], None]
    """Called once, with the line of the bundle that answers, when all workers are ready."""
    command: Sequence[str] = WORKER
    """Starts a worker."""
    seats: list[Seat] = field(init=False)
    board: StatsBoard = field(init=False)
    _board_fd: int = field(init=False)
    _sockets: Path | None = field(init=False)
    _selector: selectors.BaseSelector = field(init=False, default_factory=selectors.DefaultSelector)
    _announced: bool = False
    _stopping: bool = False
    _interrupted: bool = False
    """Ctrl-C came before the server was announced."""
    _woken: socket.socket = field(init=False)
    """Python writes a byte here for each signal."""

    def __post_init__(self) -> None:
        self.seats = [Seat(number) for number in range(self.num_workers)]
        size = StatsBoard.size(self.num_workers)
        self._board_fd = os.memfd_create("recsys-stats")
        os.ftruncate(self._board_fd, size)
        self.board = StatsBoard(mmap.mmap(self._board_fd, size), self.num_workers)
        self._sockets = _socket_folder() if self.num_workers > 1 else None

    def run_until_signalled(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain.

        Raises: ConfigError and other errors of a worker that cannot start, WorkerError for one that ends
        again and again or takes too long, before all have been ready; WorkerError when one had to be killed;
        KeyboardInterrupt for a SIGINT before all have been ready.
        """
        with self._signals():
            try:
                while not self._stopping:
                    self._start_missing()
                    self._wait()
                    self._stop_slow_starts()
                    self._announce_when_ready()
            finally:
                killed = self._stop_all()
        if killed:
            raise WorkerError(
                f"{killed} workers did not end in time and were killed; their calls were cut off"
            )
        if self._interrupted:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Stop on SIGTERM and SIGINT, which also end a wait."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for end in (ours, theirs):
                end.setblocking(False)
            self._woken = ours
            self._selector.register(ours, selectors.EVENT_READ)
            before = signal.set_wakeup_fd(theirs.fileno())
            handlers = {n: signal.signal(n, self._stop) for n in (signal.SIGTERM, signal.SIGINT)}
            try:
                yield
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
                signal.set_wakeup_fd(before)
                self._selector.close()
                os.close(self._board_fd)
                if self._sockets is not None:
                    shutil.rmtree(self._sockets, ignore_errors=True)

    def _stop(self, number: int, _: object) -> None:
        self._stopping = True
        self._interrupted |= number == signal.SIGINT and not self._announced

    def _start_missing(self) -> None:
        for seat in self.seats:
            if seat.child is None and time.monotonic() >= seat.start_at:
                self._start(seat)

    def _start(self, seat: Seat) -> None:
        place = WorkerSeat(
            number=seat.number, num_workers=self.num_workers, board_fd=self._board_fd, sockets=self._sockets
        )
        try:
            seat.child = Child(self.settings, place, self.command)
        except OSError as error:  # out of memory or processes, which may pass
            delay_s = seat.ended(time.monotonic())
            _log.error("worker_not_started", worker=seat.number, error=str(error), restart_s=delay_s)
            if not self._announced:
                raise WorkerError(
                    f"worker {seat.number} cannot be started: {error.strerror}; give the server more memory, "
                    "or fewer --workers"
                ) from error
            return
        self._selector.register(seat.child.reports_fd, selectors.EVENT_READ, seat)

    def _wait(self) -> None:
        """Wait for a report, an end, a signal, or until something is due."""
        for seat in self._ended_within(self._next_due_s()):
            self._after_end(seat)

    def _ended_within(self, limit_s: float | None) -> list[Seat]:
        """Wait for a report, an end or a signal; return the seats whose process has ended."""
        ended = []
        for key, _ in self._selector.select(limit_s):
            seat = key.data
            if seat is None:
                self._woken.recv(_WOKEN_BYTES)  # left there, it would end every later wait at once
            elif not seat.child.read():
                ended.append(seat)
        return ended

    def _next_due_s(self) -> float | None:
        due = [seat.start_at for seat in self.seats if seat.child is None]
        due += [c.started + self._start_limit_s for c in self._children() if not c.ready]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _after_end(self, seat: Seat) -> None:
        how, report = self._bury(seat)
        delay_s = seat.ended(time.monotonic())
        self.board.enter(seat.number, "restarting")
        self.board.count_restart(seat.number)
        error = report.error if report is not None else None
        _log.error("worker_ended", worker=seat.number, how=how, error=error, restart_s=delay_s)
        if self._announced or self._stopping:
            return
        if report is not None and report.error is not None:
            raise WorkerError(report.error, exit_code=report.exit_code)
        if seat.num_ends >= _MAX_EARLY_ENDS:
            raise WorkerError(
                f"worker {seat.number} ended {seat.num_ends} times before the server was ready, last with "
                f"{how}; the log above says why, and --workers 1 shows it in one process"
            )

    def _bury(self, seat: Seat) -> tuple[str, Report | None]:
        """Take leave of a process that has ended or was killed; return how it ended, and its report."""
        assert seat.child is not None
        self._selector.unregister(seat.child.reports_fd)
        return seat.child.close(), seat.child.report

    def _stop_slow_starts(self) -> None:
        """Kill workers that take too long to be ready; the next wait finds that they have ended."""
        now = time.monotonic()
        for seat in self.seats:
            child = seat.child
            if child is None or child.ready or now - child.started < self._start_limit_s:
                continue
            child.signal(signal.SIGKILL)
            text = f"worker {seat.number} was not ready within {self._start_limit_s:g} s, [serving] start_s"
            if not self._announced:
                raise WorkerError(f"{text}; give it longer, or see in the log above what it waits for")
            _log.error("worker_too_slow", worker=seat.number, limit_s=self._start_limit_s)

    def _announce_when_ready(self) -> None:
        ready = [child.report for child in self._children() if child.ready and child.report is not None]
        if not self._announced and not self._stopping and len(ready) == self.num_workers:
            self._announced = True
            self.announce(ready[0].bundle)

    def _stop_all(self) -> int:
        """Let all workers drain, kill those that do not end in time, and return how many these were."""
        deadline = time.monotonic() + self.settings.config.serving.drain_s + SLACK_S
        for child in self._children():
            child.signal(signal.SIGTERM)
        while (left_s := deadline - time.monotonic()) > 0 and any(seat.child for seat in self.seats):
            for seat in self._ended_within(left_s):
                self._bury(seat)
                seat.child = None
        late = [seat for seat in self.seats if seat.child is not None]
        for seat in late:
            assert seat.child is not None
            seat.child.signal(signal.SIGKILL)
            self._bury(seat)
            seat.child = None
        return len(late)

    def _children(self) -> list[Child]:
        return [seat.child for seat in self.seats if seat.child is not None]

    @property
    def _start_limit_s(self) -> float:
        return self.settings.config.serving.start_s


def _socket_folder() -> Path | None:
    """Make a folder for the workers' sockets; None, with a log entry, where there is no place for them."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="recsys-"))
    except OSError as error:
        problem = f"no folder for temporary files can be written: {error.strerror}"
    else:
        if len(os.fsencode(folder / "000")) <= MAX_SOCKET_PATH:
            return folder
        folder.rmdir()
        problem = f"{folder} is too long a path for a socket"
    _log.warning(
        "calls_not_shared_out", reason=problem, remedy="set TMPDIR to a short path that can be written"
    )
    return None
