"""Progress bars on stderr for everything that may take longer than two seconds; silent without a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from training.trainer import moment
from training.trainer.watcher import Watcher

CONSOLE = Console(stderr=True)


def say(sentence: str) -> None:
    """Tell a person something that is no progress; it stays above the bar."""
    CONSOLE.print(sentence, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show one bar; the value given is called with (done, all)."""
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=CONSOLE) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def fit_bar(what: str, rows: int) -> Iterator[Watcher]:
    """Show a fit's rows as a bar; `rows` are those it will learn."""
    with bar(what) as on_rows:
        yield _Rows(on_rows, rows)


class _Rows(Watcher):
    """Counts the rows that a fit has learned."""

    def __init__(self, on_rows: Callable[[int, int], None], total: int) -> None:
        self.on_rows, self.total = on_rows, total

    def after_step(self, progress: moment.Progress) -> None:
        self.on_rows(progress.rows, self.total)
