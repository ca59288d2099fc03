"""Histories of a batch as beginnings of sequences: each sequence once, and every event found in one."""

from datetime import datetime
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import numpy as np
import torch

from features.encode import Encoded
from features.sequences import EncodedEvents, history_slices
from training.data.sequences import Sequences, began_ms

NEVER = np.iinfo(np.int64).max
MINUTE = 60_000
EVENTS = EncodedEvents(
    items=np.arange(100, 112),
    kinds=np.array([1, 1, 2, 1, 0, 1, 1, 2, 1, 1, 1, 1]),
    at=np.arange(12) * MINUTE,
    void=np.array([NEVER] * 9 + [10 * MINUTE, NEVER, NEVER]),
)


def _histories(bounds, at, length=4):
    start, stop = np.array(bounds).T
    return history_slices(start, stop, length, np.array(at) * MINUTE, 0, EVENTS)


def _lists(found, histories):
    return [
        [histories.items[event] for event in part]
        for part in np.split(found.source, np.cumsum(found.counts)[:-1])
    ]


def test_a_users_rows_share_the_longest_of_their_histories():
    histories = _histories([(0, 3), (0, 1), (0, 4), (6, 6), (0, 3)], [9] * 5)
    found = Sequences.of(histories)
    assert _lists(found, histories) == [[100, 101, 102, 103]]
    assert found.event.tolist() == [2, 1, 0, 0, 3, 2, 1, 0, 2, 1, 0]


def test_a_full_history_that_moves_on_has_a_pass_of_its_own():
    histories = _histories([(5, 8), (5, 9), (5, 10)], [9] * 3)
    found = Sequences.of(histories)
    assert _lists(found, histories) == [[105, 106, 107, 108], [106, 107, 108, 109]]
    assert found.event.tolist() == [2, 1, 0, 3, 2, 1, 0, 7, 6, 5, 4]


def test_an_event_of_no_kind_is_in_no_sequence_and_users_are_apart():
    histories = _histories([(2, 4), (2, 6), (6, 8)], [9] * 3)
    found = Sequences.of(histories)
    assert _lists(found, histories) == [[102, 103, 105], [106, 107]]


def test_a_history_without_an_event_that_was_taken_back_is_no_beginning_of_one_with_it():
    histories = _histories([(8, 11), (8, 12), (8, 11)], [9, 11, 11])
    found = Sequences.of(histories)
    assert sorted(_lists(found, histories)) == [[108, 109, 110], [108, 110], [108, 110, 111]]
    items = np.array([EVENTS.items[e] for e in histories.events])
    assert items[found.source[found.event]].tolist() == items.tolist()


def test_the_index_has_items_kinds_and_minutes_oldest_first():
    histories = _histories([(0, 3), (6, 8)], [9] * 2)
    index = Sequences.of(histories).index(histories, EVENTS, torch.from_numpy(histories.items))
    assert index.item_S.tolist() == [100, 101, 102, 106, 107]
    assert index.kind_S.tolist() == [1, 1, 2, 1, 2]
    assert index.minute_S.tolist() == [0, 1, 2, 6, 7]
    assert index.count_C.tolist() == [3, 2]
    assert index.event_E[index.by_event_E].tolist() == sorted(index.event_E.tolist())


def test_no_events_make_no_sequences():
    histories = _histories([(3, 3), (0, 0)], [9, 9])
    found = Sequences.of(histories)
    assert found.source.size == found.counts.size == found.event.size == 0


ITEMS = Encoded(
    ids=np.array([[5], [6], [7], [0]]), numbers=np.zeros((4, 0), np.float32), text=np.zeros((4, 0))
)
ROW_OF = np.full(112, -1)
ROW_OF[[101, 102, 103, 105, 107, 109]] = [0, 1, 0, 1, 2, 1]


def test_items_that_came_next_are_of_the_day_and_kind_and_each_event_counts_once():
    histories = _histories([(0, 4), (1, 4), (5, 9), (5, 10)], [99] * 4)
    encoded = SimpleNamespace(events=EVENTS, items=ITEMS)
    found = Sequences.of(histories).with_next(histories, encoded, 2 * MINUTE, np.array([1, 2]), ROW_OF)
    # Of 0-1-2-3 the events 2 and 3, of 5-6-7-8 the event 7, of 6-7-8-(9, undone) nothing more; 103 has row 0.
    assert found.followed.rows.tolist() == [0, 1, 2]
    learned = {(int(_positions(found, histories)[e]), int(found.followed.rows[p])) for e, p in _pairs(found)}
    assert learned == {(1, 1), (2, 0), (6, 2)}
    later = Sequences.of(histories).with_next(histories, encoded, 3 * MINUTE, np.array([2]), ROW_OF)
    assert [(int(_positions(later, histories)[e]), p) for e, p in _pairs(later)] == [(6, 0)]
    none = Sequences.of(histories).with_next(histories, encoded, 99 * MINUTE, np.array([1, 2]), ROW_OF)
    assert none.followed is None


def _positions(found, histories):
    return histories.events[found.source]


def _pairs(found):
    return list(zip(found.followed.before.tolist(), found.followed.place.tolist(), strict=True))


def test_a_period_begins_at_midnight_of_its_first_day_in_the_shops_time():
    noon = datetime(2026, 3, 5, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    midnight, monday = noon.replace(hour=0), noon.replace(hour=0, day=2)
    assert began_ms(noon.date(), "P1D", "Europe/Berlin") == midnight.timestamp() * 1000
    assert began_ms(noon.date(), "P1W", "Europe/Berlin") == monday.timestamp() * 1000
