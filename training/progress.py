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

CONSOLE = Console(stderr=True)


def is_redrawn() -> bool:
    """Tell whether lines can be redrawn: not in a file, whatever FORCE_COLOR says, nor where TERM=dumb."""
    return CONSOLE.is_interactive and CONSOLE.file.isatty()


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
    with Progress(*columns, console=CONSOLE, disable=not is_redrawn()) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
