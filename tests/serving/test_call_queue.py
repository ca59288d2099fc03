"""The queue's bounds: what is let in is answered in time, and what is refused costs nothing."""

import random
import threading
import time
from collections import deque

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.recsys.v1 import ranking_pb2 as pb
from serving.call_queue import CallQueue, pushback_ms
from serving.client import RecsysClient
from serving.latency import Patience

PATIENCE_S = 120.0


def queue(num_workers: int = 1, max_pending: int = 64, default_s: float = 1.0) -> CallQueue:
    return CallQueue(num_workers, "test", max_pending, default_s)


def test_unfinished_calls_are_counted_even_when_they_fail() -> None:
    pool = queue()
    failing = pool.submit(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        failing.result()
    assert pool.submit(pool.waited_s).result() < PATIENCE_S
    pool.shutdown()
    assert pool.num_pending == 0


def simulate(
    load: float,
    num_workers: int = 1,
    bounded: bool = True,
    drops: bool = True,
    service_s: float = 0.004,
) -> tuple[float, float]:
    """Simulate 5 s of Poisson arrivals; calls take about 4 ms, and have 100 ms.

    Return the answers in time, as a share of what the workers can answer, and the mean seconds until a call
    is refused.
    """
    rng, calls, deadline_s = random.Random(5), queue(num_workers), 0.1
    waiting: deque[float] = deque()
    free_at = [0.0] * num_workers
    now, answered, refused_after = 0.0, 0, []
    while now < 5.0:
        now += rng.expovariate(load * num_workers / service_s)
        while waiting and min(free_at) <= now:
            arrived = waiting.popleft()
            start = max(min(free_at), arrived)
            calls._own.waited_s = start - arrived
            if calls.is_late(arrived + deadline_s - start) and drops:
                refused_after.append(start - arrived)
                continue
            busy_s = rng.uniform(0.5, 1.5) * service_s
            free_at[free_at.index(min(free_at))] = start + busy_s
            calls._busy_s.observe(busy_s)
            answered += start + busy_s <= arrived + deadline_s
        calls.num_pending = len(waiting) + sum(at > now for at in free_at)
        if not bounded or calls.has_room():
            waiting.append(now)
        else:
            calls.learn(deadline_s)
            refused_after.append(0.0)
    mean_s = sum(refused_after) / max(1, len(refused_after))
    return answered * service_s / (5.0 * num_workers), mean_s


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("load", [2.0, 5.0])
def test_under_overload_the_workers_answer_in_time_what_they_can(load, num_workers) -> None:
    goodput, refused_after_s = simulate(load, num_workers)
    assert goodput > 0.95
    assert refused_after_s < 0.001


def test_calls_that_take_most_of_their_time_do_not_wait() -> None:
    """One that waits for another one is answered too late, and keeps a worker from one that is not."""
    goodput, _ = simulate(2.0, service_s=0.06)
    assert goodput > 0.6


def test_what_the_bound_and_the_drop_by_age_are_for() -> None:
    goodput, _ = simulate(2.0, bounded=False, drops=False)
    assert goodput < 0.3  # every answer comes too late
    goodput, refused_after_s = simulate(2.0, bounded=False)
    assert goodput > 0.95
    assert refused_after_s > 0.05  # but who is refused has waited for it


def test_the_queue_is_as_long_as_the_impatient_tenth_allows() -> None:
    patience = Patience(default_s=1.0)
    for _ in range(200):
        patience.observe(0.1)
    assert patience.seconds == pytest.approx(0.1, rel=0.06)
    for n in range(2_000):  # one in twenty has less
        patience.observe(0.02 if n % 20 == 0 else 0.1)
    assert patience.seconds > 0.08
    for n in range(2_000):  # one in five has less
        patience.observe(0.02 if n % 5 == 0 else 0.1)
    assert patience.seconds < 0.05
    for _ in range(2_000):
        patience.observe(None)
    assert patience.seconds == pytest.approx(1.0, rel=0.06)


def test_a_call_that_waited_for_most_of_its_time_is_late() -> None:
    calls = queue()
    calls._own.waited_s = 0.08
    assert calls.is_late(0.02)
    assert not calls.is_late(0.08)
    assert not calls.is_late(None)


def test_who_has_no_time_to_come_back_is_told_not_to() -> None:
    values = {int(pushback_ms(None)) for _ in range(100)}
    assert len(values) > 10
    assert min(values) >= 100
    assert max(values) <= 300
    assert pushback_ms(0.05) == "-1"


def test_a_full_queue_refuses_at_once_without_reading_the_call(start, until) -> None:
    one = start(serving={"max_concurrent": 4})
    one.loader.scorer.gate = threading.Event()
    with grpc.insecure_channel(one.client.target, options=[("grpc.enable_retries", 0)]) as channel:
        call = channel.unary_unary("/recsys.v1.RankingService/Recommend")
        good = pb.RecommendRequest(user_id="u1", page_size=1).SerializeToString()
        waiting = [call.future(good, timeout=PATIENCE_S) for _ in range(4)]
        until(lambda: one.server._pool.num_pending == 4)
        refused = [call.future(b"\xff", timeout=PATIENCE_S) for _ in range(5)]
        hurried = call.future(good, timeout=0.09)
        assert {future.code() for future in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        pushbacks = [int(dict(future.trailing_metadata())["grpc-retry-pushback-ms"]) for future in refused]
        health = health_pb2_grpc.HealthStub(one.client.channel)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S).status == 1
        assert all(100 <= pushback <= 300 for pushback in pushbacks)
        if hurried.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:  # else a stalled machine was too slow
            assert dict(hurried.trailing_metadata())["grpc-retry-pushback-ms"] == "-1"
        one.loader.scorer.gate.set()
        assert all(future.result() for future in waiting)
    status = one.admin.status()
    assert status.num_shed in (5, 6)
    assert status.calls["Recommend/RESOURCE_EXHAUSTED"] == status.num_shed


def test_the_client_comes_back_when_the_server_asked_it_to(start, until) -> None:
    one = start(serving={"max_concurrent": 1})
    one.loader.scorer.gate = threading.Event()
    first = threading.Thread(target=one.client.recommend, args=("u1", 1))
    first.start()
    until(lambda: one.server._pool.num_pending == 1)
    answers = []
    with RecsysClient(one.client.target, timeout_s=PATIENCE_S) as client:
        began = time.monotonic()
        second = threading.Thread(target=lambda: answers.append(client.recommend("u2", 1)))
        second.start()
        until(lambda: one.admin.status().num_shed == 1)
        one.loader.scorer.gate.set()
        second.join()
    first.join()
    assert len(answers) == 1
    assert time.monotonic() - began > 0.09  # 100 to 300 ms; gRPC's own pause after UNAVAILABLE is 50


def test_the_client_gives_up_after_four_attempts_and_at_its_deadline(start, until) -> None:
    one = start(serving={"max_concurrent": 1})
    one.loader.scorer.gate = threading.Event()
    first = threading.Thread(target=one.client.recommend, args=("u1", 1))
    first.start()
    until(lambda: one.server._pool.num_pending == 1)
    codes = []
    for timeout_s in (PATIENCE_S, 0.09):
        with RecsysClient(one.client.target, timeout_s=timeout_s) as client:
            with pytest.raises(Exception, match="too many calls are waiting") as error:
                client.recommend("u2", 1)
            codes.append((error.value.__cause__.code(), one.admin.status().num_shed))
    one.loader.scorer.gate.set()
    first.join()
    assert codes == [(grpc.StatusCode.RESOURCE_EXHAUSTED, 4), (grpc.StatusCode.RESOURCE_EXHAUSTED, 5)]


@pytest.mark.parametrize(
    "path",
    [
        "/recsys.v1.RankingService/Recommend",
        "/recsys.v1.RankingService/UpsertItems",
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
    ],
)
def test_bytes_that_are_no_message_are_an_invalid_argument(start, path) -> None:
    one = start()
    channel = one.client.channel
    call = channel.unary_stream(path) if path.endswith("Watch") else channel.unary_unary(path)
    with pytest.raises(grpc.RpcError) as error:
        list(call(b"\xff\xff", timeout=PATIENCE_S))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.value.details().startswith("the 2 bytes are no request of this method")
