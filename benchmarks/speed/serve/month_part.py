"""Part of `recsys bench serve`: the start of a server whose log holds a month of journal."""

from datetime import datetime
from typing import Any

from benchmarks.speed.journal_start import JournalShape, write_journal
from benchmarks.speed.serve.bundle import CLOCK_START
from benchmarks.speed.serve.server import served
from benchmarks.speed.serve.session import Session, worker_options
from recsys.journal import FOLDER


def measure_month(session: Session) -> dict[str, Any]:
    """Start on a prepared version without a journal, then with one of 30 days up to the server's clock."""
    folder = session.folder / "month"
    folder.mkdir()
    options = worker_options(session.asked.workers)
    with served(session.shop, folder, options):
        pass  # prepares the version
    with served(session.shop, folder, options) as server:
        empty_s = server.start_s
    shape = JournalShape(days=30, requests=session.asked.journal_requests)
    until_ms = round(datetime.fromisoformat(CLOCK_START).timestamp() * 1000)
    num_bytes = write_journal(folder / "log" / FOLDER, shape, until_ms)
    with served(session.shop, folder, options) as server:
        month_s = server.start_s
    return {
        "month": {
            "days": shape.days,
            "requests_a_day": shape.requests,
            "journal_mb": num_bytes / 1e6,
            "start_seconds": month_s,
            "start_seconds_without": empty_s,
        }
    }
