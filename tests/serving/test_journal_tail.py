"""What a server takes in of other servers' journals: each record once, whatever happens to the files."""

import errno
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from recsys.config import PolicyConfig, RetrievalConfig
from recsys.journal import FOLDER, MAGIC, Rows, encode, stem
from serving.catalogue import ItemPatch, ItemRow
from serving.catalogue.items import patched, with_patch
from serving.catalogue.overlay import ItemOverlay
from serving.engine import Engine
from serving.feedback import SeenFeedbackIds
from serving.journal import Journal
from serving.journal_rows import item_patch_rows
from serving.journal_tail import JournalTail
from serving.request import Deadline, OverloadedError
from serving.restore import JournalFollower, restore_from_journal
from serving.upsert_turn import UpsertTurn
from serving.upserts import ItemUpserter

NOON_MS = 1_772_366_400_000
QUARTER_MS = 15 * 60 * 1000


def price(item_id: str, value: int, at_ms: int = 0) -> ItemPatch:
    return ItemPatch(item_id=item_id, fields={"price": value}, at_ms=at_ms)


def seen(tail: JournalTail) -> list[int]:
    """The prices that a reading finds."""
    found: list[int] = []
    tail.read(lambda rows: found.extend(p for _, r in rows for p in r.each["price"]))
    return found


class Folder:
    """A journal folder, and a clock for its servers."""

    def __init__(self, path: Path) -> None:
        self.path, self.ms = path / FOLDER, NOON_MS
        self.journals: list[Journal] = []

    def server(self, name: str, ahead_ms: int = 0, **options) -> Journal:
        journal = Journal(self.path, name, lambda: self.ms + ahead_ms, rotate_s=3600, **options)
        self.journals.append(journal)
        return journal


@pytest.fixture
def folder(tmp_path):
    made = Folder(tmp_path)
    yield made
    for journal in made.journals:
        journal.close()


def write(journal: Journal, *prices: int) -> None:
    journal.append(item_patch_rows([price(f"i{n}", n) for n in prices]))


def test_each_record_of_others_is_read_once_from_the_start_on(folder) -> None:
    other, own = folder.server("other"), folder.server("own")
    write(other, 1)
    tail = JournalTail(folder.path, own_id="own")
    assert seen(tail) == [1]
    write(other, 2, 3)
    write(own, 99)
    write(folder.server("third"), 4)
    assert sorted(seen(tail)) == [2, 3, 4]
    assert seen(tail) == []
    other.append(Rows(table="requests", same={"request_id": "r"}))
    write(other, 5)
    assert seen(tail) == [5]
    tail.close()


def test_a_file_that_is_sealed_or_removed_is_read_to_its_end(folder) -> None:
    other = folder.server("other")
    write(other, 1)
    tail = JournalTail(folder.path)
    assert seen(tail) == [1]
    write(other, 2)
    other.close()  # sealed
    write(folder.server("brief"), 3)
    folder.journals[-1].close()  # made and sealed between two readings
    assert sorted(seen(tail)) == [2, 3]
    write(other, 4)
    assert seen(tail) == [4]
    write(other, 5)
    (growing,) = folder.path.glob("*.open")
    growing.unlink()
    assert seen(tail) == [5]
    write(other, 6)
    assert seen(tail) == []
    assert not tail._growing


def test_a_record_is_read_when_it_is_whole(folder) -> None:
    folder.path.mkdir()
    path = folder.path / f"{stem(NOON_MS, 'other', 1)}.open"
    record = encode(NOON_MS, [item_patch_rows([price("i", 1)])])
    data = MAGIC + record + record
    tail = JournalTail(folder.path)
    read = []
    for end in range(len(data) + 1):
        path.write_bytes(data[:end])
        read.append(len(seen(tail)))
    assert [n for n, count in enumerate(read) if count] == [len(MAGIC) + len(record), len(data)]
    path.write_bytes(data + record[:-3] + record)  # a half that its server could not take back
    assert seen(tail) == [1]
    tail.close()


