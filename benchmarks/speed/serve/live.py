"""`recsys bench serve --runs`: how fast one server answers on a live bundle, asked from this machine.

The server runs as a process of its own and journals into a temporary folder; clients are threads with a
channel each. Every number is of whole calls as a caller sees them, after a warm-up; the clients share the
machine's cores.
"""

import os
import platform
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from recsys.errors import BundleError, DataError
from recsys.log import InteractionLog
from recsys.registry import Registry
from serving.client import RecsysClient
from serving.client_values import CallError, ItemUpdate
from serving.demo.children import Children, StepError

_WARM_UP = 5
"""First calls of a connection, which do not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one number of clients saw."""

    clients: int
    calls: int
    failed: int
    calls_per_s: float
    p50_ms: float
    p99_ms: float
    stage_ms: dict[str, float]
    """Median time of each stage inside the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveReport:
    """What `recsys bench serve --runs` writes."""

    bundle_version: str
    page_size: int
    cores: int | None
    python: str
    start_s: float
    """From starting the process to its ready line."""
    new_items: int
    """Items that the bundle does not know, upserted before the first call."""
    upsert_s: float
    """How long that took."""
    first_ms: float
    """The first call, which finds everything warm."""
    loads: list[Load] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Give the JSON tree."""
        return asdict(self)


def measure_live(
    config: Path,
    log: Path,
    runs: Path,
    clients: list[int],
    seconds: float,
    page_size: int,
    new_items: int = 0,
) -> LiveReport:
    """Start a server on the live bundle and load it with each number of clients.

    Raises: BundleError without a live bundle, DataError without users to ask for.
    """
    version = Registry(runs).current()
    if version is None:
        raise BundleError(f"{runs} has no live bundle to measure; run `recsys nightly` first")
    users = _users(log)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, _served(config, Path(folder), runs) as target:
        start_s = time.perf_counter() - start
        upsert_s = _upsert(target, new_items)
        first_ms = 1000 * _call_once(target, users[0], page_size, version)
        report = LiveReport(
            bundle_version=version,
            page_size=page_size,
            cores=os.cpu_count(),
            python=platform.python_version(),
            start_s=round(start_s, 3),
            new_items=new_items,
            upsert_s=round(upsert_s, 3),
            first_ms=round(first_ms, 3),
        )
        with Progress(transient=True) as progress:
            for number in progress.track(clients, description="load"):
                report.loads.append(_load(target, users, number, seconds, page_size))
        return report


def _load(target: str, users: list[str], clients: int, seconds: float, page_size: int) -> Load:
    samples = [_Client(target, users, number, page_size) for number in range(clients)]
    end = time.perf_counter() + seconds
    threads = [threading.Thread(target=client.run, args=(end,)) for client in samples]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed_s = time.perf_counter() - start
    num_calls = sum(len(client.seconds) for client in samples)
    latencies = np.array([s for client in samples for s in client.seconds] or [np.nan])
    p50, p99 = 1000 * np.percentile(latencies, [50, 99])
    stages = [stage for client in samples for stage in client.stages]
    return Load(
        clients=clients,
        calls=num_calls,
        failed=sum(client.failed for client in samples),
        calls_per_s=round(num_calls / elapsed_s, 1),
        p50_ms=round(float(p50), 3),
        p99_ms=round(float(p99), 3),
        stage_ms={
            k: round(float(np.median([s[k] for s in stages])), 3) for k in (stages[0] if stages else {})
        },
    )


class _Client:
    """One caller with a connection of its own."""

    def __init__(self, target: str, users: list[str], number: int, page_size: int) -> None:
        self._target, self._users, self._page_size = target, users, page_size
        self._rng = np.random.default_rng(number)
        self.seconds: list[float] = []
        self.stages: list[dict[str, float]] = []
        self.failed = 0

    def run(self, end: float) -> None:
        """Ask until the end, and once at least; the first calls of a connection do not count."""
        with RecsysClient(self._target, timeout_s=10) as client:
            for _ in range(_WARM_UP):
                self._ask(client)
            self.seconds.clear()
            self.stages.clear()
            self._ask(client)
            while time.perf_counter() < end:
                self._ask(client)

    def _ask(self, client: RecsysClient) -> None:
        user = self._users[int(self._rng.integers(len(self._users)))]
        start = time.perf_counter()
        try:
            answer = client.recommend(user, self._page_size, debug={"explain": True})
        except CallError:
            self.failed += 1
            return
        self.seconds.append(time.perf_counter() - start)
        self.stages.append(dict(answer.stage_ms))


def _users(log: Path) -> list[str]:
    found = InteractionLog(log)
    day = found.require_days("impressions")[-1]
    users: list[str] = found.read("impressions", day)["user_id"].unique().sort().to_list()
    if not users:
        raise DataError(f"{log} has no impressions on {day}; bench on a log that has users")
    return users


def _upsert(target: str, num_items: int) -> float:
    """Upsert new items by hundreds; give the seconds it took."""
    start = time.perf_counter()
    with RecsysClient(target, timeout_s=30) as client:
        for first in range(0, num_items, 100):
            numbers = range(first, min(first + 100, num_items))
            rejected = client.upsert_items(
                [ItemUpdate(item_id=f"bench-{n}", title=f"new item {n}", price=n) for n in numbers]
            )
            assert not rejected, rejected
    return time.perf_counter() - start


def _call_once(target: str, user: str, page_size: int, version: str) -> float:
    with RecsysClient(target, timeout_s=30) as client:
        client.wait_ready(30)
        start = time.perf_counter()
        answer = client.recommend(user, page_size)
        elapsed_s = time.perf_counter() - start
    if answer.bundle_version != version:
        raise BundleError(f"the server could not load {version}; see `recsys bundle verify {version}`")
    return elapsed_s


@contextmanager
def _served(config: Path, folder: Path, runs: Path) -> Iterator[str]:
    """Run `recsys serve` for the length of a block; give its address."""
    log = folder / "log"
    log.mkdir(exist_ok=True)  # empty: the bundle has the items, and the journal shall lie here
    arguments = ["serve", "--config", str(config), "--log", str(log), "--runs", str(runs)]
    arguments += ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    said = folder / "serve.log"
    with Children() as children:
        try:
            server = children.serve(arguments, folder / "ports.json", said)
        except StepError as error:
            raise BundleError(f"the server did not start: {said.read_text()[-1000:]}") from error
        yield server.target
        server.stop()


def show_live(report: LiveReport) -> None:
    """Print a line per number of clients."""
    table = Table("clients", "calls/s", "p50 ms", "p99 ms", "failed", "stages (median ms)", box=None)
    for load in report.loads:
        stages = ", ".join(f"{stage} {ms:.2f}" for stage, ms in load.stage_ms.items())
        table.add_row(
            str(load.clients),
            f"{load.calls_per_s:.0f}",
            f"{load.p50_ms:.1f}",
            f"{load.p99_ms:.1f}",
            str(load.failed),
            stages,
        )
    console = Console()
    console.print(table)
    console.print(
        f"{report.bundle_version}, {report.cores} cores shared with the clients, "
        f"ready in {report.start_s:.1f} s, first call {report.first_ms:.1f} ms"
        + (f", {report.new_items} new items upserted in {report.upsert_s:.2f} s" if report.new_items else ""),
        style="dim",
    )
