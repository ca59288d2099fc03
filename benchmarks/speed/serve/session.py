"""What the parts of `recsys bench serve` share: the shop, one running server, the load."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import grpc
import numpy as np

from benchmarks.speed.serve.bundle import SyntheticShop
from benchmarks.speed.serve.load import METHOD, LoadGenerator
from benchmarks.speed.serve.server import BenchServer, served
from protos.recsys.v1 import ranking_pb2 as pb

NUM_REQUESTS: Final = 5_000
PAGE: Final = 50
MANY_CLIENTS: Final = 8
WARM_UP_CALLS: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to measure, and how long."""

    parts: Sequence[str]
    seconds: float = 8.0
    """Of one run of load; a part makes several."""
    connections: int = 8
    workers: int | Literal["auto"] = "auto"
    """Worker processes: a number, or `auto`, as many as processors."""
    swaps: int = 10
    journal_requests: int = 20_000
    """A day of the part month."""
    minutes: float = 30.0
    """Of the soak."""
    searches: int = 10_000
    """Filtered searches of random catalogues."""
    p99_limit_ms: float = 50.0
    """A rate is held when the 99th percentile is below this and no call fails."""
    rate: float = 0.0
    """Calls a second that the server holds; 0: searched for, or taken from the JSON that is added to."""


@dataclass(slots=True)
class Session:
    """One server on the shop, started when a part first asks for it; ended with the block."""

    shop: SyntheticShop
    asked: Asked
    folder: Path
    max_rate: float = 0.0
    """Calls a second; 0: not known yet."""
    _stack: ExitStack = field(default_factory=ExitStack)
    _found: dict[str, Any] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def base_rate(self) -> float:
        """Give the rate that other loads are multiples of, calls a second: the highest one that is held.

        Where none was measured or held, as beside busy neighbours, it is what eight clients get.
        """
        if not self.max_rate:
            closed = self.load.closed(self.server.target, MANY_CLIENTS, self.asked.seconds)
            self.max_rate = max(1.0, closed.goodput(np.inf))
        return self.max_rate

    @property
    def server(self) -> BenchServer:
        """Give the server, warm."""
        if "server" not in self._found:
            folder = self.folder / "server"
            folder.mkdir()
            self._found["server"] = self._stack.enter_context(
                served(self.shop, folder, worker_options(self.asked.workers))
            )
            record_answer(self._found["server"].target, self.requests[:WARM_UP_CALLS])
        found: BenchServer = self._found["server"]
        return found

    @property
    def load(self) -> LoadGenerator:
        """Give the load generator."""
        if "load" not in self._found:
            generator = LoadGenerator(self.folder, self.requests, self.asked.connections)
            self._found["load"] = self._stack.enter_context(generator)
        found: LoadGenerator = self._found["load"]
        return found

    @property
    def requests(self) -> list[bytes]:
        """Give the serialised requests: a page of 50 for users that the store knows, in drawn order."""
        if "requests" not in self._found:
            self._found["requests"] = make_requests(self.shop)
        found: list[bytes] = self._found["requests"]
        return found


def worker_options(workers: int | str) -> list[str]:
    """Give the options of `recsys serve` for so many worker processes."""
    return ["--workers", str(workers)]


def make_requests(shop: SyntheticShop, count: int = NUM_REQUESTS) -> list[bytes]:
    """Serialise requests of drawn users."""
    rng = np.random.default_rng(shop.sizes.seed)
    found = []
    for number in rng.integers(0, shop.sizes.users, count).tolist():
        request = pb.RecommendRequest(user_id=shop.user(number), page_size=PAGE, surface="home")
        request.context["device"].text = f"device-{number % 3}"
        found.append(request.SerializeToString())
    return found


def record_answer(target: str, requests: Sequence[bytes]) -> bytes:
    """Ask one by one, and give the bytes of the last answer."""
    with grpc.insecure_channel(target, (("grpc.use_local_subchannel_pool", 1),)) as channel:
        call: Any = channel.unary_unary(METHOD)
        answers = [call(request, timeout=60, wait_for_ready=True) for request in requests]
    answer: bytes = answers[-1]
    return answer
