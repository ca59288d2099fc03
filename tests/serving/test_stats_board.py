import mmap
import os
import threading

import grpc
import numpy as np
import pytest

from serving import request, stats
from serving.histograms import BOUNDS_S, NUM_BUCKETS, bucket_of, quantile_s
from serving.stats import REASONS, STAGES, STATUSES
from serving.stats_board import StatsBoard
from serving.worker_facts import WorkerFacts


def test_a_duration_is_counted_below_its_bound() -> None:
    assert bucket_of(0.0) == 0
    assert bucket_of(BOUNDS_S[7]) == 7
    assert bucket_of(BOUNDS_S[7] * 1.0001) == 8
    assert bucket_of(1e9) == NUM_BUCKETS - 1


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_quantile_is_off_by_less_than_a_bucket(share: float) -> None:
    durations = np.exp(np.random.default_rng(1).normal(-6.0, 1.0, 20_000))
    counts = np.bincount([bucket_of(s) for s in durations], minlength=NUM_BUCKETS)
    assert quantile_s(counts, share) == pytest.approx(np.quantile(durations, share), rel=0.06)


def test_a_quantile_of_one_slow_call_is_the_last_bound() -> None:
    counts = np.bincount([bucket_of(99.0)], minlength=NUM_BUCKETS)
    assert quantile_s(counts, 0.5) == BOUNDS_S[-1]


def test_every_grpc_status_and_degradation_reason_has_a_line() -> None:
    assert set(STATUSES) == {code.name for code in grpc.StatusCode}
    upper = {value for name, value in vars(request).items() if name.isupper() and isinstance(value, str)}
    assert upper == set(request.DEGRADATION_REASONS) < set(REASONS)


def test_the_totals_are_those_of_all_workers() -> None:
    board = StatsBoard(bytearray(StatsBoard.size(2)), 2)
    first, second = board.own(0), board.own(1)
    for one in (first, second):
        one.answered("Recommend", "OK", 0.004)
        one.staged({"scoring": 0.002, "policy": 0.001})
    second.answered("Watch", "UNAVAILABLE", 7.0)
    second.shown(10, first_page=True, explored=True)
    second.shown(10, first_page=False, explored=True)
    first.shown(5, first_page=True, explored=False)
    first.degraded((request.NO_BUNDLE, "SOMETHING_NEW"))
    second.degraded((request.NO_BUNDLE,))
    second.shed()
    first.expired()
    second.handed_over()
    totals = board.totals()
    assert totals.num_calls() == {"Recommend/OK": 2, "other/UNAVAILABLE": 1}
    assert totals.counters == {
        "expired": 1,
        "shed": 1,
        "lists": 2,
        "explored_lists": 1,
        "impressions": 25,
        "handed_over": 1,
    }
    assert totals.degraded == {request.NO_BUNDLE: 2, "other": 1}
    assert totals.latency_ms()["p50"] == pytest.approx(4.0, rel=0.25)
    assert totals.stage_ms()["scoring"]["p99"] == pytest.approx(2.0, rel=0.25)
    assert totals.stages_s[STAGES.index("policy")] == pytest.approx(0.002)
    assert totals.calls_s.sum() == pytest.approx(7.008)


def test_percentiles_forget_what_is_two_periods_old(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10 * stats.RECENT_S]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    board = StatsBoard.for_one()
    own = board.own(0)
    own.answered("Rank", "OK", 1.0)
    now[0] += stats.RECENT_S
    assert board.totals().latency_ms()["p50"] == pytest.approx(1000.0, rel=0.25)
    own.answered("Rank", "OK", 0.001)
    now[0] += stats.RECENT_S
    assert board.totals().latency_ms()["p99"] == pytest.approx(1.0, rel=0.25)
    own.answered("Rank", "OK", 0.001)
    now[0] += 2 * stats.RECENT_S
    assert board.totals().latency_ms() == {}
    assert board.totals().num_calls() == {"Rank/OK": 3}


def test_a_worker_that_is_started_again_goes_on_in_its_row() -> None:
    board = StatsBoard.for_one()
    own = board.own(0)
    own.shed()
    own.publish(WorkerFacts(version="v1"))
    board.enter(0, "serving")
    assert board.all_serve("v1")
    board.count_restart(0)
    again = board.own(0)
    assert board.workers()[0].facts is None
    assert not board.all_serve("v1")
    again.shed()
    assert board.totals().counters["shed"] == 2
    assert board.workers()[0].num_restarts == 1


def test_a_worker_that_does_not_answer_yet_is_not_waited_for() -> None:
    board = StatsBoard(bytearray(StatsBoard.size(2)), 2)
    assert not board.all_serve("v1"), "nobody serves"
    board.own(0).publish(WorkerFacts(version="v1"))
    board.enter(0, "serving")
    board.own(1)
    assert board.all_serve("v1"), "the other loads the live version before it answers"
    board.enter(1, "serving")
    assert not board.all_serve("v1")


def test_facts_that_change_while_they_are_read_are_never_mixed() -> None:
    board = StatsBoard.for_one()
    own = board.own(0)
    short = WorkerFacts(version="a", reload_error="a" * 300)
    long = WorkerFacts(version="b" * 100, reload_error="b" * 400)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            own.publish(short)
            own.publish(long)

    writer = threading.Thread(target=write)
    writer.start()
    seen = [board.workers()[0].facts for _ in range(300)]
    stop.set()
    writer.join()
    assert all(facts in (short, long, None) for facts in seen)


def test_facts_of_a_worker_that_was_killed_while_it_wrote_them_are_not_shown() -> None:
    memory = bytearray(StatsBoard.size(1))
    board = StatsBoard(memory, 1)
    board.own(0).publish(WorkerFacts(version="first"))
    at = memory.index(b"first")
    memory[at : at + 3] = b"sec"  # of "second", which was not written to its end
    assert board.workers()[0].facts is None


def test_facts_that_are_too_long_are_cut() -> None:
    facts = WorkerFacts(
        loaded_versions=("v" * 250,) * 100, reload_error="e" * 9_000, engines_refused="b" * 9_000
    )
    read = WorkerFacts.decode(facts.encode(stats.FACTS_BYTES))
    assert 0 < len(read.loaded_versions) < 100
    assert (read.reload_error, read.engines_refused) == ("e" * 400, "b" * 400)
    long = "\N{GRINNING FACE}" * 500
    read = WorkerFacts.decode(
        WorkerFacts(reload_error=long, store={"error": long, "path": "\udcff"}).encode(stats.FACTS_BYTES)
    )
    assert read.store == {"error": long[:400], "path": "?"}


def test_threads_of_a_worker_lose_no_count() -> None:
    board = StatsBoard.for_one()
    own = board.own(0)

    def count() -> None:
        for _ in range(300):
            own.answered("Recommend", "OK", 0.001)
            own.shed()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert board.totals().num_calls() == {"Recommend/OK": 1200}
    assert board.totals().counters["shed"] == 1200


def test_buffers_that_map_the_same_memory_count_together() -> None:
    memory = os.memfd_create("board")
    os.ftruncate(memory, StatsBoard.size(2))
    boards = [StatsBoard(mmap.mmap(memory, StatsBoard.size(2)), 2) for _ in range(2)]
    os.close(memory)
    for number, board in enumerate(boards):
        board.own(number).shed()
    for board in boards:
        assert board.totals().counters["shed"] == 2
        assert [worker.state for worker in board.workers()] == ["starting", "starting"]
