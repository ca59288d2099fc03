"""Upserts: encoded before they are journalled, journalled before they are shown; no request waits."""

import itertools
import threading
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest

from recsys.config import PolicyConfig, RetrievalConfig
from recsys.errors import JournalError
from recsys.journal import FOLDER, Rows, files, read
from recsys.schema import EARLIEST_MS, LATEST_MS
from serving.catalogue import ItemPatch, ItemRow
from serving.catalogue.items import patched, with_patch
from serving.catalogue.overlay import ItemOverlay
from serving.clock import SimulatedClock
from serving.engine import Engine
from serving.feedback import SeenFeedbackIds
from serving.journal import Journal
from serving.journal_rows import item_patch_rows, read_item_patches
from serving.journal_tail import JournalTail
from serving.request import Deadline, FieldError, RankRequest
from serving.restore import restore_from_journal
from serving.upsert_turn import UpsertTurn
from serving.upserts import ItemUpserter, check_patch


def refuse_poison(items):
    for item in items.values():
        if item.title == "poison":
            raise ZeroDivisionError("no such text")
    return {row: (item.price or 0) / 100 for row, item in items.items()}


def upserting(journal, overlay, engine, catch_up=lambda: None):
    """The upserts of a server; alone in its folder unless it catches up."""
    turn = UpsertTurn(journal.folder, catch_up)
    upserter = ItemUpserter(journal, overlay, SimpleNamespace(engine=engine), turn)
    return partial(upserter.upsert, deadline=Deadline.after(60.0))


@pytest.fixture
def shop(tmp_path, fakes):
    """An engine with its upserter and journal; `restart` makes the engine that a new server has."""
    model = replace(fakes.model(), encode_items=refuse_poison)
    clock = SimulatedClock(fakes.NOON_MS)
    journal = Journal(tmp_path / FOLDER, "s", clock.now_ms, rotate_s=3600)

    def engine(overlay, model=model):
        return Engine(
            model, overlay, policy=PolicyConfig(name="greedy"), retrieval=RetrievalConfig(num_candidates=10)
        )

    def restart():
        overlay = ItemOverlay()
        restore_from_journal(JournalTail(tmp_path / FOLDER), overlay, SeenFeedbackIds(), None, frozenset(), 0)
        return engine(overlay)

    def rows():
        records = [record for path in files(tmp_path / FOLDER) for record in read(path).records]
        return [item_id for record in records for r in record.rows for item_id in r.each["item_id"]]

    overlay = ItemOverlay()
    first = engine(overlay)
    yield SimpleNamespace(
        engine=first,
        upsert=upserting(journal, overlay, first),
        journal=journal,
        restart=restart,
        rows=rows,
        overlay=overlay,
        make=engine,
    )
    journal.close()


def ids(engine, at_ms: int) -> list[str]:
    asked = RankRequest(user_id="u", page_size=3)
    candidates = engine.score_candidates(asked, at_ms, Deadline.after(60.0))
    order = candidates.policy_input.scores.argsort()[::-1][:3]
    return candidates.catalogue.ids_of(candidates.candidates.rows[order])


def item(item_id, **fields) -> ItemPatch:
    return ItemPatch(item_id=item_id, fields=fields)


def test_an_upserted_item_is_in_the_next_request_and_after_a_restart(shop, fakes) -> None:
    assert [r.rejection for r in shop.upsert([item("new", price=9_900)])] == [""]
    assert ids(shop.engine, fakes.NOON_MS)[0] == "new"
    assert ids(shop.restart(), fakes.NOON_MS)[0] == "new"


def test_a_window_opens_and_closes_at_its_millisecond(shop, fakes) -> None:
    now = fakes.NOON_MS
    shop.upsert([item("new", price=9_900, available_from=now + 5, available_until=now + 8)])
    shop.upsert([item("i39", available_until=now + 2)])
    tops = [ids(shop.engine, now + ms)[0] for ms in range(10)]
    assert tops == ["i39"] * 2 + ["i38"] * 3 + ["new"] * 3 + ["i38"] * 2
    assert [ids(shop.engine, now + ms)[0] for ms in (9, 5, 4, 1)] == ["i38", "new", "i38", "i39"]


