"""A bar on stderr for work that tells its share done; silent without a terminal, gone when it is done."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def share_bar(what: str) -> Iterator[Callable[[str, float], None]]:
    """Show one bar; the value given is called with (what is being done, share done from 0 to 1)."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with (
        _own_stderr() as stream,
        Progress(*columns, console=Console(file=stream), transient=True) as progress,
    ):
        task = progress.add_task(what, total=1.0)
        yield lambda doing, share: progress.update(task, description=doing, completed=share)
        progress.update(task, description="done", completed=1.0)


@contextmanager
def _own_stderr() -> Iterator[TextIO]:
    """Give a terminal a descriptor of its own: the bar moves while `quiet_panics` holds the other back."""
    if not sys.stderr.isatty():
        yield sys.stderr
        return
    with os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding) as stream:
        yield stream
