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
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final, TextIO

import grpc
import numpy as np

MARGIN_S: Final = 30.0
"""A call without a deadline of its own is given up after this."""
_OPTIONS: Final = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
_CODES: Final = tuple(code for code in grpc.StatusCode)
OK: Final = grpc.StatusCode.OK.value[0]
SHED: Final = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


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


@dataclass(slots=True)
class Generator:
    """Connections to one target after the other, and the requests that all runs draw from."""

    requests: Sequence[bytes]
    method: str
    connections: int
    _target: str = ""
    _channels: list[grpc.Channel] = field(default_factory=list)

    def run(self, plan: Plan) -> Said:
        """Send the load of a plan, and write its calls."""
        calls = self._calls(plan.target)
        timeout_s = plan.deadline_s or MARGIN_S
        cpu, began = time.process_time(), time.perf_counter()
        if plan.rate:
            at, latency, status, late = _open_loop(calls, self.requests, plan, timeout_s)
        else:
            at, latency, status = _closed_loop(calls, self.requests, plan, timeout_s)
            late = np.zeros(1)
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        np.save(plan.calls, np.stack([at, latency, status], axis=1))
        late_ms = 1000 * float(np.percentile(late, 99)) if late.size else 0.0
        return Said(sent=at.size, cpu_s=cpu_s, wall_s=wall_s, late_ms=late_ms)

    def _calls(self, target: str) -> list[Any]:
        if target != self._target:
            for channel in self._channels:
                channel.close()
            self._channels = [grpc.insecure_channel(target, _OPTIONS) for _ in range(self.connections)]
            for channel in self._channels:
                grpc.channel_ready_future(channel).result(MARGIN_S)
            self._target = target
        return [channel.unary_unary(self.method) for channel in self._channels]


def poisson_times(rate: float, seconds: float, seed: int) -> np.ndarray:
    """Draw the instants [N] of a Poisson process: float64 seconds from 0 to `seconds`, ascending."""
    rng = np.random.default_rng(seed)
    size = int(rate * seconds + 6 * (rate * seconds) ** 0.5 + 10)
    at: np.ndarray = np.cumsum(rng.exponential(1 / rate, size))
    return at[at < seconds]


def _open_loop(
    calls: Sequence[Any], requests: Sequence[bytes], plan: Plan, timeout_s: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    at = poisson_times(plan.rate, plan.seconds, plan.seed)
    ended, status, sent = np.full(at.size, np.nan), np.zeros(at.size), np.zeros(at.size)
    left, all_ended = count(1), threading.Event()

    def note(number: int, future: Any) -> None:
        ended[number] = time.perf_counter()
        status[number] = future.code().value[0]
        if next(left) == at.size:
            all_ended.set()

    began = time.perf_counter() + 0.01
    for number, instant in enumerate(at.tolist()):
        wait = began + instant - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        sent[number] = time.perf_counter()
        request, call = requests[number % len(requests)], calls[number % len(calls)]
        future = call.future(request, timeout=timeout_s)
        future.add_done_callback(lambda done, number=number: note(number, done))
    if at.size:
        all_ended.wait(timeout_s + MARGIN_S)
    return at, ended - began - at, status, sent - began - at


def _closed_loop(
    calls: Sequence[Any], requests: Sequence[bytes], plan: Plan, timeout_s: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    began = time.perf_counter()
    found: list[list[tuple[float, float, int]]] = [[] for _ in range(plan.clients)]

    def ask(client: int) -> None:
        for number in count(client, plan.clients):
            sent = time.perf_counter()
            if sent - began >= plan.seconds:
                return
            status = OK
            try:
                calls[client % len(calls)](requests[(plan.seed + number) % len(requests)], timeout=timeout_s)
            except grpc.RpcError as error:
                status = error.code().value[0]
            found[client].append((sent - began, time.perf_counter() - sent, status))

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(plan.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = np.array([row for of in found for row in of], np.float64).reshape(-1, 3)
    return rows[:, 0], rows[:, 1], rows[:, 2]


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
