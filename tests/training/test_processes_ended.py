"""Several processes that are killed, or that diverge: what is kept, and what goes on from it."""

import math
import os
import shutil
from contextlib import contextmanager

import numpy as np
import pytest

from training.errors import DivergedError, RankError
from training.host_choice import HostChoice
from training.processes import launch as launcher
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
PER_STEP = 5
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


@contextmanager
def _harmed(harm, rank_starter):
    """Start ranks that do themselves some harm."""
    program = RANK.format(harm=harm)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launcher, "_run", rank_starter)
        patch.setattr(parent, "launch", lambda words, n: launch(["-c", program, *words[2:]], n))
        yield


@pytest.fixture(scope="module")
def alone(shop_chain, config, tmp_path_factory):
    return _train(shop_chain, config, 1, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def killed(shop_chain, config, alone, tmp_path_factory, rank_starter):
    """Kill one of two ranks anywhere in a step; give the folder of what is kept."""
    folder, rng = tmp_path_factory.mktemp("killed"), np.random.default_rng(20261129)
    step, rank = int(rng.integers(3, alone.log.steps - 1)), int(rng.integers(2))
    meeting = 2 + PER_STEP * step + int(rng.integers(PER_STEP))  # the first one is before any step
    saver = Saver(folder / ".a.unfinished", 1e-9, print)
    with (
        _harmed(KILLED.format(rank=rank, meeting=meeting), rank_starter),
        pytest.raises(RankError, match=rf"rank {rank} of 2 ended by SIGKILL"),
    ):
        _train(shop_chain, config, 2, folder / "days", watchers=[saver])
    assert not list((folder / "days").glob(".fit-*")), "weights are in no folder that stays"
    assert saver.read().log.steps in (step - 1, step)
    return folder


@pytest.mark.usefixtures("quick_ranks")
@pytest.mark.parametrize("processes", [1, 2, pytest.param(4, marks=pytest.mark.slow)])
def test_killed_in_any_step_two_go_on_as_one_two_or_four(
    killed, alone, shop_chain, config, tmp_path, processes
):
    saver = Saver(tmp_path / ".a.unfinished", 0, print)
    shutil.copytree(killed / ".a.unfinished", saver.folder)
    start = saver.read()
    given = {"watchers": [saver]} if processes > 1 else {"start": start}
    again = _train(shop_chain, config, processes, killed / "days", **given)
    assert again.log.steps == alone.log.steps
    assert again.log.losses[: start.log.steps] == start.log.losses, "steps before are not made again"
    weights = again.weights()
    for name, value in alone.weights().items():
        np.testing.assert_allclose(weights[name], value, atol=2e-4, rtol=1e-3, err_msg=name)


@pytest.mark.usefixtures("quick_ranks")
def test_a_step_that_diverges_on_one_rank_stops_all_and_is_made_again(
    shop_chain, config, tmp_path, rank_starter
):
    with _harmed(POISONED, rank_starter), pytest.raises(DivergedError) as caught:
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
