"""Prepares a version in a process of its own, so that hashing and encoding hold no Python lock of a server.

While something answers already the process has the lowest priority: it computes when no request does. Where
other programs never leave it the processor, it starts over with the server's own priority.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import structlog

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
_PATIENCE_S = 60.0
"""So long an idle child computes before it is asked whether it gets on …"""
_LEAST_SHARE = 0.1
"""… which it does not with a smaller share of one processor: a night waits for servers, but not for ever."""

_log = structlog.get_logger(__name__)


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
        if self.urgent:
            self._run(source, [target, final], "urgent", lock)
        elif not self._run(source, [target, final], "idle", lock):
            _log.warning(
                "preparation_starved", path=str(source), seconds=_PATIENCE_S, remedy="it starts over"
            )
            shutil.rmtree(target, ignore_errors=True)
            self._run(source, [target, final], "own", lock)

    def _run(self, source: Path, folders: list[Path], priority: str, lock: int) -> bool:
        """Return whether a child has prepared the version; not, where an idle one gets no processor."""
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, str(source), *map(str, folders), priority],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pass_fds=(lock,),
            start_new_session=True,  # Ctrl-C is for the server, which ends it
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        try:
            output = self._wait(child, patient=priority != "idle")
        finally:
            _end(child)
        if output is None:
            return folders[-1].exists()  # it may have ended meanwhile
        _check(child.returncode, output, source)
        return True

    def _wait(self, child: subprocess.Popen[bytes], *, patient: bool) -> bytes | None:
        """Return what it printed; None where it has had next to no processor since it was last asked."""
        asked_at, used = time.monotonic(), 0.0
        while True:
            if self._stopped.is_set():
                raise BundleError("the server stops")
            with suppress(subprocess.TimeoutExpired):
                return child.communicate(timeout=_POLL_S)[0]
            if not patient and (waited := time.monotonic() - asked_at) > _PATIENCE_S:
                before, used = used, _processor_s(child.pid)
                if used - before < _LEAST_SHARE * waited:
                    return None
                asked_at += waited


def _processor_s(pid: int) -> float:
    """Return a process's processor seconds; infinite where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return math.inf
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