def test_a_file_that_cannot_be_opened_for_want_of_descriptors_is_read_later(folder, monkeypatch) -> None:
    other = folder.server("other")
    tail = JournalTail(folder.path, own_id="own")
    assert seen(tail) == []
    write(other, 1, 2)

    def scarce(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched_os:
        patched_os.setattr("serving.journal_tail.os.open", scarce)
        with pytest.raises(OSError, match="Too many open files"):
            seen(tail)
    assert seen(tail) == [1, 2]


def test_other_files_and_other_formats_are_passed_over(folder, capsys) -> None:
    folder.path.mkdir()
    (folder.path / "compacted.json").write_text("{}")
    (folder.path / "notes").mkdir()
    (folder.path / f"{stem(NOON_MS, 'odd', 1)}.journal").write_bytes(b"PARQUET1 and more")
    write(folder.server("other"), 1)
    tail = JournalTail(folder.path)
    assert seen(tail) == [1]
    assert seen(tail) == []
    assert capsys.readouterr().out.count("journal_not_followed") == 1
    tail.close()


def test_a_server_whose_clock_is_wrong_is_followed_too(folder) -> None:
    tail = JournalTail(folder.path)
    write(folder.server("now"), 1)
    assert seen(tail) == [1]
    write(folder.server("ahead", 86_400_000), 2)
    write(folder.server("behind", -90 * 86_400_000), 3)
    assert sorted(seen(tail)) == [2, 3]
    tail.close()


def test_sealed_files_are_not_listed_again(folder, monkeypatch) -> None:
    for n in range(30):
        write(folder.server(f"s{n}"), n)
        folder.journals[-1].close()
    os.utime(folder.path, ns=(0, time.time_ns() - 10**9))  # it was changed a second ago
    tail = JournalTail(folder.path)
    assert sorted(seen(tail)) == list(range(30))
    with monkeypatch.context() as patch:
        patch.setattr("serving.journal_tail.os.listdir", lambda _: pytest.fail("listed again"))
        assert seen(tail) == []
    write(folder.server("new"), 31)
    assert seen(tail) == [31]
    tail.close()


def test_patches_come_to_one_row_in_whatever_order_they_are_read(fakes) -> None:
    """Each server reads the others' files at its own pace; the night sorts by instants."""
    steps = [
        ItemPatch(item_id="a", fields={"price": 5, "attributes": {"size": 1.0}}, at_ms=NOON_MS),
        ItemPatch(item_id="a", fields={"price": 6}, at_ms=NOON_MS + QUARTER_MS),
        ItemPatch(item_id="a", fields={"title": "T", "price": 7}, at_ms=NOON_MS + QUARTER_MS + 1),
        ItemPatch(item_id="a", fields={"price": 8}, at_ms=NOON_MS + 3 * QUARTER_MS),
    ]
    row = patched(ItemRow(item_id="a"), steps)
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 3, 0, 1], [3, 0, 2, 1, 0, 3, 1, 2]):
        kept: tuple[ItemPatch, ...] = ()
        for n in order:
            kept = with_patch(kept, steps[n])
        assert patched(ItemRow(item_id="a"), kept) == row, order
        assert [p.at_ms for p in kept] == [steps[0].at_ms, steps[2].at_ms, steps[3].at_ms]


class Server:
    """The parts of a server that read and write items, without its ports."""

    def __init__(self, folder: Folder, name: str, model, **options) -> None:
        self.overlay = ItemOverlay()
        self.journal = folder.server(name, **options)
        self.learned: list[str] = []
        self.invalidated: list[str] = []
        tail = JournalTail(folder.path, own_id=name)
        restore_from_journal(tail, self.overlay, SeenFeedbackIds(), None, frozenset(), 0)
        feedback = SimpleNamespace(learn=self.learned.extend)
        sessions = SimpleNamespace(invalidate=self.invalidated.extend)
        self.follower = JournalFollower(tail, self.overlay, feedback, sessions, every_s=0.01)
        self.engine = Engine(
            model,
            self.overlay,
            policy=PolicyConfig(name="greedy"),
            retrieval=RetrievalConfig(num_candidates=10),
        )
        turn = UpsertTurn(folder.path, self.follower.catch_up)
        self.upserter = ItemUpserter(self.journal, self.overlay, SimpleNamespace(engine=self.engine), turn)

    def upsert(self, item_id: str, **fields) -> str:
        patch = ItemPatch(item_id=item_id, fields=fields)
        (result,) = self.upserter.upsert([patch], deadline=Deadline.after(60.0))
        return result.rejection

    def item(self, item_id: str) -> ItemRow:
        return self.engine.live_catalogue.item(item_id)


@pytest.fixture
def servers(folder, fakes):
    """Make servers of one folder; none reads on its own."""
    made: list[Server] = []

    def make(*names: str, model=None, **options) -> list[Server]:
        made.extend(Server(folder, name, model or fakes.model(), **options) for name in names)
        return made[-len(names) :]

    yield make
    for server in made:
        server.follower.stop()


