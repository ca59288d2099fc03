"""How a process that learns uses its machine, set once by the commands."""

import ctypes
import os
import sys

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_KEPT = 32 << 20
"""Bytes: glibc's own limit; what is larger goes back to the system as before."""
KEPT = 1 << 30
"""Bytes of freed memory that stay with the process."""


def use_threads(count: int) -> None:
    """Say how many threads one step of learning or scoring may use (`[training] threads`)."""
    torch.set_num_threads(count)
    keep_freed_memory()


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
