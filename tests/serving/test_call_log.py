import stat
import threading

import pytest
import structlog

from recsys.errors import StoreError
from serving.call_log import Call, CallLog, begin_call, current_call, log_key
from serving.client_values import CallError
from serving.request import FieldError, OverloadedError


@pytest.fixture
def logged():
    with structlog.testing.capture_logs() as lines:
        yield lines


def call_log(slow_s: float = 0.5) -> CallLog:
    return CallLog(worker=3, version=lambda: "v7", slow_s=slow_s, key=b"k" * 32)


def call() -> Call:
    return Call(method="Recommend", request_id="r1", user_id="alice")


def test_a_line_says_which_call_worker_and_version(logged) -> None:
    call_log().finished(call(), "RESOURCE_EXHAUSTED", 0.0021, OverloadedError("busy"))
    [line] = logged
    assert line.pop("user") == call_log().hashed("alice")
    assert line == {
        "event": "call_refused",
        "log_level": "info",
        "request_id": "r1",
        "method": "Recommend",
        "status": "RESOURCE_EXHAUSTED",
        "ms": 2.1,
        "worker": 3,
        "version": "v7",
    }


def test_quick_calls_leave_no_line_and_slow_ones_do(logged) -> None:
    call_log().finished(call(), "OK", 0.4)
    assert logged == []
    call_log().finished(call(), "OK", 0.6)
    assert [line["event"] for line in logged] == ["call_slow"]


def test_no_line_holds_an_id_of_a_user(logged) -> None:
    call_log().finished(call(), "INVALID_ARGUMENT", 0.1, FieldError("user_id", "'alice' is too long"))
    assert "alice" not in str(logged)
    assert logged[0]["field"] == "user_id"


def test_a_failure_says_why_and_a_bug_has_its_traceback(logged) -> None:
    call_log().finished(call(), "UNAVAILABLE", 0.1, StoreError("the disk is full"))
    bug = ZeroDivisionError("ours")
    call_log().finished(call(), "INTERNAL", 0.1, bug)
    assert (logged[0]["error"], logged[0]["exc_info"]) == ("the disk is full", None)
    assert logged[1]["exc_info"] is bug
    assert [line["event"] for line in logged] == ["call_failed", "call_failed"]


def test_the_rate_is_bounded_and_the_next_line_says_how_many_are_missing(logged, monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    lines = call_log()
    for _ in range(1_000):
        lines.finished(call(), "RESOURCE_EXHAUSTED", 0.001)
    assert len(logged) == 50
    now[0] += 1.0
    for _ in range(1_000):
        lines.finished(call(), "RESOURCE_EXHAUSTED", 0.001)
    assert len(logged) == 60
    assert logged[50]["lines_left_out"] == 950
    now[0] += 1.0
    lines.finished(call(), "RESOURCE_EXHAUSTED", 0.001)
    assert logged[60]["lines_left_out"] == 990, "those that were told of already do not count again"


def test_the_key_is_private_and_shared(tmp_path) -> None:
    first = log_key(tmp_path / "serving")
    assert log_key(tmp_path / "serving") == first
    assert len(first) == 32
    assert stat.S_IMODE((tmp_path / "serving" / "log_key").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "serving").iterdir()] == ["log_key"]


def test_without_a_folder_the_key_is_of_this_process(tmp_path, logged) -> None:
    (tmp_path / "file").touch()
    assert len(log_key(tmp_path / "file")) == 32
    assert [line["event"] for line in logged] == ["log_key_in_memory"]


def test_a_thread_has_one_call() -> None:
    begun = begin_call("Rank")
    assert current_call() is begun
    assert begin_call("Rank").request_id != begun.request_id


def test_caller_log_and_journal_name_a_call_alike(start) -> None:
    one = start(serving={"slow_call_ms": 1})
    with structlog.testing.capture_logs() as lines:
        with pytest.raises(CallError) as refused:
            one.client.recommend("alice", -1)
        one.loader.scorer.gate = threading.Event()
        threading.Timer(0.05, one.loader.scorer.gate.set).start()
        answer = one.client.recommend("alice")
    by_event = {line["event"]: line for line in lines if line["event"].startswith("call_")}
    assert by_event["call_refused"]["request_id"] == refused.value.request_id != ""
    assert by_event["call_slow"]["request_id"] == answer.request_id
    assert by_event["call_slow"]["ms"] >= 50
    assert by_event["call_slow"]["version"] == "v1"
    assert one.journal()[0]["request_id"] == answer.request_id
    assert "alice" not in str(lines)
