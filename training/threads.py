"""How a process that learns uses its machine, set once by the commands."""

import ctypes
import os
import sys

import torch
from threadpoolctl import threadpool_limits

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_KEPT = 32 << 20
"""Bytes: glibc's own limit; what is larger goes back to the system as before."""
KEPT = 1 << 30
"""Bytes of freed memory that stay with the process."""


def use_threads(count: int) -> None:
    """Say how many threads one step of learning or scoring may use (`[training] threads`)."""
    torch.set_num_threads(count)
    keep_freed_memory()


def use_one_thread() -> None:
    """Let a report use one thread, NumPy's products included.

    Those are small, and a second thread spins while it waits for the next: three fifths of the processor
    time of `report ab` were that.
    """
    use_threads(1)
    threadpool_limits(1, user_api="blas")


def keep_freed_memory() -> bool:
    """Let the next step have this step's memory.

    glibc returns large blocks to the system, and the next step pays page faults for them. Tells whether it
    was done: not by other C libraries, and not where the environment has settings of its own.
    """
    own = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if own or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT))
