"""What every rank's program does around its own work."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from recsys.device import CPU
from recsys.errors import RecsysError
from training.processes.launch import ENDED, LOGS, MEMORY
from training.threads import use_threads
from training.trainer.group import ALONE, DistributedGroup, Group
from training.trainer.shared_group import SharedGroup
from training.trainer.shared_memory import Plan


@contextmanager
def joined(device: torch.device = CPU) -> Iterator[Group]:
    """Join the ranks that one launch started, with one thread; an error of ours is left for the parent.

    Ranks on a processor meet in memory that they share, or over gloo; ranks on GPUs over NCCL.
    Raises: RankError when one of them does not come.
    """
    _end_with_parent()
    use_threads(1)
    try:
        with _group(device) as group:
            yield group
    except RecsysError as error:
        rank = int(os.environ["RANK"])
        said = {"rank": rank, "error": type(error).__name__, "message": str(error)}
        (Path(os.environ[LOGS]) / f"rank{rank}.{ENDED}").write_text(json.dumps(said))
        raise


@contextmanager
def _group(device: torch.device) -> Iterator[Group]:
    if int(os.environ["WORLD_SIZE"]) == 1:  # a rank whose tables TorchRec places
        yield ALONE
        return
    if MEMORY in os.environ and device == CPU:
        plan = Plan(int(os.environ["WORLD_SIZE"]))
        yield SharedGroup(Path(os.environ[MEMORY]), plan, int(os.environ["RANK"]))
        return
    with torch_group(device):
        yield DistributedGroup()


@contextmanager
def torch_group(device: torch.device) -> Iterator[None]:
    """Have a default process group of torch until the block ends; TorchRec asks for one."""
    from torch import distributed

    if distributed.is_initialized():
        yield
        return
    # What lies in host memory goes over gloo, and nothing waits for the GPU.
    distributed.init_process_group("gloo" if device == CPU else "cpu:gloo,cuda:nccl")
    yield
    distributed.destroy_process_group()


def _end_with_parent() -> None:
    """End this process when its parent is gone: nobody would wait for it or end it."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
