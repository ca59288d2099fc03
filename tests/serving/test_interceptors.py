import inspect
from base64 import b64encode
from urllib.parse import quote

import grpc
import pytest

from recsys import errors, journal
from recsys.errors import RecsysError
from serving import client_values, request
from serving.call_log import CallLog
from serving.call_queue import CallQueue
from serving.interceptors import STATUS, Guard, abort, status_of
from serving.stats_board import StatsBoard

# Errors that stop a command, and can never be raised while a call is answered.
OFFLINE = {"RecsysError", "ConfigError", "DataError", "CallError", "WorkerError", "DamagedStageError"}


def all_errors() -> list[type[RecsysError]]:
    found = [
        value
        for module in (errors, journal, request, client_values)
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, RecsysError)
    ]
    return sorted(set(found), key=lambda error: error.__name__)


@pytest.mark.parametrize("error", all_errors(), ids=lambda error: error.__name__)
def test_every_error_class_has_a_status(error) -> None:
    """INTERNAL is for bugs: an error of ours that may meet a call has a line in the table."""
    line = next(kind for kind, _ in STATUS if issubclass(error, kind))
    assert (line is Exception) == (error.__name__ in OFFLINE)


class Late:
    """The context of a call whose caller waits for so many more seconds, or has given up."""

    def __init__(self, remaining_s: float | None, active: bool = True) -> None:
        self.time_remaining, self.is_active = (lambda: remaining_s), (lambda: active)
        self.set_trailing_metadata = lambda _: None

    def abort(self, code: grpc.StatusCode, _: str) -> None:
        raise ConnectionAbortedError(code.name)


def test_an_expired_call_is_not_served() -> None:
    board = StatsBoard.for_one()
    stats = board.own(0)
    queue = CallQueue(1, "test", max_pending=1, default_deadline_s=1.0)
    serve = Guard(stats, CallLog(0, lambda: None, 60.0, b"k"), queue)._guarded(
        lambda request, _: request, bytes.decode, "Recommend", queue
    )
    assert serve(b"asked", Late(0.1)) == serve(b"asked", Late(None)) == "asked"
    for late in (Late(0.0), Late(-5.0), Late(0.1, active=False)):
        with pytest.raises(ConnectionAbortedError, match="DEADLINE_EXCEEDED"):
            serve(b"asked", late)
    assert board.totals().counters["expired"] == 3


def test_no_error_text_is_too_long_for_a_header() -> None:
    sent = []

    class Context(Late):
        def abort(self, code: grpc.StatusCode, text: str) -> None:
            sent.append(len(quote(text)))

    context = Context(None)
    context.set_trailing_metadata = lambda metadata: sent.extend(
        len(value if isinstance(value, str) else b64encode(value)) for _, value in metadata
    )
    abort(context, request.FieldError("f", "\N{GRINNING FACE}" * 100_000), "r1")
    assert len(sent) == 3
    assert sum(sent) < 12_000  # of 16 kB


def test_the_first_matching_class_decides() -> None:
    assert status_of(request.FieldError("f", "p")) is grpc.StatusCode.INVALID_ARGUMENT
    assert status_of(request.VersionError("v")) is grpc.StatusCode.FAILED_PRECONDITION
    assert status_of(ZeroDivisionError()) is grpc.StatusCode.INTERNAL
