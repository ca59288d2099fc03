"""A held port: the holder's workers may listen on it and share it, another server may not."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import grpc
import pytest

from recsys.errors import ConfigError
from serving.processes.ports import held_port, port_of

REUSE_PORT = "grpc.so_reuseport"


def grpc_server(address: str, *, shared: bool) -> grpc.Server:
    server = grpc.server(ThreadPoolExecutor(1), options=((REUSE_PORT, int(shared)),))
    server.add_insecure_port(address)
    return server


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "[::1]"])
def test_workers_share_a_held_port_which_no_other_server_gets(host) -> None:
    with held_port(f"{host}:0", "--listen") as address, ExitStack() as stack:
        assert port_of(address) > 0
        for listening in range(3):  # also while no worker listens: that is when a worker is being replaced
            with pytest.raises(RuntimeError, match="Failed to bind"):
                grpc_server(address, shared=False)
            taken = f"--listen {address} cannot be bound: another process has the port".replace("[", r"\[")
            with pytest.raises(ConfigError, match=taken), held_port(address, "--listen"):
                pass
            if listening < 2:
                stack.callback(grpc_server(address, shared=True).stop, 0)


def test_nobody_is_connected_to_the_holder_and_connections_are_shared_out() -> None:
    with held_port("127.0.0.1:0", "--listen") as address, ExitStack() as stack:
        where = ("127.0.0.1", port_of(address))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(where)
        workers = [stack.enter_context(socket.create_server(where, reuse_port=True)) for _ in range(2)]
        for _ in range(64):
            stack.enter_context(socket.create_connection(where))
        counts = [_accept_all(worker) for worker in workers]
    assert sum(counts) == 64
    assert min(counts) > 8


def _accept_all(listener: socket.socket) -> int:
    listener.settimeout(0.05)
    count = 0
    with suppress(TimeoutError):
        while True:
            listener.accept()[0].close()
            count += 1
    return count


def test_what_is_left_of_an_earlier_servers_connections_does_not_hold_up_a_start() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    where = listener.getsockname()
    with socket.create_connection(where) as client:
        listener.accept()[0].close()  # the server closes first, and its end waits for a minute
        assert client.recv(1) == b""
    listener.close()
    with pytest.raises(OSError, match="already in use"), socket.socket() as plain:
        plain.bind(where)
    with (
        held_port(f"127.0.0.1:{where[1]}", "--listen") as address,
        pytest.raises(ConfigError, match="another process has the port"),
        held_port(address, "--listen"),
    ):
        pass


def test_of_many_that_start_at_the_same_moment_one_gets_the_port() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    barrier, all_tried = threading.Barrier(8), threading.Barrier(8)

    def start(_: int) -> bool:
        with ExitStack() as stack:
            barrier.wait()
            try:
                stack.enter_context(held_port(address, "--listen"))
                return True
            except ConfigError:
                return False
            finally:
                all_tried.wait()

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(start, range(8))) == 1


def test_two_that_are_bound_at_the_same_moment_are_told_apart() -> None:
    """Both bind before either listens: `SO_REUSEADDR` allows that."""
    with socket.socket() as first:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{first.getsockname()[1]}"
        with held_port(address, "--listen"), pytest.raises(OSError, match="already in use"):
            first.listen()


def test_a_host_that_is_not_this_machine() -> None:
    message = "--admin-listen 192.0.2.1:1 cannot be bound: Cannot assign requested address"
    with pytest.raises(ConfigError, match=message), held_port("192.0.2.1:1", "--admin-listen"):
        pass
