"""Ranks that exchange in shared memory: sums equal to the bit, long messages, and a peer that dies."""

import fcntl
import os
import signal
import sys
import time
import traceback
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from training.errors import RankError
from training.trainer import shared_memory
from training.trainer.group import _Gathered
from training.trainer.shared_group import SharedGroup
from training.trainer.shared_memory import Plan, SharedMemory, make_memory, path_of

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

SMALL = Plan(2, slot=4096)
"""Room for 1,020 floats: longer tensors go in several messages."""


@contextmanager
def _memory(plan):
    file = make_memory(plan)
    try:
        yield Path(path_of(file))
    finally:
        os.close(file)


def _fork(plan, path, work):
    """Run `work(group)` in a process per rank; give their ids."""
    pids = []
    for rank in range(plan.ranks):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                torch.set_num_threads(1)
                code = work(SharedGroup(path, plan, rank)) or 0
            except BaseException:
                traceback.print_exc(file=sys.stderr)
            finally:
                os._exit(code)
        pids.append(pid)
    return pids


def _run(plan, work):
    with _memory(plan) as path:
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in _fork(plan, path, work)]
    assert codes == [0] * plan.ranks


def _values(rank, *shape):
    return torch.from_numpy(np.random.default_rng(rank).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize("plan", [SMALL, Plan(3, slot=4096), Plan(3)], ids=["2", "3, in pieces", "3, slices"])
def test_sums_are_those_of_the_order_of_ranks_to_the_bit(plan):
    shapes = [(3,), (), (0, 4), (70, 40), (5, 7), (20_000,)]

    def work(group):
        for turn in range(5):
            own = [_values(10 * turn + group.rank, *shape) for shape in shapes]
            own[4] = own[4].T  # not contiguous
            group.sum_(own)
            for shape, found in zip(shapes, own, strict=True):
                first, *others = (_values(10 * turn + r, *shape) for r in range(group.size))
                for other in others:
                    first = first + other
                assert torch.equal(found.T if shape == (5, 7) else found, first), (turn, shape)
        group.sum_([])
        assert group.total(torch.tensor(2.5, dtype=torch.float64)).item() == 2.5 * group.size

    _run(plan, work)


def test_every_rank_sees_what_each_says_however_long():
    def said(rank):
        return [torch.arange(3000 * rank), torch.full((2 - rank, 3), rank, dtype=torch.float32)]

    def work(group):
        for _ in range(4):
            for rank, tensors in enumerate(group.exchange(said(group.rank))):
                for found, own in zip(tensors, said(rank), strict=True):
                    assert torch.equal(found, own)
        kept = group.parts(torch.tensor([group.rank]))
        for _ in range(3):  # what was given stays when slots are written again
            group.parts(torch.tensor([7]))
        assert [p.item() for p in kept] == [0, 1]

    _run(SMALL, work)


def test_the_gradient_of_a_gathered_row_goes_back_to_its_rank():
    def work(group):  # autograd itself does not run in a process that was forked
        context = SimpleNamespace()
        rows = _Gathered.forward(context, _values(group.rank, group.rank + 1, 2), group)
        assert torch.equal(rows, torch.cat([_values(0, 1, 2), _values(1, 2, 2)]))
        slope = torch.arange(6.0).view(3, 2)
        own, _ = _Gathered.backward(context, slope * (group.rank + 1))
        assert torch.equal(own, 3 * (slope[:1] if group.rank == 0 else slope[1:]))

    _run(SMALL, work)


def test_different_calls_are_found():
    def work(group):
        with pytest.raises(AssertionError, match=r"different calls .*\[1, 8\], \[1, 12\]"):
            group.sum_([torch.zeros(2 + group.rank)])

    _run(SMALL, work)


def test_a_rank_that_is_killed_ends_the_others_within_seconds():
    def work(group):
        group.sum_([torch.ones(2)])
        if group.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(RankError, match="rank 1 of 2 ended while rank 0 waited for it"):
            group.sum_([torch.ones(2)])
        assert time.monotonic() - began < 60, "without a watch it takes half an hour"

    with _memory(SMALL) as path:
        first, second = _fork(SMALL, path, work)
        # The killed process is a zombie meanwhile: nobody waits for it before the other has noticed.
        assert os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) == 0
        assert os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]) == -signal.SIGKILL


def test_one_that_has_ended_is_seen_among_a_thousand_open_files():
    child = os.posix_spawn("/bin/true", ["true"], {})
    file = os.pidfd_open(child)
    high = fcntl.fcntl(file, fcntl.F_DUPFD, 1100)
    try:
        os.waitpid(child, 0)
        assert SharedMemory._is_gone(SimpleNamespace(_watched={1: high}), 1)
    finally:
        os.close(file)
        os.close(high)


def test_a_rank_that_is_late_is_waited_for_asleep():
    def work(group):
        if group.rank == 1:
            time.sleep(1.2)
        used = time.process_time()
        group.sum_([torch.ones(2)])
        assert time.process_time() - used < 0.3, "it burns the processor"

    _run(SMALL, work)


def test_one_that_does_not_come_is_named(monkeypatch):
    monkeypatch.setattr(shared_memory, "STUCK_S", 0.2)
    monkeypatch.setattr(shared_memory, "LOOK_S", 0.05)

    def work(group):
        if group.rank == 1:
            signal.pause()
        with pytest.raises(RankError, match=r"rank 0 of 2 waited [0-9]+ s for rank 1, which is there"):
            group.sum_([torch.ones(2)])

    with _memory(SMALL) as path:
        first, second = _fork(SMALL, path, work)
        assert os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) == 0
        os.kill(second, signal.SIGKILL)
        os.waitpid(second, 0)


def test_memory_goes_with_its_processes():
    before = sorted(os.listdir("/dev/shm")) if Path("/dev/shm").is_dir() else []
    with _memory(SMALL) as path:
        assert path.exists()
        assert (sorted(os.listdir("/dev/shm")) if before else []) == before
    assert not path.exists()


def test_memory_that_cannot_be_had_is_an_error(monkeypatch):
    def none(_file, _start, _size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", none)
    open_before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="No space left"):
        make_memory(SMALL)
    assert len(os.listdir("/proc/self/fd")) == open_before
