"""How a fit goes on, in one line: rows, rows a second, time left, the losses.

On a terminal the line is redrawn; in a log it is written anew every half minute, and at the end.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from rich.progress import Progress, TextColumn

from training.progress import CONSOLE, is_redrawn, say
from training.trainer.watcher import Watcher

REDRAW_S = 0.25
LOG_S = 30.0
WINDOW_S = 30.0
"""The rate is that of the last so many seconds."""
SETTLED_S = 1.0
"""So long after the first step the rate is that of steps alone, without what came before them."""
SMOOTHING = 0.98
"""Of a loss's moving average per step: about the last fifty steps."""
_WIDE = 130
"""Columns of a terminal that has room for the losses in the same line; they get a second one elsewhere."""


class FitProgress(Watcher):
    """Follows a fit, and shows how far it is every so many seconds."""

    def __init__(self, rows: int, every: float, show: Callable[["FitProgress"], None]) -> None:
        """Expect so many rows in all."""
        self.total, self.every, self.show = rows, every, show
        self.rows = 0
        self._smooth: dict[str, float] = {}
        self._weight: dict[str, float] = {}
        self._marks: deque[tuple[float, int]] = deque()
        self._first: tuple[float, int] | None = None
        """The end of the first step, until the rate begins there and not at the start."""
        self.began = self._shown = time.monotonic()

    def on_losses(self, step: int, losses: Mapping[str, float]) -> None:
        """Average the losses; those of the first steps count in full.

        A loss of 0 is that of a step in which nothing of the task is known, and is left out.
        """
        for name, loss in losses.items():
            if loss:
                self._smooth[name] = SMOOTHING * self._smooth.get(name, 0.0) + (1 - SMOOTHING) * loss
                self._weight[name] = SMOOTHING * self._weight.get(name, 0.0) + 1 - SMOOTHING

    def on_rows(self, rows: int, of_step: int) -> None:
        """Count the rows; show them when it is time to."""
        self.see(rows, of_step, time.monotonic())

    def see(self, rows: int, step_rows: int, now: float) -> None:
        """Take the rows learned so far, those of the last step, and the time in seconds."""
        if not self._marks:
            self._marks.append((self.began, rows - step_rows))
            self._first = (now, rows)
        self.rows = rows
        if now - self._shown >= self.every:
            self._shown = now
            self._mark(now)
            self.show(self)

    def end(self) -> None:
        """Show the last state."""
        self._mark(time.monotonic())
        self.show(self)

    @property
    def losses(self) -> dict[str, float]:
        """Give the averages of the last steps' losses."""
        return {name: value / self._weight[name] for name, value in self._smooth.items()}

    @property
    def rate(self) -> float:
        """Give the rows a second; 0 before the first look."""
        if len(self._marks) < 2:
            return 0.0
        (first, before), (last, now) = self._marks[0], self._marks[-1]
        return (now - before) / max(last - first, 1e-9)

    @property
    def pace(self) -> str:
        """Say the rows, the rate and the time left."""
        missing = self.total - self.rows
        left = f", {_clock(missing / self.rate)} left" if self.rate and missing > 0 else ""
        return f"{self.rows:,} of {self.total:,} rows, {self.rate:,.0f} rows/s{left}"

    @property
    def loss(self) -> str:
        """Say the losses."""
        return " ".join(f"{name} {value:.3g}" for name, value in self.losses.items())

    def _mark(self, now: float) -> None:
        if self._first is not None and now - self._first[0] >= SETTLED_S:
            # Before it days were encoded, ranks started, a checkpoint read: no pace to go on with.
            self._marks[0], self._first = self._first, None
        self._marks.append((now, self.rows))
        while len(self._marks) > 2 and now - self._marks[1][0] >= WINDOW_S:
            self._marks.popleft()


@contextmanager
def fit_progress(what: str, rows: int) -> Iterator[Watcher]:
    """Show a fit that will learn so many rows, those of the run that it goes on from included."""
    if not is_redrawn():
        made = FitProgress(rows, LOG_S, lambda seen: say(f"{what}: {seen.pace}; {seen.loss or 'no step'}"))
        yield made
        made.end()
        return
    columns = (TextColumn("{task.description:<12}"), TextColumn("{task.fields[words]}", markup=False))
    between = "; " if CONSOLE.width >= _WIDE else "\n"
    with Progress(*columns, console=CONSOLE) as shown:
        task = shown.add_task(what, total=rows, words="")
        made = FitProgress(
            rows, REDRAW_S, lambda seen: shown.update(task, words=between.join((seen.pace, seen.loss)))
        )
        yield made
        made.end()


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
