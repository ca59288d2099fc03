"""How long until a real server answers with the version before, counted from `recsys bundle rollback`."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.nightly.crash import DIALS, small_config
from recsys.config_view import values
from recsys.errors import DataError
from recsys.log import InteractionLog
from recsys.registry import Registry
from recsys.settings import to_toml
from recsys.simulator.log_writer import write_log
from recsys.simulator.shop import Shop
from serving.client import RecsysClient

_START_S = 600.0
_LOOK_S = 0.02


def measure_rollback(seed: int) -> dict[str, Any]:
    """Roll back in front of a server, quietly and while a night runs; give the seconds of each."""
    with TemporaryDirectory(prefix="recsys-rollback-") as name:
        folder = Path(name)
        config = folder / "config.toml"
        config.write_text(to_toml(values(small_config())), encoding="utf-8")
        for _ in write_log(Shop.from_seed(DIALS, seed), InteractionLog(folder / "log")):
            pass
        where = ["--config", str(config), "--log", str(folder / "log"), "--runs", str(folder / "runs")]
        first = DIALS.last_day - timedelta(days=2)
        _run(["nightly", *where, "--backfill", f"{first}:{DIALS.last_day - timedelta(days=1)}"])
        before, live = _versions(folder)
        with _serving(where, folder) as client:
            quiet = _rolled_back(client, where, before)
            _run(["bundle", "activate", live, *where[:2], *where[4:]])
            _until(client, live)
            night = _start(["nightly", *where, "--date", str(DIALS.last_day)])
            try:
                _until_locked(folder / "runs", night)
                during = _rolled_back(client, where, before)
                runs_on = night.poll() is None
            finally:
                night.terminate()
                night.wait()
    return {"rollback_seconds": quiet, "during_a_night_seconds": during, "night_ran_on": runs_on}


def _rolled_back(client: RecsysClient, where: Sequence[str], before: str) -> dict[str, float]:
    """Roll back; give seconds until the server answered with the version before, and the command ended.

    Its processor seconds too: they depend less on what else runs.
    """
    began, used_s = time.monotonic(), _children_s()
    command = _start(["bundle", "rollback", *where[:2], *where[4:]])
    _until(client, before)
    answered = time.monotonic() - began
    if command.wait() != 0:
        raise DataError(f"recsys bundle rollback ended with {command.returncode}; run it by hand to see why")
    return {
        "until_answered": round(answered, 2),
        "until_the_command_ended": round(time.monotonic() - began, 2),
        "processor_seconds_of_the_command": round(_children_s() - used_s, 2),
    }


def _children_s() -> float:
    """Give the processor seconds of child processes that have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _until(client: RecsysClient, version: str) -> None:
    deadline = time.monotonic() + _START_S
    while client.recommend("somebody", 5, debug={"do_not_log": True}).bundle_version != version:
        if time.monotonic() > deadline:
            raise DataError(f"the server never answered with {version}; look at its log")
        time.sleep(_LOOK_S)


def _until_locked(runs: Path, night: "subprocess.Popen[bytes]") -> None:
    """Wait until a night holds its lock."""
    while night.poll() is None and not (runs / "registry" / "nightly.lock").read_text():
        time.sleep(_LOOK_S)


def _versions(folder: Path) -> tuple[str, str]:
    registry = Registry(folder / "runs")
    live = registry.current()
    before = registry.activations.before(live)
    if live is None or before is None:
        raise DataError(f"the two nights of {folder} did not both go live; run them by hand to see why")
    return before, live


@contextmanager
def _serving(where: Sequence[str], folder: Path) -> Iterator[RecsysClient]:
    ports = folder / "ports.json"
    listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--port-file", str(ports)]
    server = _start(["serve", *where, *listen])
    try:
        deadline = time.monotonic() + _START_S
        while not ports.is_file() and server.poll() is None and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        with RecsysClient(f"127.0.0.1:{json.loads(ports.read_text())['port']}", timeout_s=60.0) as client:
            yield client
    finally:
        server.terminate()
        server.wait()


def _start(arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "recsys", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _run(arguments: Sequence[str]) -> None:
    """Run a command to its end.

    Raises: DataError when it fails.
    """
    if (code := _start(arguments).wait()) != 0:
        raise DataError(f"recsys {' '.join(arguments[:2])} ended with {code}; run it by hand to see why")
