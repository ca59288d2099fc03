"""A training that is killed goes on from its checkpoint to the very same weights."""

import dataclasses
import json
import signal

import numpy as np
import pytest

from recsys.errors import DataError
from training.train import train
from training.trainer.checkpoint import STATE, read_checkpoint, write_checkpoint
from training.trainer.saver import Saver
from training.trainer.watcher import Watcher

EVERY = 3
KILLED = """
import json, os, signal, sys
from datetime import date
from pathlib import Path

import torch

from features.days import Days
from recsys.config import parse_config
from recsys.snapshot import DaySnapshot
from training.train import train
from training.trainer.saver import Saver


class Killed(Saver):
    def after_step(self, progress):
        if progress.step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if (progress.step + 1) % every == 0:
            self.save(progress.checkpoint())


torch.set_num_threads(1)
given = json.loads(sys.argv[1])
kill_at, every = given["kill_at"], given["every"]
config = parse_config(given["config"], "test")
days = Days.of([DaySnapshot(date.fromisoformat(d), Path(p)) for d, p in given["days"]], config)
train(days, {t.name: (0, 3) for t in config.tasks}, config, None, 1,
      watchers=[Killed(Path(given["folder"]), 0, print)])
"""


class _StoppedError(Exception):
    """Ends a training as a kill does, in this process."""


class _StopAt(Watcher):
    def __init__(self, step, saver):
        self.step, self.saver = step, saver

    def after_step(self, progress):
        if progress.step == self.step:
            self.saver.save(progress.checkpoint())
            raise _StoppedError


def _train(chain, config, **options):
    return train(chain, {t.name: (0, 3) for t in config.tasks}, config, None, 1, **options)


@pytest.fixture
def saver(tmp_path):
    """Give one that saves when told to, and what it says."""
    said = []
    made = Saver(tmp_path / ".own.unfinished", 0, said.append)
    made.said = said
    return made


@pytest.fixture(scope="module")
def checkpoint(shop_chain, config, tmp_path_factory):
    saver = Saver(tmp_path_factory.mktemp("run") / ".a.unfinished", 0, print)
    with pytest.raises(_StoppedError):
        _train(shop_chain, config, watchers=[_StopAt(4, saver)])
    return saver.read()


def test_killed_at_any_step_and_run_again_it_ends_with_the_same_weights(
    shop_chain, config, trained, saver, rank_starter, tmp_path
):
    kill_at = int(np.random.default_rng(20261129).integers(EVERY, trained.log.steps - 1))
    given = {
        "config": config.model_dump(mode="json", by_alias=True),
        "days": [[str(day.day), str(day.path)] for day in shop_chain],
        "folder": str(saver.folder),
        "kill_at": kill_at,
        "every": EVERY,
    }
    ended = rank_starter(["-c", KILLED, json.dumps(given)], 1, tmp_path)
    assert ended.codes == {0: -signal.SIGKILL}
    start = saver.read()
    assert start.log.steps == kill_at // EVERY * EVERY
    again = _train(shop_chain, config, start=start)
    assert again.log.losses == trained.log.losses
    assert (again.log.steps, again.log.rows) == (trained.log.steps, trained.log.rows)
    assert again.log.seconds > start.log.seconds > 0
    for name, value in trained.weights().items():
        np.testing.assert_array_equal(again.weights()[name], value, err_msg=name)


def test_the_newest_checkpoint_alone_is_kept(checkpoint, saver):
    for steps in (3, 9, 12):
        saver.save(dataclasses.replace(checkpoint, log=dataclasses.replace(checkpoint.log, steps=steps)))
    assert [p.name for p in saver.folder.iterdir()] == ["step-000000012"]
    assert saver.read().log.steps == 12
    assert "goes on from step 12 (1,158 rows)" in saver.said[0]


@pytest.mark.parametrize("harm", ["torn", "flipped", "no manifest", "other format"])
def test_a_damaged_checkpoint_is_named_and_not_used(checkpoint, saver, harm):
    path = saver.folder / "step-000000005"
    write_checkpoint(checkpoint, path)
    state, manifest = path / STATE, path / "manifest.json"
    whole = state.read_bytes()
    if harm == "torn":
        state.write_bytes(whole[: len(whole) // 2])
    elif harm == "flipped":
        state.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    elif harm == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 0}))
    with pytest.raises(DataError, match="step-000000005"):
        read_checkpoint(path)
    assert saver.read() is None
    assert "step-000000005" in saver.said[0]
    assert saver.said[0].endswith("it is not used")


def test_a_checkpoint_of_other_inputs_is_named_and_stays(checkpoint, saver):
    other = saver.folder.with_name(".other.unfinished")
    write_checkpoint(checkpoint, other / "step-000000005")
    assert saver.read() is None
    assert str(other) in saver.said[0]
    assert (other / "step-000000005").is_dir()


def test_a_disk_that_is_full_does_not_end_the_training(checkpoint, saver):
    saver.folder.write_text("a file where the folder should be")
    saver.save(checkpoint)
    assert saver.said[0].startswith("no checkpoint at step 5, training goes on: ")


def test_it_saves_every_so_many_minutes(shop_chain, config, saver):
    saver.minutes = 1e-9
    made = _train(shop_chain, config, watchers=[saver])
    assert saver.read().log.steps == made.log.steps
    never = Saver(saver.folder.with_name(".never.unfinished"), 0, print)
    _train(shop_chain, config, watchers=[never])
    assert not never.folder.exists()
