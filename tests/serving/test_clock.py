import time

import pytest

from recsys.errors import ConfigError
from serving.clock import clock_from


def test_the_system_clock_is_the_machines() -> None:
    assert abs(clock_from(None).now_ms() - time.time() * 1000) < 1_000


@pytest.mark.parametrize(
    "start", ["2026-03-01T12:00:00Z", "2026-03-01T13:00:00+01:00", "2026-03-01T12:00:00"]
)
def test_a_simulated_clock_starts_where_it_is_told_and_runs(start) -> None:
    clock = clock_from(start)
    first = clock.now_ms()
    assert 0 <= first - 1_772_366_400_000 < 1_000
    time.sleep(0.01)
    assert clock.now_ms() >= first + 9


def test_an_instant_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="--clock-start 'noon' is not an instant"):
        clock_from("noon")


def test_a_simulated_clock_runs_at_its_rate() -> None:
    clock = clock_from("2026-03-01T12:00:00Z", 1000.0)
    first = clock.now_ms()
    began = time.monotonic()
    time.sleep(0.02)
    passed_ms = clock.now_ms() - first
    assert 20_000 <= passed_ms <= 1000 * 1000 * (time.monotonic() - began) + 1


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(rate) -> None:
    with pytest.raises(ConfigError, match=r"--clock-rate .* is no rate"):
        clock_from("2026-03-01T12:00:00Z", rate)


def test_the_machines_clock_has_no_rate() -> None:
    with pytest.raises(ConfigError, match="needs --clock-start"):
        clock_from(None, 60.0)
