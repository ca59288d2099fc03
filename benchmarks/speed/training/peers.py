"""The peers' environment: made on demand, with pinned packages and the build of torch that ours runs on."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from recsys.errors import ConfigError

PEERS: Final = ("torch-rechub", "deepctr-torch")
REQUIREMENTS: Final = Path(__file__).with_name("peer_requirements.txt")
EPOCH: Final = Path(__file__).with_name("peer_epoch.py")


def check_peers(names: Sequence[str]) -> None:
    """Refuse a name that is no peer's. Raises: ConfigError."""
    for name in names:
        if name not in PEERS:
            raise ConfigError(f"--peer {name!r} is not known; choose of: {', '.join(PEERS)}")


def peer_python() -> Path:
    """Give the interpreter of the peers' environment; make it when it is not there.

    It lies in the user's cache, one for every set of requirements, build of torch and version of Python.
    Raises: ConfigError with the installer's last words.
    """
    pinned = f"{REQUIREMENTS.read_text()}\n{torch.__version__}"
    name = hashlib.sha256(f"{pinned}\n{sys.version}".encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = cache / "recsys-bench-peers" / name
    python, ready = place / "bin" / "python", place / "ready"
    if ready.exists() and ready.read_text() == name:
        return python
    print(f"making the peers' environment in {place}", file=sys.stderr, flush=True)
    _do([sys.executable, "-m", "venv", "--clear", str(place)], place)
    _do(
        [str(python), "-m", "pip", "install", "-q", f"torch=={torch.__version__}", "-r", str(REQUIREMENTS)],
        place,
    )
    ready.write_text(name)
    return python


def _do(command: Sequence[str], place: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = " | ".join((done.stderr or done.stdout).strip().splitlines()[-2:])
        raise ConfigError(
            f"the peers' environment cannot be made in {place}: {words}; pip must reach the packages of "
            f"{REQUIREMENTS.name}. Without --peer the bench measures ours alone"
        )
