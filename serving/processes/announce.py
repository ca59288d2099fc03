"""The first line of a server, and the file with its ports."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from recsys.errors import ConfigError
from recsys.files import write_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where a server listens."""

    port: int
    admin_port: int
    metrics_port: int | None = None


def require_writable(port_file: Path | None) -> None:
    """Check, before a server is started, that the file of its ports can be written.

    Raises: ConfigError.
    """
    if port_file is None:
        return
    if port_file.is_dir():
        raise ConfigError(f"--port-file {port_file} is a folder; name a file in it")
    if not os.access(port_file.parent, os.W_OK | os.X_OK):
        why = "cannot be written to" if port_file.parent.is_dir() else "is not a folder"
        raise ConfigError(f"--port-file {port_file}: {port_file.parent} {why}; name a file in another folder")


def announce(ports: Ports, bundle: str, port_file: Path | None, num_workers: int = 1) -> None:
    """Write the ports to a file, if one is asked for, and print the server's line.

    Args: bundle: which bundle answers.
    """
    if port_file is not None:
        found = {name: port for name, port in asdict(ports).items() if port is not None}
        write_whole(port_file, json.dumps(found) + "\n")
    workers = f", {num_workers} workers" if num_workers > 1 else ""
    print(f"recsys serve: port {ports.port}, admin port {ports.admin_port}, {bundle}{workers}", flush=True)
