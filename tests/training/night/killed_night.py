"""A toy night that is killed before each of its file operations in turn, and run again: a program of its own.

In a second round the disk is full from that operation on. It forks: nothing here has started a thread before.
Usage: killed_night.py FOLDER; JSON on standard output.
"""

import errno
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.store import open_store
from recsys.bundle import BundleParts, save_bundle
from recsys.config import parse_config
from recsys.encoding import EncoderState
from recsys.errors import RecsysError
from recsys.log import InteractionLog
from recsys.records import NightRecord, Ruling, Verdict
from recsys.user_key import FILE
from training.night import extent, run
from training.night.go_live import move
from training.night.night import Night
from training.night.step import Stage

DAY = date(2026, 1, 29)
OPERATIONS = ("replace", "rename", "mkdir", "rmdir", "unlink")
WRITING = ("replace", "rename", "mkdir", "fsync")
"""What a full disk refuses; taking away goes on."""
BEGINNING, FURTHER = 6, 7
"""The disk is full from each of the first operations on, then from every seventh."""
FSYNC = os.fsync
KILLED, REFUSED = 9, 3
CONFIG = parse_config(
    {
        "task": [{"name": "click", "feedback": "click", "head": "binary", "window": "1h"}],
        "model": {"embedding_dim": 8},
    },
    "toy",
)


def _kept(step: Any, **inputs: Any) -> Path:
    def build(folder: Path) -> dict[str, Any]:
        (folder / "part").mkdir()
        (folder / "part" / "made").write_text(f"{step.stage.name} of {list(inputs)}")
        return {}

    return step.kept(build)


def _bundle(step: Any, **_: Any) -> str:
    def build(_: Path) -> dict[str, Any]:
        parts = BundleParts(
            date=str(DAY), parent=None, refitted=False, config=CONFIG, inputs={},
            encoder=EncoderState(vocabularies={}, numbers={}), calibration={},
            weights={"w": np.zeros(1, np.float32)}, items=pl.DataFrame({"item_id": ["i"]}),
            item_embeddings_ID=np.ones((1, 2), np.float32), popular=pl.DataFrame({"item_id": ["i"]}),
            snapshot_at_ms=1,
        )  # fmt: skip
        return {"version": save_bundle(step.night.registry.bundles, parts, lambda _: pl.DataFrame({"u": []}))}

    return step.kept_bundle(build)


def _record(step: Any, *, live: str) -> None:
    made = step.night.registry.record(live) or NightRecord(
        version=live, night=DAY, verdict=Verdict.PROMOTE, champion=None, evaluated=live, cold_since=DAY,
        start="cold", trained_until={}, lags={}, checks=(), findings={}, accepted=(), seconds=0.0,
    )  # fmt: skip
    ruling = Ruling(at=datetime(2026, 1, 30, tzinfo=UTC), by="gate", verdict=Verdict.PROMOTE)
    step.night.registry.write_record(made.ruled(ruling))


def _publish(step: Any, *, live: str, pointed: Any) -> Any:
    with closing(open_store(step.config.store, step.night.runs)) as store:
        store.publish(live, [("u", b"x")], {}, 1)
        if step.night.registry.current() != live:
            ending = move(step.night, store, live, pointed)
            assert ending.live, ending
        store.gc({live}, 0)


STAGES = (
    Stage(name="encode", keys=(), inputs=(), output="rows", run=_kept),
    Stage(name="learn", keys=(), inputs=("rows",), output="weights", run=_kept),
    Stage(name="bundle", keys=(), inputs=("weights",), output="live", run=_bundle),
    Stage(name="record", keys=(), inputs=("live",), output=None, run=_record),
    Stage(name="publish", keys=("store",), inputs=("live", "pointed"), output="ending", run=_publish),
)


