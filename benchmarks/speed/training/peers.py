"""The peers of `recsys bench train`, in an environment of their own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from recsys.errors import ConfigError

PEERS: Final = ("torch-rechub", "deepctr-torch")
REQUIREMENTS: Final = Path(__file__).with_name("peer_requirements.txt")
EPOCH: Final = Path(__file__).with_name("peer_epoch.py")


def check_peers(names: Sequence[str]) -> None:
    """Refuse a name that is no peer's. Raises: ConfigError."""
    for name in names:
        if name not in PEERS:
            raise ConfigError(f"--peer {name!r} is not known; choose of: {', '.join(PEERS)}")
