import time

import pytest

from recsys.errors import ConfigError
from serving.clock import OrderedClock, clock_from

NOON_MS = 1_772_366_400_000


@pytest.fixture
def pass_s(monkeypatch):
    """Give what lets seconds pass on a monotonic clock that otherwise stands still."""
    passed_ns = 123_456_789
    monkeypatch.setattr(time, "monotonic_ns", lambda: passed_ns)

    def wait(seconds: float) -> None:
        nonlocal passed_ns
        passed_ns += round(seconds * 1e9)

    return wait


def test_the_system_clock_is_the_machines() -> None:
    before_ns = time.time_ns()
    now_ms = clock_from(None).now_ms()
    assert before_ns // 1_000_000 <= now_ms <= time.time_ns() // 1_000_000


@pytest.mark.parametrize(
    "start", ["2026-03-01T12:00:00Z", "2026-03-01T13:00:00+01:00", "2026-03-01T12:00:00"]
)
def test_a_simulated_clock_starts_where_it_is_told_and_runs(start, pass_s) -> None:
    clock = clock_from(start)
    assert clock.now_ms() == NOON_MS
    pass_s(0.25)
    assert clock.now_ms() == NOON_MS + 250


def test_an_unreadable_instant_is_refused() -> None:
    with pytest.raises(ConfigError, match="--clock-start 'noon' is not an instant"):
        clock_from("noon")


def test_a_simulated_clock_runs_at_its_rate(pass_s) -> None:
    clock = clock_from("2026-03-01T12:00:00Z", 1000.0)
    pass_s(0.02)
    assert clock.now_ms() == NOON_MS + 20_000


def test_a_simulated_clock_that_restarts_stands_at_its_start(pass_s) -> None:
    clock = clock_from("2026-03-01T12:00:00Z", 1000.0)
    pass_s(5.0)
    clock.restart()
    assert clock.now_ms() == NOON_MS
    pass_s(0.02)
    assert clock.now_ms() == NOON_MS + 20_000


@pytest.mark.parametrize("start", ["0001-01-01T00:00+23:59", "1969-12-31", "9999-12-31T23:59"])
def test_an_instant_without_room_around_it_is_refused(start) -> None:
    with pytest.raises(ConfigError, match="is not between 1970 and 2999; write a year of these"):
        clock_from(start)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf"), 1e300])
def test_a_wrong_rate_is_refused(rate) -> None:
    with pytest.raises(ConfigError, match=r"--clock-rate .* is not above 0 and at most 100000;"):
        clock_from("2026-03-01T12:00:00Z", rate)


def test_the_machines_clock_has_no_rate() -> None:
    with pytest.raises(ConfigError, match="needs --clock-start"):
        clock_from(None, 60.0)


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.ms = NOON_MS

    def now_ms(self) -> int:
        return self.ms


def test_a_request_is_later_than_feedback_although_the_clock_was_set_back_a_little() -> None:
    hand = Hand()
    clock = OrderedClock(hand)
    received_ms = clock.received_ms()
    assert clock.now_ms() == received_ms + 1
    hand.ms -= 900
    assert clock.now_ms() == received_ms + 1
    assert clock.received_ms() == received_ms


@pytest.mark.parametrize("asked", ["now_ms", "received_ms"])
def test_a_clock_that_was_a_day_ahead_is_right_again_when_it_is_put_right(asked) -> None:
    hand = Hand()
    clock = OrderedClock(hand)
    hand.ms += 86_400_000
    clock.received_ms()
    hand.ms -= 86_400_000
    assert 0 <= getattr(clock, asked)() - hand.ms <= 1
