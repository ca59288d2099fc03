"""Part of `recsys bench serve`: versions go live under load, with an upsert a second."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from benchmarks.speed.serve.load import Calls, joined
from benchmarks.speed.serve.session import Session
from recsys.errors import DataError
from serving.client import AdminClient, RecsysClient
from serving.client_values import ItemUpdate

SHARE: Final = 0.6
"""Of the highest rate."""
BETWEEN_S: Final = 1.0
"""From one swap's end to the next one's start."""
SWAP_S: Final = 300.0
"""Longest swap that is waited for."""
PIECE_S: Final = 4.0
"""Length of the runs of load that are put together while versions are swapped."""


def measure_swaps(session: Session) -> dict[str, Any]:
    """Load at 60 % of the highest rate, steadily first, then while versions are swapped."""
    server, asked = session.server, session.asked
    rate = SHARE * session.base_rate()
    with upserting(server.target) as upserts:
        steady = _load(session, rate, 2 * asked.seconds)
        swaps = Swaps(server.admin_target, session.shop.versions, asked.swaps)
        swaps.start()
        pieces = []
        while swaps.is_alive():
            pieces.append(session.load.open(server.target, rate, PIECE_S))
        swaps.join()
    swaps.check()
    swapping = joined(pieces)
    ratio = swapping.percentiles()["p99_ms"] / steady.percentiles()["p99_ms"]
    return {
        "swaps": {
            "count": len(swaps.seconds),
            "failed_calls": swapping.num_failed,
            "p99_ratio": ratio,
            "rate": rate,
            "calls": swapping.said.sent,
            "steady": steady.percentiles() | {"failed": steady.num_failed},
            "swapping": swapping.percentiles(),
            "swap_s": swaps.seconds,
            "upserts": len(upserts),
        }
    }


def _load(session: Session, rate: float, seconds: float) -> Calls:
    return session.load.open(session.server.target, rate, seconds)


class Swaps(threading.Thread):
    """Makes two versions live by turns, so many times."""

    def __init__(
        self, target: str, versions: tuple[str, str], count: int, between_s: float = BETWEEN_S
    ) -> None:
        super().__init__()
        self._target, self._versions, self._count = target, versions, count
        self._between_s = between_s
        self.seconds: list[float] = []
        """From asking for each swap until the server answers with the version."""
        self._error = ""

    def run(self) -> None:
        with AdminClient(self._target, timeout_s=SWAP_S) as admin:
            for number in range(self._count):
                time.sleep(self._between_s)
                began = time.perf_counter()
                if not self._swap(admin, self._versions[(number + 1) % 2]):
                    return
                self.seconds.append(time.perf_counter() - began)

    def _swap(self, admin: AdminClient, version: str) -> bool:
        end = time.monotonic() + SWAP_S
        live = admin.activate(version)
        while not live and time.monotonic() < end:
            time.sleep(0.1)
            live = admin.status().bundle_version == version
        if not live:
            self._error = f"{version} was not live after {SWAP_S:g} s: {admin.status().reload_error}"
        return live

    def check(self) -> None:
        """Raise DataError when a swap did not end."""
        if self._error:
            raise DataError(self._error)


@contextmanager
def upserting(target: str, every_s: float = 1.0) -> Iterator[list[float]]:
    """Change one item every second while a block runs; give the seconds that each upsert took."""
    taken: list[float] = []
    over = threading.Event()

    def upsert() -> None:
        with RecsysClient(target, timeout_s=30) as client:
            number = 0
            while not over.wait(every_s):
                began = time.perf_counter()
                client.upsert_items([ItemUpdate(item_id=f"item-{number}", price=1_000 + number)])
                taken.append(time.perf_counter() - began)
                number += 1

    thread = threading.Thread(target=upsert)
    thread.start()
    try:
        yield taken
    finally:
        over.set()
        thread.join()
