"""The load generator: Poisson arrivals, latency from the intended instant, requests as they were recorded."""

import time

import grpc
import numpy as np
import pytest

from benchmarks.speed.serve.generator import (
    OK,
    Plan,
    _open_loop,
    poisson_times,
    read_requests,
    write_requests,
)


class Done:
    """A call that has ended."""

    def __init__(self, code=grpc.StatusCode.OK):
        self._code = code

    def code(self):
        return self._code

    def add_done_callback(self, callback):
        callback(self)


class Stalling:
    """A server that answers at once, but for its first call."""

    def __init__(self, stall_s):
        self.stall_s, self.asked = stall_s, []

    def future(self, request, timeout):
        if not self.asked:
            time.sleep(self.stall_s)
        self.asked.append(request)
        return Done()


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
    plan = Plan(target="", seconds=0.1, calls="", rate=500.0)
    at, latency, status, late = _open_loop([server], [b"a", b"b"], plan, timeout_s=1.0)
    assert (status == OK).all()
    assert server.asked[:4] == [b"a", b"b", b"a", b"b"]
    assert latency.size == at.size == len(server.asked) > 20
    # Those intended early in the stall waited for most of it, although each was answered at once.
    early = at < 0.03
    assert early.sum() > 5
    assert latency[early].min() > 0.06
    assert late[early][1:].min() > 0.06


def test_requests_are_read_as_they_were_written(tmp_path):
    requests = [b"", b"abc", bytes(range(256)) * 3]
    write_requests(tmp_path / "requests", requests)
    assert read_requests(tmp_path / "requests") == requests
