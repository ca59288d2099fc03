"""Prepares a version in a process of its own, so that hashing and encoding hold no Python lock of a server.

While something answers already the process has the lowest priority: it computes when no request does.
"""

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from recsys.errors import BundleError
from recsys.manifest import read_manifest
from serving.prepared.process import FAILED

_SMALL_BYTES = 64 << 20
"""A smaller bundle is prepared here, sooner than a process starts, while nothing answers …"""
_TINY_BYTES = 8 << 20
"""… and a smaller one than this (some 10,000 items) always: it takes half a second beside requests."""
_START = "from serving.prepared.process import main; main()"
_POLL_S = 0.05
_GRACE_S = 5.0


class ChildPreparer:
    """Fills folders of prepared versions, in a child process where that is worth one."""

    def __init__(self) -> None:
        self.urgent = True
        """Whether nothing answers yet: the child then has the server's own priority."""
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the child that is at work."""
        self._stopped.set()

    def __call__(self, source: Path, target: Path, final: Path, lock: int) -> None:
        """Make and fill a folder, then give it its final name.

        Args: lock: file that the child keeps locked, should this process die before it.
        Raises: BundleError; OSError, or an error of Polars, when there is no room.
        """
        size = sum(entry.size for entry in read_manifest(source).files.values())
        if size < (_SMALL_BYTES if self.urgent else _TINY_BYTES):
            from serving.prepared.prepare import prepare

            prepare(source, target, final)
            return
        given = [str(source), str(target), str(final), "urgent" if self.urgent else "idle"]
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, *given],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pass_fds=(lock,),
            start_new_session=True,  # Ctrl-C is for the server, which ends it
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        try:
            output = self._wait(child)
        finally:
            _end(child)
        _check(child.returncode, output, source)

    def _wait(self, child: subprocess.Popen[bytes]) -> bytes:
        while True:
            if self._stopped.is_set():
                raise BundleError("the server stops")
            with suppress(subprocess.TimeoutExpired):
                return child.communicate(timeout=_POLL_S)[0]


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _check(code: int, output: bytes, source: Path) -> None:
    if code == 0:
        return
    if code == FAILED:
        with suppress(ValueError):
            said = json.loads(output)
            raise OSError(0, said["disk"]) if said["disk"] else BundleError(said["error"])
    how = f"ended with {code}" if code > 0 else f"was killed by signal {-code}, perhaps for want of memory"
    raise BundleError(f"the process that prepares {source} {how}; see the server's log")
