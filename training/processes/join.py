"""What every rank's program does around its own work."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys.errors import RecsysError
from training.processes.launch import ENDED, LOGS, MEMORY
from training.threads import use_threads
from training.trainer.group import DistributedGroup, Group
from training.trainer.shared_group import SharedGroup
from training.trainer.shared_memory import Plan


@contextmanager
def joined() -> Iterator[Group]:
    """Join the ranks that one launch started, with one thread; an error of ours is left for the parent.

    Raises: RankError when one of them does not come.
    """
    _end_with_parent()
    use_threads(1)
    try:
        with _group() as group:
            yield group
    except RecsysError as error:
        rank = int(os.environ["RANK"])
        said = {"rank": rank, "error": type(error).__name__, "message": str(error)}
        (Path(os.environ[LOGS]) / f"rank{rank}.{ENDED}").write_text(json.dumps(said))
        raise


@contextmanager
def _group() -> Iterator[Group]:
    if MEMORY in os.environ:
        plan = Plan(int(os.environ["WORLD_SIZE"]))
        yield SharedGroup(Path(os.environ[MEMORY]), plan, int(os.environ["RANK"]))
        return
    from torch import distributed

    distributed.init_process_group("gloo")
    yield DistributedGroup()
    distributed.destroy_process_group()


def _end_with_parent() -> None:
    """End this process when its parent is gone: nobody would wait for it or end it."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
