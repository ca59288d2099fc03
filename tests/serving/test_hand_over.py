"""A busy worker's calls are answered by a sibling, as if the caller had been connected to it."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from serving.call_log import REQUEST_ID_KEY, CallLog
from serving.call_queue import Admission, CallQueue
from serving.hand_over import HANDED_OVER_KEY, MAX_AWAY, HandOver
from serving.interceptors import Guard
from serving.request import FieldError
from serving.stats_board import StatsBoard

PATIENCE_S, DEFAULT_S = 20.0, 15.0
SERVICE = "recsys.v1.RankingService"


@dataclass
class Worker:
    """A worker whose calls say which of the two answered them."""

    number: int
    board: StatsBoard
    folder: Path
    free: threading.Event = field(default_factory=threading.Event)
    """While it is not set, a call that says "wait" does."""
    waits: threading.Event = field(default_factory=threading.Event)
    """Such a call has begun."""
    gave_up: threading.Event = field(default_factory=threading.Event)
    """Its caller has, before it was free."""
    asked: list[grpc.Future] = field(default_factory=list)

    def __post_init__(self) -> None:
        stats = self.board.own(self.number)
        call_log = CallLog(self.number, lambda: None, PATIENCE_S, b"key")
        self.queue = CallQueue(1, "rank", 64, PATIENCE_S, stats.waiting)
        self.hand_over = HandOver(self.board, self.number, self.folder, DEFAULT_S, stats.handed_over)
        admission = Admission(self.queue, stats, call_log, self.hand_over.handler)
        self.server = grpc.server(self.queue, interceptors=[admission, Guard(stats, call_log, self.queue)])
        methods = {
            name: grpc.unary_unary_rpc_method_handler(self.answer, lambda sent: sent, lambda answer: answer)
            for name in ("Recommend", "UpsertItems")
        }
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        self.server.add_insecure_port(self.hand_over.address)
        port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        self.board.enter(self.number, "serving")
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")

    def answer(self, sent: bytes, context: grpc.ServicerContext) -> bytes:
        if sent == b"wrong":
            raise FieldError("user_id", "it is empty")
        if sent == b"wait":
            context.add_callback(self.gave_up.set)
            self.waits.set()
            assert self.free.wait(PATIENCE_S)
        if sent == b"time":
            return b"%f" % context.time_remaining()
        return b"%d: %s" % (self.number, sent)

    def ask(self, sent: bytes, method: str = "Recommend", timeout: float = PATIENCE_S, **options: object):
        asked = self.channel.unary_unary(f"/{SERVICE}/{method}").future(sent, timeout=timeout, **options)
        self.asked.append(asked)  # one that nobody holds is cancelled
        return asked

    def stop(self) -> None:
        self.free.set()
        self.channel.close()
        self.server.stop(PATIENCE_S).wait()
        self.hand_over.close()
        self.queue.shutdown()


@pytest.fixture
def workers(tmp_path) -> Iterator[list[Worker]]:
    board = StatsBoard(bytearray(StatsBoard.size(2)), 2)
    both = [Worker(number, board, tmp_path) for number in (0, 1)]
    yield both
    for worker in both:
        worker.stop()


@pytest.fixture
def busy(workers, until) -> Worker:
    """Give worker 0, which has a call."""
    workers[0].ask(b"wait")
    until(lambda: workers[0].board.pending()[0] == 1)
    return workers[0]


def handed_over(worker: Worker) -> int:
    return worker.board.totals().counters["handed_over"]


def answered_here(busy: Worker, until, method: str = "Recommend") -> bool:
    """Tell whether a busy worker's next call waits there, and is answered there when it is free."""
    waiting = busy.ask(b"a", method)
    until(lambda: busy.board.pending()[0] == 2)
    busy.free.set()
    return waiting.result() == b"0: a"


