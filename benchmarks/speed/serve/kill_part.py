"""Part of `recsys bench serve`: processes are killed while a caller writes; acknowledged rows must stay.

The journal's word counts: an answer's request id, a feedback id and an item's price are acknowledged when the
call's reply has come. At the end all journal files are read.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.speed.serve.bundle import SyntheticShop
from benchmarks.speed.serve.server import BenchServer, served
from benchmarks.speed.serve.session import Session, worker_options
from recsys.journal import FOLDER, files, read
from serving.client import RecsysClient
from serving.client_values import CallError, Feedback, ItemUpdate

KILLS: Final = 5
WRITTEN: Final = 20
"""Rows of each table that are acknowledged before a kill; the writer goes on while it happens."""
PATIENCE_S: Final = 60.0
"""For these rows, and for each call."""
AFTER_S: Final = 0.5
TABLES: Final = {"requests": "request_id", "feedback": "feedback_id", "item_patches": "item_id"}
"""Table of the journal -> the column that is looked for."""


@dataclass(slots=True)
class Acknowledged:
    """Ids by table that the server said it has written."""

    ids: dict[str, set[str]] = field(default_factory=lambda: {table: set() for table in TABLES})

    def lost(self, journal: Path) -> dict[str, int]:
        """Count the ids by table that the journal does not have."""
        found: dict[str, set[str]] = {table: set() for table in TABLES}
        records = (record for path in files(journal) for record in read(path).records)
        for rows in (rows for record in records for rows in record.rows if rows.table in TABLES):
            column = TABLES[rows.table]
            values = rows.each[column] if column in rows.each else [rows.same[column]]
            found[rows.table].update(map(str, values))
        return {table: len(ids - found[table]) for table, ids in self.ids.items()}


def measure_kills(session: Session) -> dict[str, Any]:
    """Kill a worker, or the server where it is one process, several times; count acknowledged rows lost."""
    folder = session.folder / "kills"
    folder.mkdir()
    acknowledged = Acknowledged()
    options = worker_options(session.asked.workers)
    kills = 0
    while kills < KILLS:
        with served(session.shop, folder, options) as server:
            while kills < KILLS and server.child.child.poll() is None:
                with _writing(session.shop, server.target, acknowledged):
                    _wait_for_rows(acknowledged)
                    _kill_one(server, kills)
                    time.sleep(AFTER_S)
                kills += 1
    counts = {table: len(ids) for table, ids in acknowledged.ids.items()}
    return {
        "kills": {
            "count": kills,
            "acknowledged": counts,
            "acknowledged_lost": acknowledged.lost(folder / "log" / FOLDER),
        }
    }


def _wait_for_rows(acknowledged: Acknowledged) -> None:
    """Wait until so many more rows of each table are acknowledged, as long as there is patience."""
    wanted = {table: len(ids) + WRITTEN for table, ids in acknowledged.ids.items()}
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and any(len(acknowledged.ids[table]) < n for table, n in wanted.items()):
        time.sleep(0.01)


def _kill_one(server: BenchServer, number: int) -> None:
    """Kill a worker; a server of one process itself."""
    workers = server.workers()
    killed = workers[number % len(workers)]
    os.kill(killed, signal.SIGKILL)
    if killed == server.child.child.pid:
        server.child.child.wait()


@contextmanager
def _writing(shop: SyntheticShop, target: str, acknowledged: Acknowledged) -> Iterator[None]:
    """Ask, send feedback and upsert, one after the other, while a block runs; failed calls are left out."""
    over = threading.Event()

    def write() -> None:
        number = sum(map(len, acknowledged.ids.values()))
        while not over.is_set():
            with suppress(CallError), RecsysClient(target, timeout_s=PATIENCE_S) as client:
                while not over.is_set():
                    number += 1
                    _write(client, shop.user(number), number, acknowledged)
            time.sleep(0.01)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _write(client: RecsysClient, user: str, number: int, acknowledged: Acknowledged) -> None:
    answer = client.recommend(user, page_size=5)
    if not answer.degradation:
        acknowledged.ids["requests"].add(answer.request_id)
    event = Feedback.of(answer.items[0], user, "click")
    if client.record_feedback([event]).num_accepted:
        acknowledged.ids["feedback"].add(event.feedback_id)
    item = f"killed-{number}"
    if not client.upsert_items([ItemUpdate(item_id=item, title="new", price=number)]):
        acknowledged.ids["item_patches"].add(item)
