"""The load generator, a process of its own: sends recorded requests, and writes down when answers came.

`python -m benchmarks.speed.serve.generator REQUESTS METHOD CONNECTIONS` reads a plan a line from standard
input, runs it, and prints a line of JSON; the calls go into the NumPy file that the plan names.

    closed  each of `clients` sends its next request when the answer is there
    open    requests are sent at the instants of a Poisson process, whatever the server does; a call's latency
            counts from the instant at which it should have been sent, so a server that stalls is charged for
            all who would have come meanwhile

Requests are bytes made before, answers are not parsed. Every connection is one of its own.
"""

import json
import select
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, TextIO

import numpy as np

from benchmarks.speed.serve.http2 import DEADLINE_EXCEEDED, UNAVAILABLE, Connection

MARGIN_S: Final = 30.0
"""A call without a deadline of its own is given up after this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run of load."""

    target: str
    seconds: float
    calls: str
    """File for the calls: float64 [N, 3] of the intended instant (s), the latency (s) and the status."""
    rate: float = 0.0
    """Calls a second, open loop; 0: closed loop."""
    clients: int = 1
    """Of a closed loop."""
    deadline_s: float = 0.0
    """Of each call; 0: none."""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the generator says of a run."""

    sent: int
    cpu_s: float
    """Processor time of the generator."""
    wall_s: float
    late_ms: float
    """By how much requests were sent late, 99th percentile: open loop only."""


class Calls:
    """The calls of one run, in the order in which they are begun."""

    def __init__(self, connections: "Connections", requests: Sequence[bytes], deadline_s: float) -> None:
        self._connections, self._requests = connections, requests
        self._deadline_s = deadline_s or MARGIN_S
        self.at: list[float] = []
        self.late: list[float] = []
        self.ended: list[float] = []
        self.status: list[int] = []
        self._expiries: deque[tuple[float, int, Connection, int]] = deque()

    @property
    def num_ended(self) -> int:
        """Count the calls that have ended."""
        return self._num_ended

    _num_ended = 0

    def begin(self, intended: float, request: int) -> None:
        """Send a request that should have been sent at an instant of `time.perf_counter`."""
        number = len(self.at)
        connection = self._connections.pick(number)
        sent = time.perf_counter()
        self.at.append(intended)
        self.late.append(sent - intended)
        self.ended.append(np.nan)
        self.status.append(UNAVAILABLE)
        stream = connection.send(number, self._requests[request % len(self._requests)])
        self._expiries.append((sent + self._deadline_s, number, connection, stream))

    def wait(self, until: float) -> Iterator[int]:
        """Wait for answers until an instant, or until some came; give the calls that ended."""
        seconds = max(0.0, min(until, self._next_expiry()) - time.perf_counter())
        for connection in self._connections.ready(seconds):
            for number, status in connection.receive():
                self._end(number, status)
                yield number
        yield from self._expire()

    def _expire(self) -> Iterator[int]:
        while self._expiries and (
            not np.isnan(self.ended[self._expiries[0][1]]) or self._next_expiry() <= time.perf_counter()
        ):
            _, number, connection, stream = self._expiries.popleft()
            if np.isnan(self.ended[number]) and connection.cancel(stream):
                self._end(number, DEADLINE_EXCEEDED)
                yield number

    def _next_expiry(self) -> float:
        return self._expiries[0][0] if self._expiries else float("inf")

    def _end(self, number: int, status: int) -> None:
        self.ended[number] = time.perf_counter()
        self.status[number] = status
        self._num_ended += 1


class Connections:
    """So many connections to one target; one that the server closes is replaced."""

    def __init__(self, target: str, method: str, count: int, deadline_s: float) -> None:
        self._asked = (target, method, deadline_s)
        self._all = [Connection(*self._asked) for _ in range(count)]
        self._closing: list[Connection] = []

    def pick(self, number: int) -> Connection:
        """Give the connection of a call: by turns."""
        place = number % len(self._all)
        if not self._all[place].open:
            self._closing.append(self._all[place])
            self._all[place] = Connection(*self._asked)
        return self._all[place]

    def ready(self, seconds: float) -> list[Connection]:
        """Wait so long until some can be read, and send what others could not send before."""
        ended = [connection for connection in self._closing if not connection.num_calls]
        for connection in ended:
            connection.close()
            self._closing.remove(connection)
        by_socket = {c.socket: c for c in (*self._all, *self._closing) if c.open or c.num_calls}
        writing = [at for at, connection in by_socket.items() if connection.wants_to_write]
        # select counts in microseconds; epoll, in milliseconds, would send late.
        readable, writable, _ = select.select(list(by_socket), writing, [], seconds)
        for at in writable:
            by_socket[at].flush()
        return [by_socket[at] for at in readable]

    def close(self) -> None:
        """Close all."""
        for connection in (*self._all, *self._closing):
            connection.close()


@dataclass(slots=True)
class Generator:
    """The requests that all runs draw from, and how they are sent."""

    requests: Sequence[bytes]
    method: str
    num_connections: int

    def run(self, plan: Plan) -> Said:
        """Send the load of a plan, and write its calls."""
        connections = Connections(plan.target, self.method, self.num_connections, plan.deadline_s)
        calls = Calls(connections, self.requests, plan.deadline_s)
        cpu, began = time.process_time(), time.perf_counter()
        if plan.rate:
            _open_loop(calls, poisson_times(plan.rate, plan.seconds, plan.seed), began)
        else:
            _closed_loop(calls, plan, began)
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        connections.close()
        at, ended, late = np.array(calls.at), np.array(calls.ended), np.array(calls.late)
        np.save(plan.calls, np.stack([at - began, ended - at, np.array(calls.status, np.float64)], axis=1))
        late_ms = 1000 * float(np.percentile(late, 99)) if late.size else 0.0
        return Said(sent=at.size, cpu_s=cpu_s, wall_s=wall_s, late_ms=late_ms)


def poisson_times(rate: float, seconds: float, seed: int) -> np.ndarray:
    """Draw the instants [N] of a Poisson process: float64 seconds from 0 to `seconds`, ascending."""
    rng = np.random.default_rng(seed)
    size = int(rate * seconds + 6 * (rate * seconds) ** 0.5 + 10)
    at: np.ndarray = np.cumsum(rng.exponential(1 / rate, size))
    return at[at < seconds]


def _open_loop(calls: Calls, at: np.ndarray, began: float) -> None:
    """Send at instants [N] after `began`, then wait for the last answers."""
    begun, instants = 0, (began + at).tolist()
    while calls.num_ended < len(instants):
        now = time.perf_counter()
        while begun < len(instants) and instants[begun] <= now:
            calls.begin(instants[begun], begun)
            begun += 1
        for _ in calls.wait(instants[begun] if begun < len(instants) else now + MARGIN_S):
            pass


def _closed_loop(calls: Calls, plan: Plan, began: float) -> None:
    """Let each client send its next request when the answer to the one before is there."""
    for _ in range(plan.clients):
        calls.begin(time.perf_counter(), plan.seed + len(calls.at))
    while calls.num_ended < len(calls.at):
        for _ in calls.wait(time.perf_counter() + MARGIN_S):
            now = time.perf_counter()
            if now - began < plan.seconds:
                calls.begin(now, plan.seed + len(calls.at))


def read_requests(path: Path) -> list[bytes]:
    """Read requests: each is its length in four bytes, then itself."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4])
        found.append(data[at + 4 : end])
        at = end
    return found


def write_requests(path: Path, requests: Sequence[bytes]) -> None:
    """Write what `read_requests` reads."""
    path.write_bytes(b"".join(len(request).to_bytes(4) + request for request in requests))


def serve(generator: Generator, plans: TextIO, said: TextIO) -> None:
    """Run plans, a line each, until there are no more."""
    for line in plans:
        print(json.dumps(asdict(generator.run(Plan(**json.loads(line))))), file=said, flush=True)


if __name__ == "__main__":
    file, method_name, num_connections = sys.argv[1:]
    serve(Generator(read_requests(Path(file)), method_name, int(num_connections)), sys.stdin, sys.stdout)
