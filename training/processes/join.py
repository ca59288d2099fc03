"""How the ranks of one host come together: in memory that their parent made, else over gloo."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.progress import say
from training.trainer.group import DistributedGroup, Group
from training.trainer.shared_group import SharedGroup
from training.trainer.shared_memory import Plan, make_memory, path_of

MEMORY = "RECSYS_RANKS_MEMORY"
"""The environment variable that names the shared memory to the ranks; not set: there is none."""


@contextmanager
def memory_for(processes: int) -> Iterator[dict[str, str]]:
    """Make the ranks' memory; give what they inherit. Where there is none to be had, say so: they use gloo."""
    plan = Plan(processes)
    try:
        file = make_memory(plan)
    except OSError as error:
        say(
            f"no shared memory of {plan.size >> 20} MB for {processes} processes ({error}): they exchange "
            "gradients through sockets (gloo), which is slower; free memory, or train with one process"
        )
        yield {}
        return
    try:
        yield {MEMORY: path_of(file)}
    finally:
        os.close(file)


@contextmanager
def joined() -> Iterator[Group]:
    """Join the other ranks, as torchrun's variables name them, until the block ends.

    Raises: RankError when one of them does not come.
    """
    if MEMORY in os.environ:
        plan = Plan(int(os.environ["WORLD_SIZE"]))
        yield SharedGroup(Path(os.environ[MEMORY]), plan, int(os.environ["RANK"]))
        return
    from torch import distributed

    distributed.init_process_group("gloo")
    yield DistributedGroup()
    distributed.destroy_process_group()
