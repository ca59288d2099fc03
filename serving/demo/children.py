"""The demo's child processes: the commands a user would type, with their progress bars on the terminal."""

import contextlib
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from recsys.errors import RecsysError

_GRACE_S = 15.0
_START_S = 120.0
_POLL_S = 0.05


class StepError(RecsysError):
    """Raised when a command of the demo failed; exits with that command's code."""

    def __init__(
        self, arguments: Sequence[str], code: int, hint: str = "its message is printed above"
    ) -> None:
        super().__init__(f"`recsys {shlex.join(arguments)}` ended with exit code {code}; {hint}")
        self.exit_code = code if code > 0 else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a command ended."""

    code: int
    stdout: str
    seconds: float

    def json_lines(self) -> list[dict[str, Any]]:
        """Read its standard output as one JSON object per line."""
        return [json.loads(line) for line in self.stdout.splitlines() if line.startswith("{")]


@dataclass(slots=True)
class Children:
    """Starts commands, and ends all of them when the `with` block ends for any reason."""

    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Interrupt running commands as Ctrl-C would; kill those that do not end."""
        for child in self.running:
            # Ctrl-C in a terminal reaches the children too: let them end by themselves first.
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(0.5)
            _end(child)
        self.running.clear()

    def run(self, arguments: Sequence[str], accepted_codes: Sequence[int] = ()) -> Finished:
        """Run `recsys ARGUMENTS` to its end and return its output; progress bars go to stderr.

        Raises: StepError for an exit code that is neither 0 nor in `accepted_codes`.
        """
        began = time.perf_counter()
        child = self._start(arguments, stdout=subprocess.PIPE, stderr=None)
        stdout, _ = child.communicate()
        self.running.remove(child)
        if child.returncode not in (0, *accepted_codes):
            raise StepError(arguments, child.returncode)
        return Finished(code=child.returncode, stdout=stdout, seconds=time.perf_counter() - began)

    def serve(
        self, arguments: Sequence[str], port_file: Path, log_file: Path, within_s: float = _START_S
    ) -> "ServerChild":
        """Start `recsys serve` and wait until it has written its port file.

        Raises: StepError when it ends before that, or is not ready in time.
        """
        port_file.unlink(missing_ok=True)
        with log_file.open("w", encoding="utf-8") as stream:
            child = self._start([*arguments, "--port-file", str(port_file)], stdout=stream, stderr=stream)
        deadline = time.monotonic() + within_s
        while not port_file.exists():
            if child.poll() is not None or time.monotonic() > deadline:
                raise StepError(arguments, child.poll() or 1, f"see {log_file}")
            time.sleep(_POLL_S)
        ports = json.loads(port_file.read_text(encoding="utf-8"))
        return ServerChild(child, self, int(ports["port"]), int(ports["admin_port"]))

    def _start(self, arguments: Sequence[str], stdout: Any, stderr: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "recsys", *arguments]
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, encoding="utf-8"
        )
        self.running.append(child)
        return child


@dataclass(frozen=True, slots=True)
class ServerChild:
    """A running server."""

    child: subprocess.Popen[str]
    children: Children
    port: int
    admin_port: int

    @property
    def target(self) -> str:
        """Return HOST:PORT of the ranking service."""
        return f"127.0.0.1:{self.port}"

    @property
    def admin_target(self) -> str:
        """Return HOST:PORT of the admin service."""
        return f"127.0.0.1:{self.admin_port}"

    def stop(self) -> tuple[int, float]:
        """Send SIGTERM; return the exit code and the seconds of the drain."""
        began = time.perf_counter()
        self.child.send_signal(signal.SIGTERM)
        _wait_or_kill(self.child, _GRACE_S)
        self.children.running.remove(self.child)
        return self.child.returncode, time.perf_counter() - began


@contextlib.contextmanager
def on_sigterm(handler: Callable[[], None]) -> Iterator[None]:
    """Call a handler on SIGTERM, so that an ended demo stops its server."""
    before = signal.signal(signal.SIGTERM, lambda *_: handler())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def command_prefix() -> str:
    """Return what a user types for `recsys` here: the script's name if it is on the path, else its path."""
    script = Path(sys.executable).with_name("recsys")
    if shutil.which("recsys"):
        return "recsys"
    if not script.exists():
        return f"{shlex.quote(sys.executable)} -m recsys"
    with contextlib.suppress(ValueError):
        script = script.relative_to(Path.cwd())
    return shlex.quote(str(script))


def _end(child: subprocess.Popen[str]) -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
        _wait_or_kill(child, _GRACE_S)
    if child.stdout is not None:
        child.stdout.close()


def _wait_or_kill(child: subprocess.Popen[str], seconds: float) -> None:
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
