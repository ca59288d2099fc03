"""What proves a version on its way to live: a server of its own before, the running servers after.

`check_in_server` runs `recsys serve --check` as a process: this room does not import the one that serves.
`await_servers` reads leases: a server renews its own every ten seconds, and a version counts as answered with
when all that are renewed name it.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from recsys.config_view import values
from recsys.records import CHECK_FAILED
from recsys.registry import LEASE_S, SKEW_S, Registry
from recsys.scratch import age_s
from recsys.settings import to_toml
from training.night.night import Night

_LOOK_S = 0.2
_SAID_LETTERS = 500


def check_in_server(night: Night, version: str) -> str | None:
    """Let a real server load a version and answer requests; say what was wrong, None: nothing.

    Its base has to be in the store; the pointers need not name it.
    """
    settings = night.config.publish
    with TemporaryDirectory(prefix="recsys-night-check-") as name:
        config = Path(name) / "config.toml"
        config.write_text(to_toml(values(night.config)), encoding="utf-8")
        command = [
            *(sys.executable, "-m", "recsys", "serve", "--check", version, "--json", "-"),
            *("--config", str(config), "--log", str(night.log.root), "--runs", str(night.runs)),
        ]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=settings.check_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"a server did not answer with it within [publish] check_s = {settings.check_s:g} s"
    return None if done.returncode == 0 else _said(done)


def await_servers(
    registry: Registry,
    version: str,
    within_s: float,
    loading_s: float = 0.0,
    *,
    sleep: Callable[[float], None] = time.sleep,
    now_s: Callable[[], float] = time.monotonic,
) -> str | None:
    """Wait until every running server answers with a version; say which do not, None: all do, or none runs.

    A server is running if its lease was renewed since the wait began; a lease that is merely young may be of
    one that was killed: it is waited for, and does not count in the end. One that names no version has
    stopped, or has no bundle yet and nothing to go on with.

    Args: within_s: longest wait; loading_s: longest wait for servers that are loading the version, if it is
    more; sleep, now_s: for tests.
    """
    start_s = now_s()
    began = registry.answering()
    while True:
        found = registry.answering()
        renewed = {server for server, lease in found.items() if began.get(server, ("", 0.0))[1] != lease[1]}
        lagging = [server for server, (answers, _) in found.items() if answers not in (version, None)]
        young = [server for server in lagging if server in renewed or _is_young(registry, server)]
        if not young:
            return None
        waited_s = now_s() - start_s
        if waited_s >= within_s:
            behind = sorted(set(young) & renewed)
            if not behind:
                return None
            if waited_s < loading_s and registry.holding(version).issuperset(behind):
                sleep(_LOOK_S)
                continue
            others = ", ".join(f"{name} answers with {found[name][0]}" for name in behind)
            return (
                f"{len(behind)} of {len(renewed)} servers did not take it within {waited_s:.0f} s: {others}; "
                "their logs (`reload_failed`) say why"
            )
        sleep(_LOOK_S)


def _is_young(registry: Registry, server: str) -> bool:
    return age_s(registry.folder / "leases" / f"{server}.json") < LEASE_S + SKEW_S


def _said(done: "subprocess.CompletedProcess[str]") -> str:
    """Give what the check found, or why it could not be made."""
    if done.returncode == CHECK_FAILED:
        wrong = [f"{f['name']}: {f['detail']}" for f in json.loads(done.stdout)["findings"] if not f["ok"]]
        return f"a server does not answer with it: {'; '.join(wrong)}"
    lines = done.stderr.strip().splitlines() or ["it said nothing"]
    return f"a server could not try it (exit code {done.returncode}): {lines[-1][:_SAID_LETTERS]}"
