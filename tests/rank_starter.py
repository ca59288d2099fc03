"""Starts ranks as copies of itself: what every rank imports, three seconds of it, is imported once.

`python rank_starter.py` reads a line of JSON per launch: {arguments, processes, logs, folder, environment}.
It answers with [[rank, exit code], …], the first one that failed first.
"""

import contextlib
import json
import os
import runpy
import signal
import socket
import sys
import time
from pathlib import Path

import training.processes.rank  # noqa: F401 - for the copies

GRACE_S = 30.0
"""For ranks of which another has failed: each says itself what it has seen."""


def serve() -> None:
    for line in sys.stdin:
        print(json.dumps(_launched(**json.loads(line))), flush=True)


def _launched(arguments, processes, logs, folder, environment):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = {}
    for rank in range(processes):
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        own = {name: str(n) for name, n in (numbers | {"MASTER_PORT": port}).items()}
        pid = os.fork()
        if pid == 0:
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(environment | own | {"MASTER_ADDR": "127.0.0.1"})
            _be_rank(arguments, Path(logs) / str(rank))
        ranks[pid] = rank
    return _ended(ranks)


def _be_rank(arguments, logs):
    """Run `python ARGUMENTS` in this process, and end it."""
    logs.mkdir()
    for number in (1, 2):
        file = os.open(logs / f"{('stdout', 'stderr')[number - 1]}.log", os.O_CREAT | os.O_WRONLY)
        os.dup2(file, number)
    kind, program, *words = arguments
    sys.argv, code = [kind, *words], 1
    try:
        if kind == "-m":
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            exec(program, {"__name__": "__main__"})
        code = 0
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _ended(ranks):
    """Wait for all; once one has failed the others have a while to see it."""
    failed, left, deadline = [], dict(ranks), None
    while left:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            time.sleep(0.005)
            if deadline is not None and time.monotonic() > deadline:
                for one in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(one, signal.SIGKILL)
            continue
        code, rank = os.waitstatus_to_exitcode(status), left.pop(pid)
        if code:
            failed.append((rank, code))
            deadline = deadline or time.monotonic() + GRACE_S
    return failed


if __name__ == "__main__":
    serve()
