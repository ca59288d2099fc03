"""Killed with SIGKILL while a night refits, or during an update: run again, the version has the same bits.

A version is named by the hash of all its files.
"""

import json
import shutil
import signal
from datetime import UTC, datetime

import numpy as np
import pytest

from recsys.registry import Registry
from training.incremental.run import update
from training.night.night import Night
from training.night.run import run_night

AT = datetime(2026, 1, 30, 21, tzinfo=UTC)
KILLED = """
import json, os, signal, sys
from datetime import datetime
from pathlib import Path

import torch

from recsys.config import parse_config
from recsys.log import InteractionLog
from training.incremental.run import update
from training.night.night import Night
from training.night.run import run_night
from training.trainer.saver import Saver
from training.trainer.step import Stepper

torch.set_num_threads(1)
given = json.loads(sys.argv[1])
left = given["steps"]


def killed(self, *args):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    descend(self, *args)


descend, Stepper.descend = Stepper.descend, killed
Saver.after_step = lambda self, progress: self.save(progress.checkpoint())
config, log, runs = parse_config(given["config"], "test"), Path(given["log"]), Path(given["runs"])
at = datetime.fromisoformat(given["at"])
if given["what"] == "update":
    update(config, log, runs, at)
else:
    run_night(Night(config=config, log=InteractionLog(log), runs=runs, date=at.date()))
"""


@pytest.fixture
def kill(night, runs, rank_starter, tmp_path):
    """Give what runs a command that kills itself after a drawn number of steps."""

    def run(what, at, num_steps):
        given = {
            "what": what,
            "at": at.isoformat(),
            "steps": int(np.random.default_rng(20261129).integers(1, num_steps)),
            "config": night.config.model_dump(mode="json", by_alias=True),
            "log": str(night.log.root),
            "runs": str(runs),
        }
        ended = rank_starter(["-c", KILLED, json.dumps(given)], 1, tmp_path)
        assert ended.codes == {0: -signal.SIGKILL}
        return given["steps"]

    return run


def test_a_refit(night, runs, kill):
    live = Registry(runs).current()
    evaluated = Registry(runs).require_record(live).evaluated
    assert live != evaluated
    for part in ("refit", "refit_bundle"):
        shutil.rmtree(runs / "stages" / part)
    shutil.rmtree(Registry(runs).path(live))
    done = kill("night", datetime(2026, 1, 29, tzinfo=UTC), 8)
    (left,) = (runs / "stages" / "refit").glob(".*.unfinished")
    assert [path.name for path in left.glob("step-*")] == [f"step-{done:09d}"]
    again = run_night(Night(config=night.config, log=night.log, runs=runs, date=night.date))
    assert again.version == live
    assert Registry(runs).versions() == sorted({live, evaluated})
    assert not left.exists()


def test_an_update(night, runs, kill, tmp_path):
    undisturbed = shutil.copytree(runs, tmp_path / "undisturbed")
    before = Registry(runs).current()
    kill("update", AT, 4)
    assert Registry(runs).current() == before
    again = update(night.config, night.log.root, runs, AT)
    alone = update(night.config, night.log.root, undisturbed, AT)
    assert again.version == alone.version == again.live != before
    assert again.rows == alone.rows > 4 * 64, "more steps than those after which it was killed"
