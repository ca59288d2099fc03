"""Part of `recsys bench serve`: where the processor time of a call goes, by module.

A server of this process answers without gRPC, so parsing, the response and the connection are left out. The
profiler slows small Python functions more than large products: its shares are laid over the time that the
same calls take without it.
"""

import cProfile
import pstats
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.commit import CHECKOUT
from benchmarks.speed.serve.bundle import CLOCK_START, SyntheticShop, shop_config
from benchmarks.speed.serve.server import link_runs
from benchmarks.speed.serve.session import PAGE, Session
from serving.app import Server
from serving.clock import clock_from
from serving.request import Deadline, RankRequest
from serving.server_options import ServerOptions

CALLS: Final = 300
WARM_UP: Final = 50
DEADLINE_S: Final = 60.0


def measure_profile(session: Session) -> dict[str, Any]:
    """Answer calls one by one in this process; processor microseconds a call, in all and by module."""
    folder = session.folder / "profile"
    folder.mkdir()
    with _own_server(session.shop, folder) as server:

        def answer(numbers: range) -> None:
            for number in numbers:
                asked = RankRequest(user_id=session.shop.user(number), page_size=PAGE, surface="home")
                server.recommender.answer(asked, Deadline.after(DEADLINE_S))

        answer(range(WARM_UP))
        began = time.thread_time()
        answer(range(WARM_UP, WARM_UP + CALLS))
        call_us = 1e6 * (time.thread_time() - began) / CALLS
        profile = cProfile.Profile(time.thread_time)
        profile.runcall(answer, range(WARM_UP, WARM_UP + CALLS))
    own = by_module(profile)
    return {"profile": {"call_us": call_us, "by_module": {k: call_us * v for k, v in own.items()}}}


def by_module(profile: cProfile.Profile) -> dict[str, float]:
    """Give each module's share of the time, largest first; libraries' functions count for who called them."""
    spent: dict[str, float] = defaultdict(float)
    for (file, _, name), (_, _, own_s, _, callers) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        module = _module(file)
        if module or not callers:
            spent[module or name] += own_s
            continue
        for (caller, _, _), (_, _, from_s, _) in callers.items():
            spent[_module(caller) or "libraries"] += from_s
    total = sum(spent.values())
    return {k: v / total for k, v in sorted(spent.items(), key=lambda pair: -pair[1]) if v / total > 0.002}


def _module(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(CHECKOUT)) if path.is_relative_to(CHECKOUT) else ""


@contextmanager
def _own_server(shop: SyntheticShop, folder: Path) -> Iterator[Server]:
    runs = link_runs(shop, folder)
    (folder / "log").mkdir()
    server = Server(
        ServerOptions(
            config=shop_config(),
            log=folder / "log",
            runs=runs,
            clock=clock_from(CLOCK_START, 1.0),
            listen="127.0.0.1:0",
            admin_listen="127.0.0.1:0",
        )
    )
    server.start()
    try:
        yield server
    finally:
        server.stop(0.0)
