"""Runs the parts in a worker process and watches the clock: a part that hangs or dies costs itself alone."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.commit import commit
from benchmarks.gpu.parts import PARTS

Tree = dict[str, Any]
LOOK_S = 0.1
MORE_TIME = "give more with --seconds, or run fewer parts with --part NAME"


def run_parts(names: Sequence[str], asked: Tree, limit_s: float, write: Callable[[Tree], None]) -> Tree:
    """Run parts in order; after each, `write` gets all that is known.

    Args: asked: what the worker needs beside the names; limit_s: of all parts together.
    """
    results = Path(asked["results"])
    results.touch()
    began = time.monotonic()
    tree: Tree = {
        "commit": commit(),
        "asked": {k: asked[k] for k in ("device", "inputs", "small")},
        "parts": {},
    }

    def ended(name: str, said: Tree) -> None:
        tree["parts"][name] = said.pop("found", said)
        tree["seconds"] = round(time.monotonic() - began, 1)
        print(_line(name, tree["parts"][name]), flush=True)
        write(tree)

    waiting = list(names)
    while waiting:
        left = limit_s - (time.monotonic() - began)
        if left <= 0:
            for name in waiting:
                ended(name, {"skipped": f"no time was left of {limit_s:.0f} s; {MORE_TIME}"})
            break
        waiting = _run_worker(waiting, asked, results, began + limit_s, ended)
    return tree


def _run_worker(
    names: list[str], asked: Tree, results: Path, deadline: float, ended: Callable[[str, Tree], None]
) -> list[str]:
    """Run a worker until it ends or a part takes too long; give the parts that are still to be run."""
    done = len(_lines(results))
    worker = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "benchmarks.gpu.worker",
            json.dumps({**asked, "parts": {name: PARTS[name].function for name in names}}),
        ],
        stdout=sys.stderr.fileno(),
        start_new_session=True,
    )
    waiting, since = list(names), time.monotonic()
    try:
        while waiting:
            alive = worker.poll() is None
            for said in _lines(results)[done:]:
                done += 1
                since = time.monotonic()
                if "began" not in said:
                    waiting.remove(name := said.pop("part"))
                    ended(name, said)
            if not waiting:
                break
            limit = min(since + PARTS[waiting[0]].limit_s, deadline)
            if not alive:
                if worker.returncode:  # else it has noted a failure, and leaves the rest to a fresh process
                    ended(waiting.pop(0), {"failed": f"the process ended with code {worker.returncode}"})
                break
            if time.monotonic() > limit:
                why = "the most that it may take" if limit < deadline else f"as all time is over; {MORE_TIME}"
                ended(waiting.pop(0), {"failed": f"not done after {time.monotonic() - since:.0f} s, {why}"})
                break
            time.sleep(LOOK_S)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    return waiting


def _lines(results: Path) -> list[Tree]:
    """Read the whole lines written so far."""
    text = results.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _line(name: str, said: Tree) -> str:
    """Say a part's end in a line."""
    for how in ("skipped", "failed"):
        if how in said:
            return f"{name}: {how}: {said[how]}"
    return f"{name}: {said['line']}"
