"""Holds a port that several worker processes listen on, so that no other server can.

With SO_REUSEPORT the kernel shares out new connections among the sockets that listen on one port. It would
also let a second server of the same user join them. So the parent makes the port its own first, as a server
without that option does, and only then opens it to its workers. Its own socket stays bound and does not
listen: it gets no connections, and keeps the port while a worker is being replaced.
"""

import contextlib
import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from serving.addresses import cannot_bind

_ATTEMPTS = 20
# A host may have addresses of a family that this machine does not have.
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@contextmanager
def held_port(address: str, option: str) -> Iterator[str]:
    """Hold HOST:PORT for the workers of this process; give the address with its port, a free one for port 0.

    Raises: ConfigError when it cannot be bound, as when another server has the port.
    """
    host, _, port = address.rpartition(":")
    with contextlib.ExitStack() as sockets:
        try:
            number = _hold_any(host, sockets) if port == "0" else _hold_all(host, int(port), sockets)
        except OSError as error:
            raise cannot_bind(address, option, error) from error
        yield f"{host}:{number}"


def port_of(address: str) -> int:
    """Return the port of HOST:PORT."""
    return int(address.rpartition(":")[2])


def _hold_any(host: str, sockets: contextlib.ExitStack) -> int:
    """Hold a free port on every address of a host; another process may take it in between, so try again."""
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(OSError):
            return _hold_all(host, _free_port(host), sockets)
    return _hold_all(host, _free_port(host), sockets)


def _hold_all(host: str, port: int, sockets: contextlib.ExitStack) -> int:
    """Hold a port on every address of a host, or on none."""
    with contextlib.ExitStack() as taken:
        absent: OSError | None = None
        count = 0
        for family, where in _resolve(host, port):
            try:
                taken.enter_context(_hold(family, where))
                count += 1
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                absent = error
        if absent is not None and not count:
            raise absent
        sockets.push(taken.pop_all())
    return port


def _hold(family: socket.AddressFamily, where: tuple[object, ...]) -> socket.socket:
    held = socket.socket(family, socket.SOCK_STREAM)
    try:
        # What is left of an earlier server's connections does not count. So two that start at the same moment
        # are both bound; only one of them can listen.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(where)
        held.listen(0)
        # From now on nobody may bind the port but sockets of this user that share it, which are the workers'.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.shutdown(socket.SHUT_RDWR)  # stays bound, and gets no connections
    except OSError:
        held.close()
        raise
    return held


def _free_port(host: str) -> int:
    # A port that the kernel chose is given back when its socket stops listening; one that was named is not.
    family, where = _resolve(host, 0)[0]
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind(where)
        return int(probe.getsockname()[1])


def _resolve(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[object, ...]]]:
    # gRPC listens on both for `localhost`, whatever this machine's list of hosts says.
    names = ("127.0.0.1", "::1") if host == "localhost" else (host.strip("[]"),)
    found = [one for name in names for one in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)]
    return list(dict.fromkeys((family, where) for family, _, _, _, where in found))
