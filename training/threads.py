"""How a process that learns uses its machine, set once by the commands."""

import ctypes
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
    """Let the next step have this step's memory: glibc gives each large tensor back and faults it in anew.

    Tell whether it was done: other C libraries keep to their own ways.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT))
