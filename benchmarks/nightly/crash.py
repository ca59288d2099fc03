"""A real night of a tiny shop, killed at random instants and run again: does it end as an undisturbed one?

Children are forked from a process that has read the code and started no thread: a kill costs no start-up.
"""

import json
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from recsys.config import RunConfig, parse_config
from recsys.errors import DataError
from recsys.log import InteractionLog
from recsys.manifest import sha256_of
from recsys.simulator.dials import ShopDials
from recsys.simulator.log_writer import write_log
from recsys.simulator.shop import Shop
from recsys.user_key import PUBLIC, write_user_key
from training.night.night import Night
from training.night.run import run_night
from training.threads import use_threads

DAY = date(2026, 1, 30)
DIALS = ShopDials(
    users=25, items=100, days=6, requests_per_user_day=4.0, candidates=60, click_base=-3.0, last_day=DAY
)
TEMPORARY_S = 61.0
"""A temporary file is collected when it is a minute old: so much older each is made before the last run."""
_LOOK_S = 0.005
LONGEST = 1.5
"""A night may have so many times what an undisturbed one takes: even without progress it ends at times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """What kills did to nights."""

    kills: int
    nights: int
    different_hashes: int
    """Nights whose files differ from those of the undisturbed one."""
    double_activations: int
    litter: int
    """Hidden files and folders left after the next run, but for locks."""
    rerun_seconds: float
    """A finished night run again."""
    night_seconds: float

    def to_json(self) -> dict[str, object]:
        """Give it as JSON values."""
        said = asdict(self)
        seconds = {key: round(said.pop(key), 2) for key in ("night_seconds", "rerun_seconds")}
        return {**seconds, "crash": said}


def small_config() -> RunConfig:
    """Give a config whose night takes seconds; the shop is too small for the gate to decide."""
    tasks = [
        {"name": "click", "feedback": "click", "head": "binary", "window": "1h"},
        {"name": "purchase", "feedback": "purchase", "head": "binary", "window": "2h", "parent": "click"},
    ]
    return parse_config(
        {
            "task": tasks,
            "features": {"history_length": 5, "text_dim": 4},
            "model": {"head_hidden": 8, "tower_hidden": 16, "embedding_dim": 8, "attention_dim": 8,
                      "trunk": {"hidden": [16, 8], "num_experts": 2}},
            "training": {"batch_size": 256, "precision": "fp32"},
            "retrieval": {"num_uniform": 32},
            "gate": {"min_rows": 100_000, "underpowered": "promote"},
            "validation": {"min_expected": 100_000},
            "publish": {"check": False},  # a process of seconds, in which a kill changes nothing
        },
        "bench nightly",
    )  # fmt: skip


def measure_crash(config: RunConfig, kills: int, seed: int) -> Crash:
    """Kill nights until there were so many kills; each is run until it ends.

    Args: config: of a small model; seed: of the shop and of the instants.
    """
    draw = random.Random(seed)
    with TemporaryDirectory(prefix="recsys-crash-") as name:
        folder = Path(name)
        log = InteractionLog(folder / "log")
        _wait(log.root, _start(partial(_write_log, log, seed)))
        calm = Night(config=config, log=log, runs=folder / "calm", date=DAY)
        write_user_key(calm.runs, PUBLIC)
        before_s = _children_s()
        night_s = _run(calm)
        processor_s = _children_s() - before_s
        rerun_s = _run(calm)
        expected = state(calm.runs)
        done = 0
        found: list[Night] = []
        while done < kills:
            night = Night(config=config, log=log, runs=folder / f"night-{len(found)}", date=DAY)
            write_user_key(night.runs, PUBLIC)
            while _killed(night, draw.uniform(0, LONGEST * processor_s)):
                done += 1
            _age(night.runs)
            _run(night)
            found.append(night)
        return Crash(
            kills=done,
            nights=len(found),
            different_hashes=sum(state(night.runs) != expected for night in found),
            double_activations=sum(_activations(night.runs) != 1 for night in found),
            litter=sum(len(litter(night.runs)) for night in found),
            rerun_seconds=rerun_s,
            night_seconds=night_s,
        )


def state(runs: Path) -> dict[str, str]:
    """Hash what stages, bundles and the pointers hold; manifests of stages name times and inodes."""
    found = {}
    for place in ("stages", "bundles"):
        for path in (runs / place).rglob("*"):
            if path.is_file() and not (place == "stages" and path.name in ("manifest.json", "files.json")):
                found[str(path.relative_to(runs))] = sha256_of(path)
    for pointer in ("registry/CURRENT", "store/CURRENT"):
        found[pointer] = (runs / pointer).read_text()
    return found


def _run(night: Night) -> float:
    """Run a night in a child; give its seconds."""
    began = time.perf_counter()
    _wait(night.runs, _start(partial(run_night, night)))
    return time.perf_counter() - began


def _children_s() -> float:
    """Give the processor seconds of the children that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def _killed(night: Night, after_s: float) -> bool:
    """Start a night and kill it after some processor time; say whether that was before its end.

    A busy machine gives it less of a second: the same kills would come earlier and earlier.
    """
    child = _start(partial(run_night, night))
    while _processor_s(child) < after_s:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return not _ended(night.runs, status)
        time.sleep(_LOOK_S)
    os.kill(child, signal.SIGKILL)
    return not _ended(night.runs, os.waitpid(child, 0)[1])


def _processor_s(child: int) -> float:
    """Give the processor seconds of a child that has not been waited for."""
    fields = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _wait(folder: Path, child: int) -> None:
    _ended(folder, os.waitpid(child, 0)[1])


def _ended(folder: Path, status: int) -> bool:
    """Say whether a child came to its end, or was killed.

    Raises: DataError when it failed.
    """
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, -signal.SIGKILL):
        raise DataError(f"what writes {folder} ended with {code}; run it by hand to see why")
    return code == 0


def _start(work: Callable[[], object]) -> int:
    """Fork, and let the child work; this process never starts a thread of Polars or torch."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        silent = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(silent, stream)
        use_threads(1)
        work()
        code = 0
    finally:
        os._exit(code)


def _write_log(log: InteractionLog, seed: int) -> None:
    for _ in write_log(Shop.from_seed(DIALS, seed), log):
        pass


def _age(runs: Path) -> None:
    for path in litter(runs):
        os.utime(path, (0, path.stat().st_mtime - TEMPORARY_S))


def litter(runs: Path) -> Sequence[Path]:
    return [path for path in runs.rglob(".*") if path.suffix != ".lock" and path.name != ".lock"]


def _activations(runs: Path) -> int:
    """Count the moves that reached the pointer: a line whose pointer did not move is written again."""
    lines = (runs / "registry" / "activations.jsonl").read_text().splitlines()
    return len({json.loads(line)["previous"] for line in lines})