def test_what_cannot_be_encoded_is_rejected_and_not_journalled(shop, fakes) -> None:
    """It was journalled before it was encoded: every later request and every restart then failed."""
    results = shop.upsert([item("bad", title="poison"), item("good", price=9_900), item("bad", price=1)])
    reason = "it cannot be encoded (ZeroDivisionError: no such text); send other values"
    assert [r.rejection for r in results] == [reason, "", reason]
    assert shop.rows() == ["good"]
    assert ids(shop.engine, fakes.NOON_MS)[0] == "good"
    assert shop.engine.live_catalogue.item("bad") is None
    only = shop.upsert([item("i39", title="poison")])
    assert only[0].rejection == reason
    assert shop.engine.live_catalogue.item("i39").title == "Thing 39"
    assert shop.rows() == ["good"]


def test_a_restart_skips_a_poisoned_row_with_a_log_line(shop, fakes, capsys) -> None:
    poisoned = [ItemPatch.of_row(ItemRow(item_id=name, title="poison")) for name in ("bad", "i39")]
    shop.journal.append(item_patch_rows([item("one", price=9_800), *poisoned, item("two", price=9_900)]))
    shop.journal.append(Rows(table="item_patches", each={"item_id": [7], "fields": [["title"]]}))
    shop.journal.append(
        Rows(table="item_patches", each={"item_id": ["i38"], "fields": [["price"]], "price": ["x"]})
    )
    assert ids(shop.restart(), fakes.NOON_MS) == ["two", "one", "i39"]
    written = capsys.readouterr().out
    assert written.count("item_not_encoded") == 2
    assert written.count("item_row_skipped") == 2
    assert "price = 'x'" in written


def test_a_withdrawn_item_is_gone_also_where_its_content_cannot_be_encoded(shop, fakes) -> None:
    """An earlier version could encode the title, the next one cannot; the item must not come back with it."""
    overlay = ItemOverlay()
    overlay.put([item("i39", title="poison", available_until=fakes.NOON_MS), item("i38", title="poison")])
    engine = shop.make(overlay)
    assert ids(engine, fakes.NOON_MS - 1)[0] == "i39"
    assert ids(engine, fakes.NOON_MS)[0] == "i38"
    assert engine.live_catalogue.item("i38").title == "Thing 38"


def test_what_cannot_be_journalled_is_not_shown(shop, fakes, monkeypatch) -> None:
    def full(*_, **__):
        raise JournalError("the disk is full")

    monkeypatch.setattr(shop.journal, "append", full)
    with pytest.raises(JournalError):
        shop.upsert([item("new", price=9_900)])
    assert ids(shop.engine, fakes.NOON_MS)[0] == "i39"
    monkeypatch.undo()
    shop.upsert([item("other", price=9_800)])
    assert ids(shop.engine, fakes.NOON_MS)[0] == "other"
    assert shop.engine.live_catalogue.item("new") is None


def test_a_patch_has_the_instant_of_its_record(tmp_path, fakes) -> None:
    """It had an earlier one: upserted as a snapshot ended, it was in neither the bundle nor the overlay."""
    ticks = itertools.count(fakes.NOON_MS)
    journal = Journal(tmp_path / FOLDER, "s", lambda: next(ticks), rotate_s=3600)
    overlay = ItemOverlay()
    engine = Engine(fakes.model(), overlay, policy=PolicyConfig(), retrieval=RetrievalConfig())
    upserting(journal, overlay, engine)([item("i1", price=1)])
    journal.close()
    (path,) = files(tmp_path / FOLDER)
    (record,) = read(path).records
    assert [patch.at_ms for patch in overlay.patches("i1", 0)] == [record.at_ms]


def test_after_a_restart_the_latest_of_two_servers_patches_holds(tmp_path, fakes) -> None:
    """The later file's won, though the other server's patch was later."""
    now = [fakes.NOON_MS]
    servers = [Journal(tmp_path / FOLDER, name, lambda: now[0], rotate_s=3600) for name in "ab"]
    for server, price in ((0, 1), (1, 2), (0, 3)):
        servers[server].append(item_patch_rows([item("i1", price=price)]))
        now[0] += 1_000
    for journal in servers:
        journal.close()
    overlay = ItemOverlay()
    restore_from_journal(JournalTail(tmp_path / FOLDER), overlay, SeenFeedbackIds(), None, frozenset(), 0)
    assert patched(ItemRow(item_id="i1"), overlay.patches("i1", 0)).price == 3


