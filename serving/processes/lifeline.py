"""Ends a worker with its parent, however the parent ends: nobody would be left to replace or to stop it."""

import os
import signal
import sys
import threading


def hold_lifeline(limit_s: int) -> None:
    """Send SIGTERM to this process when its standard input, a pipe that its parent holds, is closed.

    Args: limit_s: it is ended by force after so many more seconds.
    """
    threading.Thread(target=_wait, args=(limit_s,), name="lifeline", daemon=True).start()


def _wait(limit_s: int) -> None:
    # Without Python's buffer: at the interpreter's end a thread must not hold that buffer's lock.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    signal.alarm(limit_s)  # not a thread's job: this process may hang
    os.kill(os.getpid(), signal.SIGTERM)
