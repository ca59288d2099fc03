"""What the machine refuses a night, as a sentence: a full disk, no memory, the scheduler's SIGTERM."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl

from recsys.errors import DataError
from recsys.stages import disk_failure

_AGAIN = "and run the same command again: it goes on from there"
_NO_MEMORY = ("can't allocate memory", "out of memory")
"""How torch says it, in a RuntimeError."""


@contextmanager
def told(stage: str) -> Iterator[None]:
    """Name the stage at which the machine gave out.

    Raises: DataError for a disk that cannot be written or read, and for want of memory; all else as it is.
    """
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = disk_failure(error)
        if reason is None:
            raise
        where = f" {error.filename}" if isinstance(error, OSError) and error.filename else ""
        raise DataError(
            f"stage {stage}:{where}: {reason}; free the disk or repair the path, {_AGAIN}"
        ) from error
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(said in str(error).lower() for said in _NO_MEMORY):
            raise
        raise DataError(
            f"stage {stage}: there is not enough memory; lower [training] batch_size or chunk_rows, or raise "
            f"[execution] shards, or give the process more, {_AGAIN}"
        ) from error


@contextmanager
def ended_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does: what is half-written goes, and there is no traceback."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
