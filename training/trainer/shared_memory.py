"""Memory that the ranks of one host share, and how they wait for each other there.

The memory is a file without a name (memfd) that the ranks' parent makes and the ranks map through /proc: no
/dev/shm limits it, and it is gone with the last process that has it, however that process ends.

Ranks wait on POSIX semaphores in the mapped memory, one from each rank to each other: first a short spin, as
a wake-up costs more than most waits, then asleep in the kernel. Plain counters would not do: Python cannot
order its writes of the data before that of a counter on a processor like ARM. sem_post and a wait on the same
semaphore do, by POSIX (memory synchronisation), on every processor.
"""

import ctypes
import mmap
import os
import select
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from training.errors import RankError

SLOT: Final = 4 << 20
"""Bytes a rank can say at once; what is longer goes in several messages."""
SPIN_S: Final = 1e-3
"""How long a rank tries before it sleeps: waking a sleeping virtual processor takes .2 to .3 ms. Only where
every rank has a processor of its own; whoever else wants it gets it meanwhile."""
LOOK_S: Final = 0.5
"""How often a rank that sleeps looks whether the one that it waits for is there."""
STUCK_S: Final = 1800.0
"""How long a rank waits for one that is there and does not come, as gloo does by default."""
_SEMAPHORE: Final = 64
"""Bytes for one: a cache line. glibc and musl need 32 of them."""
_PAGE: Final = 4096
_TRIES: Final = 32


