"""Serves with the number of worker processes asked for: one in this process, several under a parent."""

import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Literal

from recsys.cpus import num_cpus
from recsys.errors import ConfigError
from serving.addresses import check_address, is_unix, require_protection
from serving.clock import clock_from
from serving.json_logs import configure_logs
from serving.processes.announce import Ports, announce
from serving.processes.orders import ServeSettings
from serving.processes.parent import Parent
from serving.processes.ports import held_port, port_of

_SHARES_PORTS = sys.platform == "linux"
"""Only there does the kernel share out connections among processes that listen on one port."""


def choose_workers(wanted: int | Literal["auto"], *addresses: str | None) -> int:
    """Return the number of worker processes.

    Args: addresses: where they will listen.
    Raises: ConfigError when several cannot share an address.
    """
    files = [address for address in addresses if address is not None and is_unix(address)]
    if wanted == "auto":
        return num_cpus() if _SHARES_PORTS and not files else 1
    if wanted > 1 and not _SHARES_PORTS:
        raise ConfigError(f"{wanted} workers cannot share a port on {sys.platform}; choose --workers 1")
    if wanted > 1 and files:
        raise ConfigError(
            f"{wanted} workers cannot share {files[0]}; choose an address HOST:PORT, or --workers 1"
        )
    return wanted


def serve_with_workers(settings: ServeSettings, num_workers: int, port_file: Path | None) -> None:
    """Serve with several worker processes until SIGTERM or SIGINT.

    Raises: ConfigError when an address is wrong or taken, and what `Parent.run_until_signalled` raises.
    """
    clock_from(settings.clock.start, settings.clock.rate)
    configure_logs()
    with ExitStack() as held:
        addresses = {
            name: held.enter_context(held_port(address, _checked(address, name, settings)))
            for name in ("listen", "admin_listen", "metrics_listen")
            if (address := getattr(settings, name)) is not None
        }
        clock = settings.clock.model_copy(update={"since_ns": time.monotonic_ns()})
        ports = Ports(
            port=port_of(addresses["listen"]),
            admin_port=port_of(addresses["admin_listen"]),
            metrics_port=port_of(addresses["metrics_listen"]) if settings.metrics_listen else None,
        )
        parent = Parent(
            settings.model_copy(update={**addresses, "clock": clock}),
            num_workers,
            partial(announce, ports, port_file=port_file, num_workers=num_workers),
        )
        parent.run_until_signalled()


def _checked(address: str, name: str, settings: ServeSettings) -> str:
    """Check an address before a process is started for it; return its option."""
    option = f"--{name.replace('_', '-')}"
    check_address(address, option)
    known = name != "listen"
    require_protection(address, option, settings.tls, insecure=settings.insecure, known_callers=known)
    return option
