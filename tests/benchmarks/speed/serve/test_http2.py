"""The generator's connection against gRPC's own server."""

import select
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from benchmarks.speed.serve.generator import Calls, Connections
from benchmarks.speed.serve.http2 import DEADLINE_EXCEEDED, OK, SHED, UNAVAILABLE, Connection

METHOD = "/shop.Service/Ask"
PATIENCE_S = 30.0
CODE = {code.name: code.value[0] for code in grpc.StatusCode}


class Service(grpc.GenericRpcHandler):
    """Answers with what the request asks for."""

    def __init__(self):
        self.gate, self.deadlines = threading.Event(), []

    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(self.answer) if details.method == METHOD else None

    def answer(self, request, context):
        self.deadlines.append(context.time_remaining())
        if request == b"shed":
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "later")
        if request == b"wait":
            self.gate.wait(PATIENCE_S)
        return request if request != b"much" else bytes(3_000_000)


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def address(service):
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((service,))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    service.server = server
    yield address
    service.gate.set()
    server.stop(0).wait()


def ended(connection, count):
    """Wait for so many calls; give their statuses by number."""
    found, end = {}, time.monotonic() + PATIENCE_S
    while len(found) < count and time.monotonic() < end:
        writing = [connection.socket] if connection.wants_to_write else []
        select.select([connection.socket], writing, [], 1.0)
        connection.flush()
        found |= dict(connection.receive())
    return found


def test_the_numbers_of_statuses_are_grpcs():
    assert (CODE["OK"], CODE["RESOURCE_EXHAUSTED"]) == (OK, SHED)
    assert (CODE["DEADLINE_EXCEEDED"], CODE["UNAVAILABLE"]) == (DEADLINE_EXCEEDED, UNAVAILABLE)


def test_statuses_are_those_that_the_server_sent(address):
    connection = Connection(address, METHOD)
    for number, request in enumerate([b"hello", b"shed", b"much", b"", b"shed"]):
        connection.send(number, request)
    assert ended(connection, 5) == {0: OK, 1: SHED, 2: OK, 3: OK, 4: SHED}
    assert connection.num_calls == 0
    connection.close()


def test_a_method_that_there_is_not_is_unimplemented(address):
    connection = Connection(address, "/shop.Service/Other")
    connection.send(0, b"x")
    assert ended(connection, 1) == {0: CODE["UNIMPLEMENTED"]}
    connection.close()


def test_requests_that_the_servers_window_has_no_room_for_wait(address):
    connection = Connection(address, METHOD)
    for number in range(40):
        connection.send(number, bytes(10_000))
    assert ended(connection, 40) == dict.fromkeys(range(40), OK)
    connection.close()


def test_the_server_is_told_the_deadline_and_the_caller_keeps_it(address, service):
    connections = Connections(address, METHOD, 2, deadline_s=0.3)
    calls = Calls(connections, [b"wait", b"hello"], deadline_s=0.3)
    calls.begin(time.perf_counter(), 0)
    calls.begin(time.perf_counter(), 1)
    while calls.num_ended < 2:
        list(calls.wait(time.perf_counter() + 1.0))
    assert calls.status[1] == OK
    assert calls.status[0] != OK
    assert 0.2 < calls.ended[0] - calls.at[0] < PATIENCE_S / 2
    assert all(0 < left <= 0.3 for left in service.deadlines)
    connections.close()


def test_a_server_that_leaves_ends_its_calls_and_a_new_connection_is_tried(address, service):
    connections = Connections(address, METHOD, 1, deadline_s=0.0)
    first = connections.pick(0)
    first.send(0, b"wait")
    stopped = service.server.stop(0)
    assert ended(first, 1)[0] in {UNAVAILABLE, CODE["CANCELLED"]}
    service.gate.set()
    stopped.wait()
    end = time.monotonic() + PATIENCE_S
    while first.open and time.monotonic() < end:
        select.select([first.socket], [], [], 1.0)
        assert list(first.receive()) == []
    with pytest.raises(ConnectionRefusedError):
        connections.pick(1)
    connections.close()
