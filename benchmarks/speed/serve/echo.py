"""A gRPC server that answers every call with recorded bytes: what a call costs before we do anything.

`python -m benchmarks.speed.serve.echo ANSWER_FILE PORT_FILE THREADS [PORT]` has the server's library and
threads; it neither reads the request nor makes an answer. Several share a PORT, as worker processes do.
"""

import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from recsys.files import write_whole


class _Echo(grpc.GenericRpcHandler):  # type: ignore[misc,unused-ignore]
    def __init__(self, answer: bytes) -> None:
        self._handler: Any = grpc.unary_unary_rpc_method_handler(lambda *_: answer)

    def service(self, handler_call_details: Any) -> Any:
        return self._handler


def main(answer_file: Path, port_file: Path, threads: int, port: int) -> None:
    """Serve until SIGTERM."""
    options = (("grpc.so_reuseport", int(port > 0)),)
    server = grpc.server(ThreadPoolExecutor(threads), options=options)
    server.add_generic_rpc_handlers((_Echo(answer_file.read_bytes()),))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    server.start()
    write_whole(port_file, str(bound))
    stopping.wait()
    server.stop(0).wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else 0)