def test_requests_go_on_while_an_upsert_is_encoded(shop, fakes) -> None:
    """A request that came meanwhile waited for the lock, or encoded the items itself."""
    encoding, go_on = threading.Event(), threading.Event()

    def encode(items):
        encoding.set()
        assert go_on.wait(20)
        return refuse_poison(items)

    overlay = ItemOverlay()
    engine = shop.make(overlay, replace(fakes.model(), encode_items=encode))
    upsert = upserting(shop.journal, overlay, engine)
    writing = threading.Thread(target=upsert, args=([item("new", price=9_900)],))
    writing.start()
    try:
        assert encoding.wait(20)
        answers: list[list[str]] = []
        asking = threading.Thread(target=lambda: answers.append(ids(engine, fakes.NOON_MS)))
        asking.start()
        asking.join(5)
        assert answers == [["i39", "i38", "i37"]]
        assert shop.rows() == []
    finally:
        go_on.set()
        writing.join(20)
    assert ids(engine, fakes.NOON_MS)[0] == "new"


def test_a_patch_is_read_back_as_it_was_sent() -> None:
    patches = [
        ItemPatch(item_id="a", fields={"price": 5, "title": None}, at_ms=3),
        ItemPatch(item_id="b", fields={"attributes": {"size": 2.5, "brand": "x"}}, at_ms=3),
        ItemPatch(item_id="c", fields={"attributes": {}}, whole_attributes=True, at_ms=3),
        ItemPatch(item_id="d", fields={}, at_ms=3),
        ItemPatch.of_row(ItemRow(item_id="e", category="z", attributes={"size": 1.0}), 3),
    ]
    assert list(read_item_patches(3, item_patch_rows(patches))) == patches


def test_whole_items_of_older_servers_are_patches_of_every_field() -> None:
    each = {"item_id": ["a"], "title": ["T"], "price": [None], "attribute_size": [2.0], "attribute_x": [None]}
    (patch,) = read_item_patches(3, Rows(table="items", each=each))
    before = ItemRow(item_id="a", title="old", price=7, category="c", attributes={"x": "y"})
    assert patch.applied(before) == ItemRow(item_id="a", title="T", attributes={"size": 2.0})


@pytest.mark.parametrize("gap_ms", [0, 20 * 60 * 1000])
def test_patches_in_a_row_are_what_they_are_one_by_one(gap_ms) -> None:
    steps = [
        ItemPatch(item_id="a", fields={"price": 5, "attributes": {"size": 1.0}}),
        ItemPatch(item_id="a", fields={"title": "T", "attributes": {"brand": "b"}}),
        ItemPatch(item_id="a", fields={"attributes": {"only": "this"}}, whole_attributes=True),
        ItemPatch(item_id="a", fields={"price": None, "attributes": {"more": "x"}}),
    ]
    row = ItemRow(item_id="a", price=1, attributes={"old": "o"})
    kept: tuple[ItemPatch, ...] = ()
    for n, step in enumerate(steps):
        kept = with_patch(kept, replace(step, at_ms=n * gap_ms))
        assert patched(row, kept) == patched(row, steps[: n + 1])
    assert len(kept) == (4 if gap_ms else 1)


@pytest.mark.parametrize("name", ["available_from", "available_until"])
@pytest.mark.parametrize(("good", "bad"), [(EARLIEST_MS, EARLIEST_MS - 1), (LATEST_MS - 1, LATEST_MS)])
def test_an_instant_outside_the_years_of_a_log_is_refused(name, good, bad) -> None:
    """The floor and ceiling of `recsys convert`: a night would read such an item as one of 1970, or never."""
    check_patch(ItemPatch(item_id="i1", fields={name: good}), frozenset())
    with pytest.raises(FieldError, match=rf"{name}: {bad} ms is no time of 1990 to 2099; .*leave it out"):
        check_patch(ItemPatch(item_id="i1", fields={name: bad}), frozenset())
