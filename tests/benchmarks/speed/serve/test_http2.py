"""The generator's connection against gRPC's own server, and against one made by hand."""

import contextlib
import select
import socket
import struct
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


class Peer:
    """A server's end of a connection, frame by frame: what gRPC's own server does not show or check."""

    DATA, HEADERS, SETTINGS, PING, GO_AWAY, WINDOW = 0x0, 0x1, 0x4, 0x6, 0x7, 0x8

    def __init__(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.connection = Connection(f"127.0.0.1:{listener.getsockname()[1]}", METHOD)
            self.socket = listener.accept()[0]
        self.socket.settimeout(0.2)
        self.left = b""

    def send(self, kind, flags, stream, payload):
        self.socket.sendall(
            struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload
        )

    def frames(self):
        """Read the frames that are there: kind, flags, length."""
        with contextlib.suppress(TimeoutError):
            while data := self.socket.recv(1 << 16):
                self.left += data
                self.connection.flush()
        self.left, found = self.left.removeprefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), []
        while len(self.left) >= 9:
            size = int.from_bytes(self.left[:3])
            found.append((self.left[3], self.left[4], size))
            self.left = self.left[9 + size :]
        return found


@pytest.fixture
def peer():
    peer = Peer()
    yield peer
    peer.connection.close()
    peer.socket.close()


def test_a_call_that_ends_well_without_an_answer_has_failed(peer):
    peer.connection.send(7, b"hello")
    peer.send(Peer.HEADERS, 0x5, 1, b"\x00\x0bgrpc-status\x010")
    assert ended(peer.connection, 1) == {7: UNAVAILABLE}


def test_no_more_is_sent_than_the_servers_window_has_room_for(peer):
    for number in range(20):
        peer.connection.send(number, bytes(10_000))
    sent = [size for kind, _, size in peer.frames() if kind == Peer.DATA]
    assert sent == [10_005] * 6
    peer.send(Peer.WINDOW, 0, 0, struct.pack("!I", 1 << 20))
    select.select([peer.connection.socket], [], [], PATIENCE_S)
    assert list(peer.connection.receive()) == []
    assert [size for kind, _, size in peer.frames() if kind == Peer.DATA] == [10_005] * 14


@pytest.mark.parametrize("kind", [Peer.SETTINGS, Peer.PING])
def test_what_the_server_asks_to_be_confirmed_is_confirmed_once(peer, kind):
    peer.frames()
    payload = b"" if kind == Peer.SETTINGS else b"8 bytes!"
    for flags in (0x0, 0x1):  # a confirmation of the server's own is not answered
        peer.send(kind, flags, 0, payload)
        select.select([peer.connection.socket], [], [], PATIENCE_S)
        assert list(peer.connection.receive()) == []
    assert peer.frames() == [(kind, 0x1, len(payload))]


def test_a_server_that_goes_away_gets_no_new_call_and_may_end_those_it_has(peer):
    peer.connection.send(1, b"a")
    peer.connection.send(2, b"b")
    assert peer.connection.open
    peer.send(Peer.GO_AWAY, 0, 0, bytes(8))
    peer.send(Peer.DATA, 0, 1, b"answer")
    peer.send(Peer.HEADERS, 0x5, 1, b"\x00\x0bgrpc-status\x010")
    assert ended(peer.connection, 1) == {1: OK}
    assert not peer.connection.open
    peer.socket.shutdown(socket.SHUT_RDWR)
    assert ended(peer.connection, 1) == {2: UNAVAILABLE}, "it was cut off"


def test_a_frame_may_come_in_pieces(peer):
    peer.connection.send(1, b"a")
    peer.send(Peer.DATA, 0, 1, b"answer")
    trailers = b"\x00\x0bgrpc-status\x018"
    frame = struct.pack("!IBBI", len(trailers), Peer.HEADERS, 0x5, 1)[1:] + trailers
    for part in (frame[:4], frame[4:15], frame[15:]):
        assert list(peer.connection.receive()) == []
        peer.socket.sendall(part)
        select.select([peer.connection.socket], [], [], PATIENCE_S)
    assert ended(peer.connection, 1) == {1: SHED}
