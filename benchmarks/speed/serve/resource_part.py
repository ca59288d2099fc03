"""Part of `recsys bench serve`: how long a server takes to start, and the memory of its processes."""

from typing import Any, Final

from benchmarks.speed.serve.server import served
from benchmarks.speed.serve.session import Session, record_answer, worker_options

WORKERS: Final = ("1", "4")


def measure_resources(session: Session) -> dict[str, Any]:
    """Start servers of one and of four workers; each is asked, then its memory is read."""
    start_s, rss_mb, again_s = dict[str, float](), dict[str, float](), dict[str, float]()
    for workers in WORKERS:
        folder = session.folder / f"workers-{workers}"
        folder.mkdir()
        with served(session.shop, folder, worker_options(workers)) as server:
            start_s[workers] = server.start_s
            record_answer(server.target, session.requests[:1])
            session.load.closed(server.target, session.asked.connections, session.asked.seconds / 2)
            rss_mb[workers] = server.pss_mb()
        with served(session.shop, folder, worker_options(workers)) as server:
            again_s[workers] = server.start_s
    return {"start_seconds": start_s, "start_again_seconds": again_s, "rss_mb": rss_mb}
