"""What a server is started with, and what follows from it: name, place on the stats board, store."""

import mmap
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from features.store import FeatureStore, open_store
from recsys.config import RunConfig
from recsys.cpus import num_cpus
from recsys.errors import StoreError
from serving.addresses import Tls
from serving.clock import Clock
from serving.processes.orders import WorkerSeat
from serving.stats_board import StatsBoard


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """Config, folders and addresses of one server."""

    config: RunConfig
    log: Path
    runs: Path
    clock: Clock
    listen: str
    admin_listen: str
    insecure: bool = False
    tls: Tls | None = None
    reflection: bool = False
    metrics_listen: str | None = None
    """HOST:PORT of the Prometheus endpoint; None: no endpoint."""
    seat: WorkerSeat | None = None
    """Place among the processes of one server, whose parent holds the ports; None: the only process."""


def num_ranking_threads() -> int:
    """Return the calls that a single process answers at a time: as many as processors, at least 2."""
    return max(2, num_cpus())


def board_of(seat: WorkerSeat | None) -> tuple[StatsBoard, int]:
    """Give the stats board of all workers, and this one's row."""
    if seat is None:
        return StatsBoard.for_one(), 0
    memory = mmap.mmap(seat.board_fd, StatsBoard.size(seat.num_workers))
    return StatsBoard(memory, seat.num_workers), seat.number


def server_id_of(seat: WorkerSeat | None) -> str:
    """Make a name that no other start has: containers may share a host name and a process id."""
    name = f"{socket.gethostname().split('.')[0]}-{os.getpid()}-{secrets.token_hex(4)}"
    return name if seat is None else f"{name}-w{seat.number}"


def open_store_under(config: RunConfig, runs: Path) -> FeatureStore:
    """Open the store that the config names, below RUNS where it is a folder.

    Raises: StoreError.
    """
    try:
        return open_store(config.store, runs)
    except OSError as error:
        raise StoreError(
            f"the store under {runs} cannot be opened: {error.strerror}; check --runs"
        ) from error
