"""The bench's side of the load generator: starts it, gives it plans, and reads what calls took."""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import grpc
import numpy as np

from benchmarks.speed.serve.generator import Plan, Said, write_requests
from benchmarks.speed.serve.http2 import OK, SHED
from recsys.errors import DataError

METHOD: Final = "/recsys.v1.RankingService/Recommend"
CONNECTIONS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """The calls of one run."""

    at_s: np.ndarray
    """[N] when each should have been sent, from the run's start."""
    latency_s: np.ndarray
    """[N] from then to its end."""
    status: np.ndarray
    """[N] gRPC's number of its status."""
    seconds: float
    """Length of the run as planned."""
    said: Said

    @property
    def num_failed(self) -> int:
        """Count the calls that were not answered with OK."""
        return int((self.status != OK).sum())

    @property
    def shed_s(self) -> np.ndarray:
        """Give the latencies of calls that were refused for overload."""
        shed: np.ndarray = self.latency_s[self.status == SHED]
        return shed

    @property
    def generator_cores(self) -> float:
        """Say how many cores the generator took."""
        return self.said.cpu_s / self.said.wall_s

    def percentiles(self) -> dict[str, float]:
        """Give p50, p99 and p99.9 of the answered calls, milliseconds; NaN when none was."""
        return percentiles_ms(self.latency_s[self.status == OK])

    def statuses(self) -> dict[str, int]:
        """Count the calls by the name of their status."""
        names = {code.value[0]: code.name for code in grpc.StatusCode}
        numbers, counts = np.unique(self.status.astype(int), return_counts=True)
        return {names[number]: count for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)}

    def goodput(self, within_s: float) -> float:
        """Count the answers within a time, a second."""
        return float(((self.status == OK) & (self.latency_s <= within_s)).sum() / self.seconds)


def percentiles_ms(latency_s: np.ndarray) -> dict[str, float]:
    """Give p50, p99 and p99.9 of latencies [N] in seconds, as milliseconds; NaN of none."""
    values = np.percentile(latency_s, [50, 99, 99.9]) if latency_s.size else np.full(3, np.nan)
    return dict(zip(("p50_ms", "p99_ms", "p999_ms"), (1000 * values).tolist(), strict=True))


def joined(runs: list[Calls]) -> Calls:
    """Put runs of one load one after the other."""
    starts = np.cumsum([0.0, *(run.seconds for run in runs[:-1])])
    return Calls(
        at_s=np.concatenate([run.at_s + start for run, start in zip(runs, starts, strict=True)]),
        latency_s=np.concatenate([run.latency_s for run in runs]),
        status=np.concatenate([run.status for run in runs]),
        seconds=sum(run.seconds for run in runs),
        said=Said(
            sent=sum(run.said.sent for run in runs),
            cpu_s=sum(run.said.cpu_s for run in runs),
            wall_s=sum(run.said.wall_s for run in runs),
            late_ms=max(run.said.late_ms for run in runs),
        ),
    )


class LoadGenerator:
    """The generator's process, for the length of a `with` block.

    Args: folder: for its files; requests: serialised, sent in turn.
    """

    def __init__(self, folder: Path, requests: list[bytes], connections: int = CONNECTIONS) -> None:
        self._calls_file = folder / "calls.npy"
        write_requests(folder / "requests.bin", requests)
        arguments = [str(folder / "requests.bin"), METHOD, str(connections)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.speed.serve.generator", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._seed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        if kind is not None:
            self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def closed(self, target: str, clients: int, seconds: float) -> Calls:
        """Let so many clients ask, each one call at a time."""
        return self._run(target=target, clients=clients, seconds=seconds)

    def open(self, target: str, rate: float, seconds: float, deadline_s: float = 0.0) -> Calls:
        """Send a Poisson process of so many calls a second."""
        return self._run(target=target, rate=rate, seconds=seconds, deadline_s=deadline_s)

    def _run(self, **asked: Any) -> Calls:
        self._seed += 1
        plan = Plan(calls=str(self._calls_file), seed=self._seed, **asked)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(asdict(plan)), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise DataError(f"the load generator ended ({self._process.wait()}); its error is above")
        at, latency, status = np.load(self._calls_file).T
        return Calls(
            at_s=at, latency_s=latency, status=status, seconds=plan.seconds, said=Said(**json.loads(line))
        )
