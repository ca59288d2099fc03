"""A `python` whose modules are imported already: commands that are not about starting run as its copies.

`python copied_python.py serve SOCKET PYTHON` imports what commands need, and forks for each call. The file
PYTHON that a test writes (`copied_python` in conftest.py) takes the arguments of `python`, passes them with
its own folder, environment and streams through SOCKET, passes signals on, and ends as the copy does.
"""

import json
import os
import runpy
import select
import signal
import socket
import sys
from contextlib import suppress
from importlib import import_module

MODULES = (
    "features.commands",
    "recsys.simulator.log_writer",
    "serving.app",
    "serving.commands",
    "serving.demo.run",
    "training.commands",
    "training.evaluation.evaluate",
    "training.night.run",
)
"""What commands import on use; nothing of it starts a thread, so forks are safe."""
CODE = 4
"""Bytes of an exit code."""


def serve(path: str, python: str) -> None:
    """Answer calls until standard input ends: whoever started this is gone then."""
    for name in MODULES:
        import_module(name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the copies
    woken, wakes = os.pipe2(os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes)
    callers: dict[int, socket.socket] = {}
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(path)
        door.listen()
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([door, woken, sys.stdin, *callers.values()], [], [])
            if sys.stdin in ready:
                break
            if door in ready:
                _begin(door, python, callers)
            if woken in ready:
                os.read(woken, 4096)
            _end(callers, [caller for caller in callers.values() if caller in ready])
    for pid in callers:
        os.kill(pid, signal.SIGKILL)


def _begin(door: socket.socket, python: str, callers: dict[int, socket.socket]) -> None:
    caller, _ = door.accept()
    size, streams, _, _ = socket.recv_fds(caller, CODE, 3)
    order = b""
    while len(order) < int.from_bytes(size, "big"):
        part = caller.recv(1 << 20)
        if not part:  # its caller is gone
            for stream in streams:
                os.close(stream)
            caller.close()
            return
        order += part
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        for kept in (caller, door, *callers.values()):
            kept.close()
        _be(streams, python, **json.loads(order))
    for stream in streams:
        os.close(stream)
    caller.sendall(pid.to_bytes(CODE, "big"))
    callers[pid] = caller


def _end(callers: dict[int, socket.socket], gone: list[socket.socket]) -> None:
    """Tell callers of copies that have ended; end copies whose caller was killed."""
    for pid, caller in list(callers.items()):
        if caller in gone:
            os.kill(pid, signal.SIGKILL)
        ended, status = os.waitpid(pid, 0 if caller in gone else os.WNOHANG)
        if ended:
            with suppress(OSError):  # it is gone by now
                caller.sendall(os.waitstatus_to_exitcode(status).to_bytes(CODE, "big", signed=True))
            callers.pop(pid).close()


def _be(streams: list[int], python: str, arguments: list[str], folder: str, environment: dict) -> None:
    """Run `python ARGUMENTS` in this process, and end it."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.executable = python
    flag, program, *words = arguments
    assert flag == "-m", f"python {flag}: only modules are run as copies"
    sys.argv, code = ["python", *words], 1
    try:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def call(path: str, arguments: list[str]) -> int:
    """Have a copy run `python ARGUMENTS`; give its exit code, negative for a signal."""
    order = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
    text = json.dumps(order).encode()
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(path)
        socket.send_fds(door, [len(text).to_bytes(CODE, "big")], [0, 1, 2])
        door.sendall(text)
        pid = int.from_bytes(door.recv(CODE), "big")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: os.kill(pid, number))
        code = door.recv(CODE)
    return int.from_bytes(code, "big", signed=True) if code else 1


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(*sys.argv[2:])
    else:
        ended = call(sys.argv[2], sys.argv[3:])
        if ended < 0:
            signal.signal(-ended, signal.SIG_DFL)
            os.kill(os.getpid(), -ended)
        sys.exit(ended)
