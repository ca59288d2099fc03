"""As much of HTTP/2 as a load generator of unary gRPC calls needs.

gRPC's own Python client takes several times its processor time, and the generator shares the processor with
the server. A connection sends requests whose headers are made once, and notes the status of each answer.
HPACK's dynamic table is switched off, so that a status stands in the trailers as plain text. Answers are not
parsed.

Source: RFC 9113, RFC 7541, and gRPC's "PROTOCOL-HTTP2.md".
"""

import socket
import struct
from collections.abc import Iterator
from typing import Final

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GO_AWAY, _WINDOW = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x8
_END_STREAM, _ACK, _END_HEADERS = 0x1, 0x1, 0x4
_TABLE_SIZE, _PUSH, _STREAM_WINDOW = 0x1, 0x2, 0x4
_MAX_WINDOW: Final = 2**31 - 1
_FIRST_WINDOW: Final = 65_535
_MAX_FRAME: Final = 16_384
_GIVEN_BACK: Final = 2**28
"""Received bytes after which the server may send as many more."""
_CANCEL: Final = struct.pack("!I", 0x8)
_FRAME: Final = struct.Struct("!BHBBI")
_READ_BYTES: Final = 1 << 18
_STATUS: Final = b"grpc-status"
OK, DEADLINE_EXCEEDED, SHED, UNAVAILABLE = 0, 4, 8, 14
"""gRPC's numbers of statuses."""


class Connection:
    """One connection; calls are named by the number that `send` gives them.

    Args: target: HOST:PORT, without TLS; method: "/package.Service/Method".
    """

    def __init__(self, target: str, method: str, timeout_s: float = 0.0) -> None:
        host, _, port = target.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), 30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._headers = _request_headers(target, method, timeout_s)
        self._next_stream = 1
        self._calls: dict[int, int] = {}
        self._with_data: set[int] = set()
        self._in, self._received = b"", 0
        self._send_window = _FIRST_WINDOW
        settings = b"".join(
            struct.pack("!HI", *pair)
            for pair in ((_TABLE_SIZE, 0), (_PUSH, 0), (_STREAM_WINDOW, _MAX_WINDOW))
        )
        self._out = bytearray(_PREFACE + _frame(_SETTINGS, 0, 0, settings))
        self._out += _frame(_WINDOW, 0, 0, struct.pack("!I", _MAX_WINDOW - _FIRST_WINDOW))
        self._waiting: list[tuple[bytes, int]] = []
        """Requests that the server's window has no room for: frames, and their bytes that it counts."""
        self.open = True
        """False: the server takes no more calls on it; those in progress may end."""
        self.flush()

    @property
    def num_calls(self) -> int:
        """Count the calls in progress."""
        return len(self._calls)

    @property
    def wants_to_write(self) -> bool:
        """Tell whether bytes wait until the socket takes them."""
        return bool(self._out)

    def send(self, number: int, request: bytes) -> int:
        """Begin a call with a request of less than 16 kB, one frame; return its stream, for `cancel`."""
        assert len(request) < _MAX_FRAME - 5, "a larger request takes several frames"
        stream = self._next_stream
        self._next_stream += 2
        self._calls[stream] = number
        message = b"\0" + len(request).to_bytes(4) + request
        frames = _frame(_HEADERS, _END_HEADERS, stream, self._headers)
        self._waiting.append((frames + _frame(_DATA, _END_STREAM, stream, message), len(message)))
        self._send_waiting()
        return stream

    def cancel(self, stream: int) -> bool:
        """Give a call up; return False when it has ended already."""
        if self._calls.pop(stream, None) is None:
            return False
        self._with_data.discard(stream)
        self._out += _frame(_RESET, 0, stream, _CANCEL)
        self.flush()
        return True

    def flush(self) -> None:
        """Send what the socket takes now."""
        try:
            while self._out:
                del self._out[: self.socket.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            self.open = False
            self._out.clear()

    def receive(self) -> Iterator[tuple[int, int]]:
        """Read what is there; give the number and the status of each call that has ended."""
        try:
            data = self.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.open = False
            yield from ((number, UNAVAILABLE) for number in self._calls.values())
            self._calls.clear()
            return
        data, at = self._in + data, 0
        while len(data) - at >= 9:
            high, low, kind, flags, stream = _FRAME.unpack_from(data, at)
            end = at + 9 + (high << 16 | low)
            if end > len(data):
                break
            if (ended := self._read(kind, flags, stream & _MAX_WINDOW, data, at + 9, end)) is not None:
                yield ended
            at = end
        self._in = data[at:]
        if self._out:
            self.flush()

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def _read(
        self, kind: int, flags: int, stream: int, data: bytes, start: int, end: int
    ) -> tuple[int, int] | None:
        if kind == _DATA:
            self._with_data.add(stream)
            self._give_back(end - start)
        elif kind == _HEADERS:
            if flags & _END_STREAM:
                return self._ended(stream, _status(data, start, end))
        elif kind == _RESET:
            return self._ended(stream, UNAVAILABLE)
        elif kind == _SETTINGS and not flags & _ACK:
            self._out += _frame(_SETTINGS, _ACK, 0, b"")
        elif kind == _PING and not flags & _ACK:
            self._out += _frame(_PING, _ACK, 0, data[start:end])
        elif kind == _GO_AWAY:
            self.open = False
        elif kind == _WINDOW and stream == 0:
            self._send_window += int.from_bytes(data[start:end])
            self._send_waiting()
        return None

    def _ended(self, stream: int, status: int) -> tuple[int, int] | None:
        """End a call; one without an answer has not succeeded."""
        number = self._calls.pop(stream, None)
        answered = stream in self._with_data
        self._with_data.discard(stream)
        if number is None:  # it was cancelled
            return None
        return number, UNAVAILABLE if status == OK and not answered else status

    def _give_back(self, num_bytes: int) -> None:
        self._received += num_bytes
        if self._received >= _GIVEN_BACK:
            self._out += _frame(_WINDOW, 0, 0, struct.pack("!I", self._received))
            self._received = 0

    def _send_waiting(self) -> None:
        """Send requests while the connection's window has room."""
        sent = 0
        for frames, counted in self._waiting:
            if counted > self._send_window:
                break
            self._send_window -= counted
            self._out += frames
            sent += 1
        del self._waiting[:sent]
        self.flush()


def _status(data: bytes, start: int, end: int) -> int:
    """Read the status of a block of trailers: its name as text, the value's length, and the value."""
    at = data.find(_STATUS, start, end)
    if at < 0:
        return UNAVAILABLE
    first = at + len(_STATUS) + 1
    return int(data[first : first + data[first - 1]])


def _request_headers(target: str, method: str, timeout_s: float) -> bytes:
    """Encode a call's headers: of the static table where it has them, else as text, never indexed."""
    block = b"\x83\x86"  # :method POST, :scheme http
    block += b"\x04" + _text(method) + b"\x01" + _text(target)  # :path, :authority
    block += b"\x0f\x10" + _text("application/grpc")  # content-type
    block += b"\x00" + _text("te") + _text("trailers")
    if timeout_s:
        block += b"\x00" + _text("grpc-timeout") + _text(f"{round(1000 * timeout_s)}m")
    return block


def _text(value: str) -> bytes:
    data = value.encode()
    assert len(data) < 127, "a longer text has a longer length"
    return bytes([len(data)]) + data


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _FRAME.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload
