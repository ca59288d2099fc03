"""Environments of peers: made on demand, with pinned packages and the build of torch that ours runs on."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from recsys.errors import ConfigError


def peer_python(requirements: Path) -> Path:
    """Give the interpreter of an environment; make it when it is not there.

    It lies in the user's cache, one for every set of requirements, build of torch and version of Python.
    Args: requirements: a file for pip, without which a bench measures ours alone.
    Raises: ConfigError with the installer's last words.
    """
    pinned = f"{requirements.read_text()}\n{torch.__version__}"
    name = hashlib.sha256(f"{pinned}\n{sys.version}".encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = cache / "recsys-bench-peers" / name
    python, ready = place / "bin" / "python", place / "ready"
    if ready.exists() and ready.read_text() == name:
        return python
    print(f"making the peers' environment in {place}", file=sys.stderr, flush=True)
    _do([sys.executable, "-m", "venv", "--clear", str(place)], place, requirements)
    pip = [str(python), "-m", "pip", "install", "-q", f"torch=={torch.__version__}", "-r", str(requirements)]
    _do(pip, place, requirements)
    ready.write_text(name)
    return python


def _do(command: Sequence[str], place: Path, requirements: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = " | ".join((done.stderr or done.stdout).strip().splitlines()[-2:])
        raise ConfigError(
            f"the peers' environment cannot be made in {place}: {words}; pip must reach the packages of "
            f"{requirements.name}. Without --peer the bench measures ours alone"
        )
