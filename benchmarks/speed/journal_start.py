"""What a month of journal costs a server: its start, and following the other servers.

`python -m benchmarks.speed.journal_start --days 30 --requests 20000` prints JSON. Each server seals a file
every five minutes. A request is answered with ten items; every second one gets feedback, and with every tenth
an item is upserted. A start reads the last three days, as it does for a period of a day, and the end of each
older file.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

from features.store import Event
from features.store.sqlite import SQLiteStore
from recsys.config import StoreConfig
from recsys.journal import MAGIC, OPEN_SUFFIX, SEALED_SUFFIX, Rows, encode, stem
from serving.catalogue.items import ItemPatch
from serving.catalogue.overlay import ItemOverlay
from serving.feedback import SeenFeedbackIds
from serving.journal_rows import FeedbackEvent, feedback_rows, impression_id, item_patch_rows
from serving.journal_tail import JournalTail
from serving.restore import TAIL_EVERY_S, restore_from_journal

DAY_MS: Final = 86_400_000
FILE_MS: Final = 300_000
RESTORED_DAYS: Final = 3
PAGE: Final = 10
FEW_FILES: Final = 30
READINGS: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalShape:
    """How much of journal there is."""

    days: int = 30
    requests: int = 20_000
    """A day."""
    servers: int = 1
    items: int = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalCosts:
    """What was measured."""

    num_files: int
    num_bytes: int
    start_cpu_s: float
    """Processor time until items, feedback ids and the store's events are restored."""
    start_s: float
    num_events: int
    """Events that were new to the store."""
    idle_share: float
    """Of one core, for following 30 files to which nothing is written."""
    idle_share_month: float
    """The same with all files of the month in the folder."""
    answer_us: float
    """Processor time for passing over one answer of another server."""


def measure_journal(shape: JournalShape) -> JournalCosts:
    """Write a journal, start from it, and follow it."""
    until_ms = time.time_ns() // 1_000_000
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as temporary:
        month, few = Path(temporary) / "month", Path(temporary) / "few"
        num_bytes = write_journal(month, shape, until_ms)
        write_journal(few, JournalShape(days=1, requests=0, servers=1), until_ms)
        for path in sorted(few.iterdir())[FEW_FILES:]:
            path.unlink()
        start_cpu_s, start_s, num_events = measure_start(month, until_ms)
        return JournalCosts(
            num_files=sum(1 for _ in month.iterdir()),
            num_bytes=num_bytes,
            start_cpu_s=start_cpu_s,
            start_s=start_s,
            num_events=num_events,
            idle_share=_idle_share(few),
            idle_share_month=_idle_share(month),
            answer_us=_answer_us(Path(temporary) / "one", until_ms),
        )


def write_journal(folder: Path, shape: JournalShape, until_ms: int) -> int:
    """Write the sealed files of the days before an instant into a journal folder; return their bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    per_file = round(shape.requests * FILE_MS / DAY_MS / shape.servers)
    written = 0
    for start_ms in range(until_ms - shape.days * DAY_MS, until_ms, FILE_MS):
        for server in range(shape.servers):
            name = f"server{server}"
            records = [
                encode(start_ms + n * FILE_MS // per_file, rows)
                for n in range(per_file)
                for rows in _records(f"{start_ms}-{name}-{n}", start_ms, n, shape.items)
            ]
            path = folder / (stem(start_ms, name, 1) + SEALED_SUFFIX)
            written += path.write_bytes(MAGIC + b"".join(records))
    return written


def measure_start(folder: Path, until_ms: int) -> tuple[float, float, int]:
    """Restore from a journal folder as a server's start does; return processor seconds, seconds, events."""
    since_ms = until_ms - RESTORED_DAYS * DAY_MS
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as runs:
        store = _CountingStore(SQLiteStore(Path(runs), StoreConfig()))
        cpu_s, start_s = time.process_time(), time.perf_counter()
        tail = JournalTail(folder, since_ms=since_ms)
        restore_from_journal(
            tail, ItemOverlay(), SeenFeedbackIds(), store, frozenset({"click"}), events_since_ms=since_ms
        )
        cpu_s, start_s = time.process_time() - cpu_s, time.perf_counter() - start_s
        tail.close()
        store.inner.close()
    return cpu_s, start_s, store.num_events


@dataclass
class _CountingStore:
    inner: SQLiteStore
    num_events: int = 0

    def append(self, events: Iterable[Event], within_s: float | None = None) -> int:
        added = self.inner.append(events, within_s)
        self.num_events += added
        return added


def _records(name: str, at_ms: int, n: int, num_items: int) -> Iterator[list[Rows]]:
    """Make the records of one request: its answer, perhaps feedback, perhaps an upsert."""
    items = [f"item-{(n * PAGE + place) % num_items}" for place in range(PAGE)]
    user = f"user-{n % 997}"
    yield _answer(name, user, items, at_ms)
    if n % 2 == 0:
        event = FeedbackEvent(
            feedback_id=f"f-{name}",
            impression_id=impression_id(name, 1),
            user_id=user,
            item_id=items[0],
            kind="click",
            value=None,
            occurred_at_ms=at_ms,
            received_at_ms=at_ms,
        )
        yield [feedback_rows([event])]
    if n % 10 == 0:
        yield [item_patch_rows([ItemPatch(item_id=items[0], fields={"price": n})])]


def _answer(name: str, user: str, items: list[str], at_ms: int) -> list[Rows]:
    places = range(1, PAGE + 1)
    impressions = Rows(
        table="impressions",
        same={"request_id": name, "user_id": user, "shown_at": at_ms, "explored": False},
        each={
            "impression_id": [impression_id(name, place) for place in places],
            "item_id": items,
            "position": list(places),
            "propensity": [0.9123456789012345] * PAGE,
            "propensity_kind": ["exact"] * PAGE,
        },
    )
    request = Rows(
        table="requests",
        same={"request_id": name, "user_id": user, "requested_at": at_ms, "page_size": PAGE},
    )
    return [request, impressions]


def _idle_share(folder: Path) -> float:
    """Measure the readings of a folder to which nothing is written; one file in ten is open."""
    paths = sorted(folder.iterdir())
    for path in paths[: FEW_FILES // 10]:
        path.rename(path.with_suffix(OPEN_SUFFIX))
    tail = JournalTail(folder, since_ms=time.time_ns() // 1_000_000)
    tail.read(_pass_over)
    time.sleep(0.2)  # until the folder's time of change is certain
    tail.read(_pass_over)
    start = time.process_time()
    for _ in range(READINGS):
        tail.read(_pass_over)
    share = (time.process_time() - start) / READINGS / TAIL_EVERY_S
    tail.close()
    return share


def _answer_us(folder: Path, until_ms: int) -> float:
    folder.mkdir()
    record = encode(until_ms, _answer("request", "user", ["item"] * PAGE, until_ms))
    (folder / (stem(until_ms, "server", 1) + OPEN_SUFFIX)).write_bytes(MAGIC + record * READINGS)
    tail = JournalTail(folder)
    start = time.process_time()
    tail.read(_pass_over)
    tail.close()
    return (time.process_time() - start) / READINGS * 1e6


def _pass_over(found: Iterable[tuple[int, Rows]]) -> None:
    for _ in found:
        pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for option in fields(JournalShape):
        parser.add_argument(f"--{option.name}", type=int, default=option.default)
    print(json.dumps(asdict(measure_journal(JournalShape(**vars(parser.parse_args())))), indent=1))
