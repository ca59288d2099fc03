"""Several processes that are killed, or that diverge: what is kept, and what goes on from it."""

import math
import os
import shutil

import numpy as np
import pytest

from training.errors import DivergedError, RankError
from training.host_choice import HostChoice
from training.processes import parent
from training.processes.launch import launch
from training.replay import replay
from training.train import train
from training.trainer.saver import Saver

RANK = """
import math, os, signal, sys
from pathlib import Path
from training.data.batcher import Batcher
from training.processes.rank import main
from training.trainer.shared_memory import SharedMemory
{harm}
main(Path(sys.argv[1]))
"""
PER_STEP = 6
"""Times that ranks meet in a step of the shop's model."""
KILLED = """
plain, meetings = SharedMemory.meet, [0]
def meet(self):
    meetings[0] += 1
    if os.environ["RANK"] == "{rank}" and meetings[0] == {meeting}:
        os.kill(os.getpid(), signal.SIGKILL)
    plain(self)
SharedMemory.meet = meet
"""
POISONED = """
plain, batches = Batcher.batch, [0]
def batch(self, *given):
    made = plain(self, *given)
    if os.environ["RANK"] == "1" and batches[0] == 3:
        made.item_numbers_BF[0, 0] = math.nan
    batches[0] += 1
    return made
Batcher.batch = batch
"""


def _train(days, config, processes, folder, **options):
    periods = {t.name: (0, 1) for t in config.tasks}
    choice = HostChoice(processes=processes)
    return train(days, periods, config, None, 1, folder=folder, choice=choice, **options)


@pytest.fixture
def harmed(monkeypatch):
    """Start ranks that do themselves some harm."""

    def start(harm):
        program = RANK.format(harm=harm)
        monkeypatch.setattr(parent, "launch", lambda words, n: launch(["-c", program, *words[2:]], n))

    yield start
    monkeypatch.undo()


def test_killed_in_any_step_it_goes_on_with_as_many_processes_or_others(
    shop_chain, config, tmp_path, harmed, monkeypatch
):
    alone = _train(shop_chain, config, 1, tmp_path / "days")
    rng = np.random.default_rng(20261129)
    step = int(rng.integers(3, alone.log.steps - 1))
    rank, meeting = int(rng.integers(2)), PER_STEP * step + int(rng.integers(PER_STEP))
    saver = Saver(tmp_path / ".a.unfinished", 1e-9, print)
    harmed(KILLED.format(rank=rank, meeting=meeting))
    with pytest.raises(RankError, match=rf"rank {rank} of 2 ended by SIGKILL"):
        _train(shop_chain, config, 2, tmp_path / "days", watchers=[saver])
    monkeypatch.undo()
    assert not list((tmp_path / "days").glob(".fit-*")), "weights are in no folder that stays"
    kept = saver.read()
    assert abs(kept.log.steps - step) <= 1
    for processes in (1, 2, 4):
        copy = Saver(tmp_path / f".{processes}.unfinished", 0, print)
        shutil.copytree(saver.folder, copy.folder)
        start = kept if processes == 1 else None
        again = _train(shop_chain, config, processes, tmp_path / "days", watchers=[copy], start=start)
        assert again.log.steps == alone.log.steps
        weights = again.weights()
        for name, value in alone.weights().items():
            np.testing.assert_allclose(weights[name], value, atol=2e-4, rtol=1e-3, err_msg=name)


def test_a_step_that_diverges_on_one_rank_stops_all_and_is_made_again(shop_chain, config, tmp_path, harmed):
    harmed(POISONED)
    with pytest.raises(DivergedError) as caught:
        _train(shop_chain, config, 2, tmp_path / "days", diverged=tmp_path / "diverged")
    folder = tmp_path / "diverged/step-000000003"
    assert str(caught.value).endswith(
        "is not finite at step 3; lower [training] learning_rate. The 2 processes' slices of its batch, "
        f"random states and the weights are in {folder}: `recsys train replay {folder}` makes the step again"
    )
    again = replay(folder)
    assert again.step == 3
    assert again.not_finite == ("batch of rank 1: item_numbers_BF",)
    bad = {name for name, loss in again.losses.items() if not math.isfinite(loss)}
    assert bad
    assert all(name in str(caught.value) for name in bad)
    assert sorted(os.listdir(folder.parent)) == [folder.name]