def night(runs: Path, kill_at: int | None, full_at: int | None = None) -> int:
    """Run the toy night in a child, which dies before its operation of this number; give how it ended.

    Args: full_at: from this writing operation on, the disk is full.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        _count(kill_at) if full_at is None else _fill(full_at)
        made = Night(config=CONFIG, log=InteractionLog(runs.parent / "log"), runs=runs, date=DAY)
        run._walk(made, None, None)
        code = 0
    except RecsysError as error:
        code = REFUSED if "No space left" in str(error) else code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _fill(left: int) -> None:
    """Let the disk be full after so many operations that write."""
    done = iter(range(left))
    for name in WRITING:
        do: Callable[..., Any] = getattr(os, name)

        def refused(*args: Any, _do: Callable[..., Any] = do, **kwargs: Any) -> Any:
            if next(done, None) is None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(args[0]))
            return None if _do is FSYNC else _do(*args, **kwargs)

        setattr(os, name, refused)


def _count(kill_at: int | None) -> None:
    os.fsync = lambda _: None  # no power is cut here
    left = [kill_at]
    for name in OPERATIONS:
        do: Callable[..., Any] = getattr(os, name)

        def counted(*args: Any, _do: Callable[..., Any] = do, **kwargs: Any) -> Any:
            if left[0] is not None:
                left[0] -= 1
                if left[0] < 0:
                    os._exit(KILLED)
            return _do(*args, **kwargs)

        setattr(os, name, counted)


def state(runs: Path) -> dict[str, Any]:
    """Say what is there and what it holds, but for times."""
    found: dict[str, Any] = {}
    for path in sorted(runs.rglob("*")):
        name = str(path.relative_to(runs))
        if path.is_dir() or path.suffix in (".lock", ".sqlite-wal", ".sqlite-shm") or path.name == ".lock":
            continue
        text = path.read_bytes()
        if path.name == FILE:  # each runs folder has a key of its own
            text = str(len(text)).encode()
        if path.parent.parent.parent.name == "stages" and path.name == "manifest.json":
            said = json.loads(text)
            said["files"] = {file: entry[:2] for file, entry in said["files"].items()}
            text = json.dumps(said).encode()
        elif path.name in ("activations.jsonl", "files.json") or path.parent.name in ("indexes", "store"):
            text = b"" if path.name != "CURRENT" else text
        found[name] = text.hex()
    return found


def later(runs: Path) -> None:
    """Let a minute pass for what lies there."""
    for path in runs.rglob(".*"):
        os.utime(path, (0, path.stat().st_mtime - 61))


def main(folder: Path) -> None:
    """Kill the night before each operation, and say how what the next run gives differs from calm."""
    extent.STAGES = STAGES  # type: ignore[assignment]
    import_module("features.store.sqlite")  # else every child does
    assert night(folder / "calm", None) == 0
    calm = state(folder / "calm")
    tried, filled, ended_badly = 0, 0, []
    while (code := night(folder / f"full-{filled}", None, filled)) != 0:
        runs = folder / f"full-{filled}"
        later(runs)
        if code != REFUSED or night(runs, None) != 0 or state(runs) != calm:
            ended_badly.append([filled, code])
        shutil.rmtree(runs, ignore_errors=True)
        tried, filled = tried + 1, filled + (1 if filled < BEGINNING else FURTHER)
    kills, different, activations = 0, [], []
    while True:
        runs = folder / f"kill-{kills}"
        if night(runs, kills) != KILLED:
            break
        later(runs)
        assert night(runs, None) == 0, kills
        found = state(runs)
        if found != calm:
            differs = sorted(k for k in {*found, *calm} if found.get(k) != calm.get(k))
            different.append([kills, differs])
        lines = (runs / "registry" / "activations.jsonl").read_text().splitlines()
        activations.append(sum(json.loads(line)["previous"] is not None for line in lines))
        shutil.rmtree(runs)
        kills += 1
    found = {"kills": kills, "different": different, "double_activations": sum(activations)}
    print(json.dumps({**found, "filled": tried, "ended_badly": ended_badly}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
