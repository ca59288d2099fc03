"""The circuit breaker: opens after failures in a row, lets one probe through, closes when it is answered."""

import threading

import pytest

from features.store.breaker import CircuitBreaker, CircuitOpenError


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return CircuitBreaker("a store", failures=3, open_s=2.0, counts=(TimeoutError,), clock=clock)


def _fail(error=TimeoutError):
    raise error


def _break(breaker, times=3):
    for _ in range(times):
        with pytest.raises(TimeoutError):
            breaker.call(_fail)


def test_failures_in_a_row_open_it(breaker):
    _break(breaker, 2)
    assert breaker.call(lambda: "x") == "x"  # the count starts again
    _break(breaker, 2)
    assert breaker.state == "closed"
    _break(breaker, 1)
    assert breaker.state == "open"
    with pytest.raises(CircuitOpenError, match="a store failed 3 times in a row; no calls for 2 s"):
        breaker.call(lambda: pytest.fail("an open circuit let a call through"))


def test_an_answer_that_is_an_error_is_an_answer(breaker):
    _break(breaker, 2)
    with pytest.raises(KeyError):
        breaker.call(lambda: _fail(KeyError))
    _break(breaker, 2)
    assert breaker.state == "closed"


def test_one_probe_after_the_pause(breaker, clock):
    _break(breaker)
    clock.now += 1.99
    with pytest.raises(CircuitOpenError):
        breaker.call(lambda: None)
    clock.now += 0.01
    assert breaker.state == "half-open"

    def probe():
        with pytest.raises(CircuitOpenError):  # others do not pile up behind it
            breaker.call(lambda: None)
        return "answered"

    assert breaker.call(probe) == "answered"
    assert breaker.state == "closed"
    assert breaker.call(lambda: 1) == 1


def test_a_failed_probe_opens_it_again(breaker, clock):
    _break(breaker)
    clock.now += 2
    _break(breaker, 1)
    assert breaker.state == "open"
    clock.now += 1.9
    with pytest.raises(CircuitOpenError):
        breaker.call(lambda: None)
    clock.now += 0.1
    breaker.call(lambda: None)
    assert breaker.state == "closed"


def test_an_interrupted_probe_lets_another_one_try(breaker, clock):
    _break(breaker)
    clock.now += 2
    with pytest.raises(KeyboardInterrupt):
        breaker.call(lambda: _fail(KeyboardInterrupt))
    assert breaker.call(lambda: 1) == 1
    assert breaker.state == "closed"


def test_a_late_answer_does_not_close_it(breaker):
    """A call that began before the circuit opened says nothing about the server now."""

    def slow():
        _break(breaker)
        return "late"

    assert breaker.call(slow) == "late"
    assert breaker.state == "open"


def test_many_threads_and_one_probe(breaker, clock):
    _break(breaker)
    clock.now += 2
    inside, refused = threading.Event(), threading.Semaphore(0)

    def probe():
        breaker.call(lambda: (inside.set(), [refused.acquire(timeout=120) for _ in range(7)]))

    def other():
        with pytest.raises(CircuitOpenError):
            breaker.call(lambda: None)
        refused.release()

    first = threading.Thread(target=probe)
    first.start()
    assert inside.wait(120)
    others = [threading.Thread(target=other) for _ in range(7)]
    for thread in others:
        thread.start()
    for thread in (first, *others):
        thread.join()
    assert breaker.state == "closed"
