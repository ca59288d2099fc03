"""What the child of `child.py` runs. It takes its priority before it imports what starts threads."""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

FAILED = 3


def main() -> None:
    """Fill a folder: source, temporary and final name, priority in `sys.argv`; say why it failed, as JSON."""
    source, target, final, priority = sys.argv[1:]
    if priority != "urgent":
        _take_one_thread()
    if priority == "idle":
        _yield_to_all()
    from recsys.errors import RecsysError
    from recsys.stages import disk_failure
    from serving.prepared.prepare import prepare

    try:
        prepare(Path(source), Path(target), Path(final))
    except Exception as error:
        disk = None if isinstance(error, RecsysError) else disk_failure(error)
        if disk is None and not isinstance(error, RecsysError):
            raise
        print(json.dumps({"error": str(error), "disk": disk}))
        sys.exit(FAILED)


def _take_one_thread() -> None:
    """Compute with one thread: more would empty the requests' caches."""
    os.environ.update(OMP_NUM_THREADS="1", POLARS_MAX_THREADS="1", RAYON_NUM_THREADS="1")


def _yield_to_all() -> None:
    """Compute only when nothing else does."""
    os.nice(19)
    if hasattr(os, "SCHED_IDLE"):
        with suppress(OSError):  # some containers forbid it
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