@dataclass(frozen=True, slots=True)
class Plan:
    """Where everything lies: semaphores, processes, what each slot holds, the slots, the result."""

    ranks: int
    slot: int = SLOT

    @property
    def processes(self) -> int:
        """Give the offset of the ranks' process ids, int64 each."""
        return self.ranks * self.ranks * _SEMAPHORE

    def slot_at(self, turn: int, rank: int) -> int:
        """Give the offset of a rank's slot; it has two, for turns 0 and 1. After the last: the result's."""
        start = -(-(self.processes + 8 * self.ranks) // _PAGE) * _PAGE
        return start + (turn * self.ranks + rank if rank < self.ranks else 2 * self.ranks) * self.slot

    @property
    def size(self) -> int:
        """Give the bytes of all."""
        return self.slot_at(0, self.ranks) + self.slot


def make_memory(plan: Plan) -> int:
    """Make the memory and its semaphores; give the open file, which its maker closes after the ranks' end.

    Raises: OSError where the system has no such memory, or not enough of it.
    """
    if not hasattr(os, "memfd_create"):
        raise OSError("this system has no memfd_create")
    os.close(os.pidfd_open(os.getpid()))  # ranks watch each other so
    clib = _functions(ctypes.CDLL(None))
    file = os.memfd_create("recsys-ranks", os.MFD_CLOEXEC)
    try:
        os.posix_fallocate(file, 0, plan.size)  # here, and not when a rank writes
        with mmap.mmap(file, plan.size) as memory:
            start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
            for i in range(plan.ranks * plan.ranks):
                if clib.sem_init(start + i * _SEMAPHORE, 1, 0):
                    raise OSError("sem_init: no semaphores between processes")
    except BaseException:
        os.close(file)
        raise
    return file


def path_of(file: int) -> str:
    """Say where another process of this user finds an open file of this one."""
    return f"/proc/{os.getpid()}/fd/{file}"


class SharedMemory:
    """A rank's view of the memory."""

    def __init__(self, path: Path, plan: Plan, rank: int) -> None:
        """Map it, say who this is, and wait for all ranks.

        Raises: RankError when one of them does not come.
        """
        self.plan, self.rank = plan, rank
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), plan.size)
        self._whole = torch.frombuffer(self._memory, dtype=torch.uint8)
        start = self._whole.data_ptr()
        others = [r for r in range(plan.ranks) if r != rank]
        self._to = [ctypes.c_void_p(start + (rank * plan.ranks + r) * _SEMAPHORE) for r in others]
        self._from = {r: ctypes.c_void_p(start + (r * plan.ranks + rank) * _SEMAPHORE) for r in others}
        # PyDLL keeps the interpreter's lock: these return at once.
        quick, slow = _functions(ctypes.PyDLL(None)), _functions(ctypes.CDLL(None))
        self._post, self._try, self._sleep = quick.sem_post, quick.sem_trywait, slow.sem_clockwait
        own_processor = len(os.sched_getaffinity(0)) >= plan.ranks
        self._spin_s = SPIN_S if own_processor else 0.0
        self._watched: dict[int, int | None] = {}
        pids = self.view(plan.processes, 8 * plan.ranks).view(torch.int64)
        pids[rank] = os.getpid()
        self.meet()
        self._watched = {r: _opened(int(pids[r])) for r in others}

    def view(self, start: int, size: int) -> Tensor:
        """Give some bytes of the memory, uint8."""
        return self._whole[start : start + size]

    def slot(self, turn: int, rank: int) -> Tensor:
        """Give a rank's slot, uint8; after the last rank: the result."""
        return self.view(self.plan.slot_at(turn, rank), self.plan.slot)

    def meet(self) -> None:
        """Wait until all ranks are here; what they wrote before is seen after it.

        Raises: RankError when a rank has ended, or does not come within STUCK_S.
        """
        for semaphore in self._to:
            self._post(semaphore)
        for rank, semaphore in self._from.items():
            if self._try(semaphore) != 0 and not self._spun(semaphore):
                self._wait(rank, semaphore)

    def _spun(self, semaphore: ctypes.c_void_p) -> bool:
        end = time.perf_counter() + self._spin_s
        while time.perf_counter() < end:
            for _ in range(_TRIES):
                if self._try(semaphore) == 0:
                    return True
            os.sched_yield()
        return False

    def _wait(self, rank: int, semaphore: ctypes.c_void_p) -> None:
        began = time.monotonic()
        while self._sleep(semaphore, time.CLOCK_MONOTONIC, ctypes.byref(_Time.after(LOOK_S))) != 0:
            if self._is_gone(rank) and self._try(semaphore) != 0:
                raise RankError(
                    f"rank {rank} of {self.plan.ranks} ended while rank {self.rank} waited for it; "
                    "its own log says why"
                )
            if time.monotonic() - began > STUCK_S:
                raise RankError(
                    f"rank {self.rank} of {self.plan.ranks} waited {STUCK_S:.0f} s for rank {rank}, which is "
                    "there and does not come: see what holds that process up (a stopped process, a disk that "
                    "does not answer), and run the same command again"
                )

    def _is_gone(self, rank: int) -> bool:
        """Tell whether a rank's process has ended, reaped or not; unknown before all have met."""
        if rank not in self._watched:
            return False
        file = self._watched[rank]
        if file is None:
            return True
        ended = select.poll()  # unlike select.select, also for a process with a thousand open files
        ended.register(file, select.POLLIN)
        return bool(ended.poll(0))


def _opened(process: int) -> int | None:
    """Give a file that can be read when a process has ended; None: it has."""
    try:
        return os.pidfd_open(process)
    except ProcessLookupError:
        return None


class _Time(ctypes.Structure):
    """struct timespec."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))

    @classmethod
    def after(cls, seconds: float) -> "_Time":
        """Give the monotonic clock's time in so many seconds."""
        at = time.monotonic_ns() + int(1e9 * seconds)
        return cls(*divmod(at, 1_000_000_000))


def _functions(library: Any) -> Any:
    """Declare what is called of the C library. Raises: OSError where it has not all of it."""
    try:
        library.sem_init.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint)
        library.sem_post.argtypes = library.sem_trywait.argtypes = (ctypes.c_void_p,)
        library.sem_clockwait.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    except AttributeError as error:
        raise OSError(f"this system's C library has no such semaphores: {error}") from error
    return library
