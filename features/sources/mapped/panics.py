"""What the Rust side of Polars prints when it panics over a damaged file is no message for a person."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import polars as pl


@contextmanager
def quiet_panics() -> Iterator[None]:
    """Hold back what is written to file descriptor 2, and drop it if a panic ends the block.

    A progress bar that is to move meanwhile needs a descriptor of its own: `features.progress`.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        panicked = False
        try:
            yield
        except pl.exceptions.PanicException:
            panicked = True
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            if not panicked:
                held.seek(0)
                os.write(2, held.read())
