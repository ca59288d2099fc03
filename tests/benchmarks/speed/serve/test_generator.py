"""The load generator: Poisson arrivals, latency from the intended instant, requests as they were recorded."""

import time

import numpy as np
import pytest

from benchmarks.speed.serve.generator import (
    Calls,
    Plan,
    _closed_loop,
    _open_loop,
    poisson_times,
    read_requests,
    write_requests,
)
from benchmarks.speed.serve.http2 import OK


class Stalling:
    """Connections to a server that answers at once, but stalls before its first answer."""

    def __init__(self, stall_s):
        self.stall_s, self.sent, self.open_calls = stall_s, [], []

    def pick(self, number):
        return self

    def send(self, number, request):
        self.sent.append(request)
        self.open_calls.append(number)
        return number

    def cancel(self, stream):
        raise AssertionError("no deadline passes")

    def ready(self, seconds):
        if self.open_calls:
            time.sleep(self.stall_s)
            self.stall_s = 0.0
            return [self]
        time.sleep(seconds)
        return []

    def receive(self):
        ended, self.open_calls = self.open_calls, []
        yield from ((number, OK) for number in ended)


def test_arrivals_are_a_poisson_process():
    at = poisson_times(rate=200.0, seconds=100.0, seed=3)
    gaps = np.diff(at)
    assert at.min() >= 0
    assert at.max() < 100
    assert (gaps > 0).all()
    assert at.size == pytest.approx(20_000, abs=4 * 20_000**0.5)
    # Exponential gaps: mean and standard deviation are equal, and gaps say nothing of the next one.
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 0.03
    assert np.array_equal(at, poisson_times(200.0, 100.0, 3))
    assert not np.array_equal(at[:9], poisson_times(200.0, 100.0, 4)[:9])


def test_a_stall_is_charged_to_every_call_that_should_have_been_sent_meanwhile():
    server = Stalling(stall_s=0.1)
    calls = Calls(server, [b"a", b"b"], deadline_s=5.0)
    at, began = poisson_times(rate=500.0, seconds=0.1, seed=0), time.perf_counter()
    _open_loop(calls, at, began)
    latency = np.array(calls.ended) - np.array(calls.at)
    assert calls.status == [OK] * at.size
    assert np.allclose(np.array(calls.at) - began, at)
    assert server.sent[:4] == [b"a", b"b", b"a", b"b"]
    # Those intended early in the stall waited for most of it, although each was answered at once.
    early = (at > at[0]) & (at < at[0] + 0.03)
    assert early.sum() > 5
    assert latency[early].min() > 0.06


def test_a_client_of_a_closed_loop_has_one_call_at_a_time():
    server = Stalling(stall_s=0.0)
    calls = Calls(server, [b"a"], deadline_s=5.0)
    plan = Plan(target="", seconds=0.02, calls="", clients=3)
    _closed_loop(calls, plan, time.perf_counter())
    assert calls.num_ended == len(calls.at) > 3
    begun, ended = np.array(calls.at), np.array(calls.ended)
    assert all((begun <= t).sum() - (ended <= t).sum() <= 3 for t in begun)


def test_requests_are_read_as_they_were_written(tmp_path):
    requests = [b"", b"abc", bytes(range(256)) * 3]
    write_requests(tmp_path / "requests", requests)
    assert read_requests(tmp_path / "requests") == requests