def test_patches_of_one_item_on_two_servers_at_once_lose_nothing(servers) -> None:
    """Each server merged the fields sent into the row as it knew it."""
    rounds = 60
    one, two = servers("one", "two")

    def write(server: Server, name: str) -> None:
        for n in range(rounds):
            assert server.upsert("i1", attributes={f"{name}{n % 5}": float(n)}, **{name: f"{name} {n}"}) == ""

    threads = [threading.Thread(target=write, args=pair) for pair in ((one, "title"), (two, "description"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for server in (one, two):
        server.follower.catch_up()
    (restarted,) = servers("three")
    for server in (one, two, restarted):
        item = server.item("i1")
        assert (item.title, item.description) == (f"title {rounds - 1}", f"description {rounds - 1}")
        assert {f"{n}{k}" for n in ("title", "description") for k in range(5)} <= {*item.attributes}
        assert item == one.item("i1")


def test_an_upsert_is_checked_against_what_others_wrote(servers) -> None:
    one, two = servers("one", "two")
    assert one.upsert("i1", available_from=NOON_MS) == ""
    assert "before available_from" in two.upsert("i1", available_until=NOON_MS - 1)


def test_the_later_upsert_counts_also_after_one_of_a_clock_that_was_ahead(servers, folder) -> None:
    (ahead,) = servers("ahead", ahead_ms=3_600_000)
    (one,) = servers("one")
    assert ahead.upsert("i1", price=1) == ""
    patches = [price("i1", 2), price("i2", 2)]
    one.upserter.upsert(patches, deadline=Deadline.after(60.0))
    ahead.follower.catch_up()
    (restarted,) = servers("restarted")
    assert [s.item("i1").price for s in (one, ahead, restarted)] == [2, 2, 2]
    assert one.overlay.newest_ms("i1") == NOON_MS + 3_600_001
    assert one.overlay.newest_ms("i2") == NOON_MS, "a wrong instant spreads to no other item"


def test_an_item_of_others_that_cannot_be_encoded_is_withdrawn_all_the_same(servers, fakes, capsys) -> None:
    def refuse(items):
        if any(item.title == "poison" for item in items.values()):
            raise ZeroDivisionError("no such text")
        return {row: (item.price or 0) / 100 for row, item in items.items()}

    (one,) = servers("one")
    (two,) = servers("two", model=replace(fakes.model(), encode_items=refuse))
    one.upsert("i39", title="poison", available_until=NOON_MS)
    one.upsert("i38", title="New")
    two.follower.catch_up()
    assert (two.item("i39").title, two.item("i39").available_until_ms) == ("Thing 39", NOON_MS)
    assert two.item("i38").title == "New"
    assert capsys.readouterr().out.count("item_not_encoded") == 1


def test_feedback_of_others_is_known_and_its_sessions_are_merged_again(servers) -> None:
    one, two = servers("one", "two")
    each = {name: [name] for name in ("feedback_id", "user_id", "item_id", "kind")}
    one.journal.append(Rows(table="feedback", each={**each, "occurred_at": [1], "received_at": [2]}))
    one.journal.append(Rows(table="feedback", each={"feedback_id": ["torn"]}))
    two.follower.catch_up()
    assert (two.learned, two.invalidated) == (["feedback_id"], ["user_id"])


def test_the_thread_goes_on_after_an_error(servers, until, monkeypatch, capsys) -> None:
    one, two = servers("one", "two")
    monkeypatch.setattr(JournalTail, "read", lambda *_: 1 / 0)
    two.follower.start()
    until(lambda: two.follower._failing)
    time.sleep(0.05)
    monkeypatch.undo()
    one.upsert("i1", price=7)
    until(lambda: two.item("i1").price == 7)
    assert capsys.readouterr().out.count("journal_not_followed") == 1


def test_who_waits_too_long_for_its_turn_is_told_to_retry(servers) -> None:
    one, two = servers("one", "two")
    with UpsertTurn(two.journal.folder, lambda: None).taken(Deadline.after(60.0)):
        started = time.monotonic()
        with pytest.raises(OverloadedError, match="other servers are writing"):
            one.upserter.upsert([price("i1", 1)], deadline=Deadline.after(0.1))
        assert time.monotonic() - started < 30
        checked = one.upserter.upsert([price("i1", -1)], deadline=Deadline.after(0.1), validate_only=True)
        assert "negative" in checked[0].rejection
    assert one.upsert("i1", price=1) == ""
