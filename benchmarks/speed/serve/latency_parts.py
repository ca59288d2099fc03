"""Parts of `recsys bench serve`: what a call takes, beside an echo; the rate that is held; stages."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from benchmarks.speed.serve.load import Calls
from benchmarks.speed.serve.rates import find_max_rate
from benchmarks.speed.serve.server import BenchServer, echoed
from benchmarks.speed.serve.session import MANY_CLIENTS, Session, record_answer
from serving.client import AdminClient

HALF: Final = 0.5


def measure_latency(session: Session) -> dict[str, Any]:
    """Measure closed loops: an echo of the same process shape, then one client and eight."""
    server, load, seconds = session.server, session.load, session.asked.seconds
    answer = record_answer(server.target, session.requests[:1])
    processes = len(server.workers())
    with echoed(answer, session.folder, processes) as target:
        load.closed(target, 1, seconds / 4)
        echo = load.closed(target, 1, seconds)
    load.closed(server.target, 1, seconds / 4)
    one = of_server(server, lambda: load.closed(server.target, 1, seconds))
    stages = stages_of(server)
    eight = of_server(server, lambda: load.closed(server.target, MANY_CLIENTS, seconds))
    return {
        "answer_bytes": len(answer),
        "echo": figures(echo),
        "one_client": one,
        "eight_clients": eight,
        "echo_ratio": one["p50_ms"] / echo.percentiles()["p50_ms"],
        "stages_ms": stages,
    }


def measure_max_rate(session: Session) -> dict[str, Any]:
    """Search the highest rate that is held, then measure at half of it."""
    server, load, asked = session.server, session.load, session.asked
    steps: list[dict[str, float]] = []

    def holds(rate: float) -> bool:
        calls = load.open(server.target, rate, asked.seconds)
        p99 = calls.percentiles()["p99_ms"]
        held = calls.num_failed == 0 and p99 < asked.p99_limit_ms
        steps.append({"calls_per_s": rate, "p99_ms": p99, "failed": calls.num_failed, "held": held})
        return held

    closed = load.closed(server.target, MANY_CLIENTS, asked.seconds / 2)
    found = session.max_rate = asked.rate or find_max_rate(holds, 0.9 * closed.goodput(np.inf))
    half = None
    if found:
        half = of_server(server, lambda: load.open(server.target, HALF * found, 2 * asked.seconds))
    return {
        "max_rate": found or None,
        "max_rate_limit": f"p99 < {asked.p99_limit_ms:g} ms, no failed call, open loop",
        "max_rate_steps": steps,
        "half_load": half,
    }


def stages_of(server: BenchServer) -> dict[str, float]:
    """Read the median of each stage from the server's status: of its last minute or two, in milliseconds."""
    with AdminClient(server.admin_target) as admin:
        return {stage: found["p50"] for stage, found in admin.status().stages_ms.items()}


def of_server(server: BenchServer, run: Callable[[], Calls]) -> dict[str, float]:
    """Run load on a server; give its figures with the server's processor time a call, waiting left out."""
    before = server.cpu_s()
    calls = run()
    return figures(calls) | {"server_cpu_ms": 1000 * (server.cpu_s() - before) / max(1, calls.said.sent)}


def figures(calls: Calls) -> dict[str, float]:
    """Give what the JSON says of one run of load."""
    return calls.percentiles() | {
        "calls_per_s": (calls.latency_s.size - calls.num_failed) / calls.said.wall_s,
        "failed": calls.num_failed,
        "generator_cores": calls.generator_cores,
        "sent_late_p99_ms": calls.said.late_ms,
    }
