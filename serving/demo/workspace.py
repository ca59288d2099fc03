"""A demo's folder, options and config, and what its steps share."""

import fcntl
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Final, Generic, TypeVar

from rich.console import Console

from features.definitions import read_config
from recsys.errors import ConfigError
from recsys.log import InteractionLog
from recsys.simulator.dials import ShopDials
from serving.demo.children import Children

OUT: Final = Console()
BARS: Final = Console(stderr=True)
EVENING: Final = timedelta(hours=6)
NUM_STEPS: Final = 6
MARKER: Final = ".recsys-demo"
_DEMO_FILES = ("log", "runs", "evaluate", "report", "shop.toml", "server.log", "ports.json", "summary.json")
# rotate: simulated time runs fast; the default of five minutes would start a journal file every second.
# margin: an evening has about 100 purchases, too few to show a margin of a tenth of what the champion adds.
_SETTINGS = """
[serving]
rotate = "1h"

[gate]
margin = 0.3
"""
_Result = TypeVar("_Result")


@dataclass(slots=True, kw_only=True)
class Demo:
    """The folder and options of one demo."""

    out: Path
    seed: int
    dials: ShopDials
    requests: int
    evening_s: float
    children: Children
    began: float = field(default_factory=time.perf_counter)
    step_seconds: dict[str, float] = field(default_factory=dict)

    @property
    def log(self) -> InteractionLog:
        """Return the interaction log."""
        return InteractionLog(self.out / "log")

    @property
    def runs(self) -> Path:
        """Return the runs folder."""
        return self.out / "runs"

    @property
    def where(self) -> list[str]:
        """Return --log and --runs of this demo."""
        return ["--log", str(self.out / "log"), "--runs", str(self.runs)]

    @property
    def config_file(self) -> Path:
        """Return the config file of nights and server."""
        return self.out / "shop.toml"

    @property
    def rate(self) -> float:
        """Return simulated seconds per second."""
        return EVENING.total_seconds() / self.evening_s

    @property
    def served_day(self) -> date:
        """Return the day whose evening is served: the day after the log's last."""
        return self.dials.last_day + timedelta(days=1)

    @property
    def midnight(self) -> datetime:
        """Return the instant at which the served day ends."""
        return datetime.combine(self.served_day + timedelta(days=1), datetime.min.time(), UTC)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Print a step's title and measure its time."""
        OUT.print(f"[bold]{len(self.step_seconds) + 1}/{NUM_STEPS}[/bold] {title}", highlight=False)
        began = time.perf_counter()
        yield
        self.step_seconds[title] = round(time.perf_counter() - began, 1)


class BackgroundResult(Generic[_Result]):
    """A result computed in a daemon thread while commands run; an interrupted demo does not wait for it."""

    def __init__(self, work: Callable[[], _Result]) -> None:
        self._work = work
        self._found: list[_Result] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def result(self) -> _Result:
        """Wait for the result; raise the error of the computation, if any."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._found[0]

    def _run(self) -> None:
        try:
            self._found.append(self._work())
        except BaseException as error:  # raised by `result`
            self._error = error


def print_lines(text: str) -> None:
    """Print lines below the step's title."""
    for line in text.strip().splitlines():
        OUT.print(f"    {line.strip()}", highlight=False, markup=False, soft_wrap=True)


def config_text(config: Path | None) -> str:
    """Read the config, before an earlier demo in the folder is removed: it may be in there.

    Raises: ConfigError when it is not valid.
    """
    if config is None:
        return resources.files("recsys").joinpath("shop.toml").read_text(encoding="utf-8") + _SETTINGS
    read_config(config)
    return config.read_text(encoding="utf-8")


@contextmanager
def locked_folder(out: Path) -> Iterator[None]:
    """Lock a folder for this demo; say which files of an earlier one there are, and remove them.

    Raises: ConfigError when it contains anything else, or another demo is running in it.
    """
    marker = out / MARKER
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; choose a folder")
    if out.is_dir() and any(out.iterdir()) and not marker.exists():
        raise ConfigError(f"--out {out} is not empty and not an earlier demo's; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    with marker.open("w", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another demo is running in {out}; wait, or choose another --out") from None
        earlier = [out / name for name in _DEMO_FILES if (out / name).exists()]
        if earlier:
            names = ", ".join(path.name for path in earlier)
            OUT.print(
                f"removes the earlier demo in {out}: {names}", highlight=False, markup=False, soft_wrap=True
            )
        for path in earlier:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        yield