def answered_there(busy: Worker, until, sent: bytes) -> bytes:
    """Ask when the sibling has nothing to do: it still counts a call a moment after its answer."""
    until(lambda: busy.board.pending()[1] == busy.hand_over._siblings[1].num_away == 0)
    return busy.ask(sent).result()


def test_an_idle_worker_answers_its_own_calls(workers) -> None:
    assert [workers[0].ask(b"a").result(), workers[1].ask(b"a").result()] == [b"0: a", b"1: a"]
    assert handed_over(workers[0]) == 0


def test_a_busy_worker_has_its_sibling_answer(busy, until) -> None:
    answers = [answered_there(busy, until, b"%d" % n) for n in range(3)]
    assert answers == [b"1: 0", b"1: 1", b"1: 2"]
    assert handed_over(busy) == 3
    assert busy.board.totals().num_calls() == {"Recommend/OK": 3}, "counted by the one that answered"


def test_only_ranking_is_handed_over(busy, until) -> None:
    assert answered_here(busy, until, "UpsertItems")


def test_a_call_is_handed_over_once_and_not_to_a_sibling_as_busy(workers, busy, until) -> None:
    other = workers[1]
    other.ask(b"wait")
    until(lambda: busy.board.pending()[1] == 1)
    here = busy.ask(b"a")  # one call each: it waits here
    until(lambda: busy.board.pending()[0] == 2)
    there = busy.ask(b"b", metadata=[(HANDED_OVER_KEY, "1")])  # as if a sibling had sent it
    until(lambda: busy.board.pending()[0] == 3)
    assert handed_over(busy) == 0
    busy.free.set()
    assert [here.result(), there.result()] == [b"0: a", b"0: b"]


def test_errors_come_back_as_the_sibling_gave_them(busy) -> None:
    failed = busy.ask(b"wrong")
    assert failed.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert failed.details() == "user_id: it is empty"
    keys = [key for key, _ in failed.trailing_metadata()]
    assert keys == [REQUEST_ID_KEY, "grpc-status-details-bin"]
    assert handed_over(busy) == 1


def test_where_the_sibling_is_gone_the_call_is_answered_here(workers, busy, until) -> None:
    workers[1].stop()
    workers[1].board.enter(1, "serving")  # killed: nobody has said so yet
    assert answered_here(busy, until)
    assert handed_over(busy) == 0


def test_a_sibling_that_drains_is_not_asked(workers, busy, until) -> None:
    workers[1].board.enter(1, "draining")
    assert answered_here(busy, until)
    assert handed_over(busy) == 0


def test_a_caller_who_gives_up_gives_up_at_the_sibling(workers, busy) -> None:
    waiting = busy.ask(b"wait")
    assert workers[1].waits.wait(PATIENCE_S)
    waiting.cancel()
    assert workers[1].gave_up.wait(PATIENCE_S)


@pytest.mark.parametrize(("given", "most"), [(8.0, 8.0), (None, DEFAULT_S)])
def test_the_deadline_goes_with_the_call_and_none_waits_for_ever(busy, given, most) -> None:
    left = float(busy.ask(b"time", timeout=given).result())
    assert most / 2 < left < most + 1


def test_a_sibling_that_hangs_is_left_alone_for_a_while(workers, busy, until) -> None:
    assert busy.ask(b"wait", timeout=1.0).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    workers[1].free.set()
    until(lambda: busy.hand_over._siblings[1].rests_until > 0)
    assert answered_here(busy, until)


def test_calls_of_which_nothing_is_read_are_not_counted_as_away(busy, until) -> None:
    """gRPC runs no behavior for a call that is cancelled at once."""
    for _ in range(2 * MAX_AWAY):
        busy.ask(b"a").cancel()

    def is_handed_over() -> bool:  # not at once: some of the calls may not have come yet
        asked = busy.ask(b"b", timeout=1.0)
        return asked.code() is grpc.StatusCode.OK and asked.result() == b"1: b"

    until(is_handed_over)
