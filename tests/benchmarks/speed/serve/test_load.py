"""What is made of the calls of a run."""

import numpy as np
import pytest

from benchmarks.speed.serve.generator import Said
from benchmarks.speed.serve.http2 import DEADLINE_EXCEEDED as LATE
from benchmarks.speed.serve.http2 import OK, SHED
from benchmarks.speed.serve.load import Calls, joined, percentiles_ms
from benchmarks.speed.serve.rates import find_max_rate


def calls(latency_ms, status, seconds=2.0):
    size = len(latency_ms)
    return Calls(
        at_s=np.linspace(0, seconds, size),
        latency_s=np.array(latency_ms) / 1000,
        status=np.array(status),
        seconds=seconds,
        said=Said(sent=size, cpu_s=0.5, wall_s=seconds, late_ms=1.0),
    )


def test_percentiles_by_hand():
    values = np.arange(1, 1002) / 1000  # 1 ms to 1,001 ms
    assert percentiles_ms(values) == pytest.approx({"p50_ms": 501.0, "p99_ms": 991.0, "p999_ms": 1000.0})
    assert all(np.isnan(v) for v in percentiles_ms(np.zeros(0)).values())


def test_failed_calls_are_counted_and_left_out_of_the_percentiles():
    run = calls([10, 20, 30, 5_000, 1], [OK, OK, OK, LATE, SHED])
    assert run.num_failed == 2
    assert run.percentiles()["p50_ms"] == pytest.approx(20)
    assert run.percentiles()["p999_ms"] == pytest.approx(30, rel=0.01)
    assert run.goodput(0.02) == 1.0  # two answers of 20 ms or less, in two seconds
    assert run.statuses() == {"OK": 3, "DEADLINE_EXCEEDED": 1, "RESOURCE_EXHAUSTED": 1}
    assert run.shed_s.tolist() == [0.001]
    assert run.generator_cores == 0.25


def test_runs_are_put_one_after_the_other():
    both = joined([calls([1, 2], [OK, OK]), calls([3], [SHED], seconds=1.0)])
    assert both.seconds == 3.0
    assert both.at_s.tolist() == [0.0, 2.0, 2.0]
    assert both.num_failed == 1
    assert both.said.sent == 3


@pytest.mark.parametrize("first", [30.0, 100.0, 500.0])
def test_the_highest_rate_is_found_from_either_side(first):
    assert 96 < find_max_rate(lambda rate: rate <= 100, first) <= 100


def test_one_stall_is_no_limit_and_no_rate_is_zero():
    tries = []

    def holds(rate):
        tries.append(rate)
        return rate <= 100 and tries.count(rate) > 1  # each rate fails when it is tried first

    assert 96 < find_max_rate(holds, 90.0) <= 100
    assert find_max_rate(lambda rate: False, 100.0) == 0.0
