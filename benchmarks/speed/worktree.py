"""An earlier commit's code beside today's, in a git worktree."""

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.commit import CHECKOUT
from recsys.errors import ConfigError
from recsys.scratch import scratch_folder


@contextmanager
def worktree(revision: str | None) -> Iterator[Path | None]:
    """Check a commit out beside this one for a while; SIGTERM ends it, and what SIGKILL left goes first.

    Raises: ConfigError with git's words.
    """
    if revision is None:
        yield None
        return
    with scratch_folder(Path(tempfile.gettempdir()), "recsys-before") as folder, _ended_by_sigterm():
        _git("worktree", "prune")
        place = folder / "tree"
        _git("worktree", "add", "--detach", str(place), revision)
        try:
            yield place
        finally:
            _git("worktree", "remove", "--force", str(place))


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Have SIGTERM unwind the stack, as Ctrl-C does, instead of ending Python at once."""

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _git(*words: str) -> None:
    done = subprocess.run(["git", "-C", str(CHECKOUT), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"--before: git {words[0]} {words[1]} failed: {done.stderr.strip()}")
