"""The first line of a server, and the file with its ports."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from recsys.files import write_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where a server listens."""

    port: int
    admin_port: int
    metrics_port: int | None = None


def announce(ports: Ports, bundle: str, port_file: Path | None, num_workers: int = 1) -> None:
    """Write the ports to a file, if one is asked for, and print the server's line.

    Args: bundle: which bundle answers.
    """
    if port_file is not None:
        found = {name: port for name, port in asdict(ports).items() if port is not None}
        write_whole(port_file, json.dumps(found) + "\n")
    workers = f", {num_workers} workers" if num_workers > 1 else ""
    print(f"recsys serve: port {ports.port}, admin port {ports.admin_port}, {bundle}{workers}", flush=True)
