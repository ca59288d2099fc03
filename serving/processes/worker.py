"""A worker process: serves as its parent orders, reports when it is ready, and ends when its parent does."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from features.definitions import check_features
from recsys.errors import ConfigError, RecsysError
from recsys.journal import FOLDER
from recsys.log import InteractionLog
from recsys.schema import TABLES
from serving.clock import Clock, SimulatedClock, clock_from
from serving.json_logs import configure_logs
from serving.processes.announce import announce
from serving.processes.lifeline import hold_lifeline
from serving.processes.orders import Report, ServeSettings, WorkerOrder, WorkerSeat

if TYPE_CHECKING:
    from serving.app import Server

_DRAIN_SLACK_S = 5


def make_server(settings: ServeSettings, clock: Clock, seat: WorkerSeat | None = None) -> "Server":
    """Make the server of one process: a worker's, or without a seat the only one.

    Args: clock: that the settings ask for; the caller may start it anew.
    Raises: ConfigError when the config or an address is wrong; StoreError when the store cannot be opened.
    """
    from serving.app import Server
    from serving.server_options import ServerOptions

    check_features(settings.config, settings.config_file)
    _require_log(settings.log)
    return Server(
        ServerOptions(
            config=settings.config,
            log=settings.log,
            runs=settings.runs,
            clock=clock,
            listen=settings.listen,
            admin_listen=settings.admin_listen,
            insecure=settings.insecure,
            tls=settings.tls,
            reflection=settings.reflection,
            metrics_listen=settings.metrics_listen,
            seat=seat,
        )
    )


def serve_here(settings: ServeSettings, port_file: Path | None) -> None:
    """Serve from this process alone until SIGTERM or SIGINT.

    Raises: as `make_server`.
    """
    configure_logs()
    clock = _clock_of(settings)
    server = make_server(settings, clock)
    server.start()

    def ready() -> None:
        if isinstance(clock, SimulatedClock):  # a slow start takes nothing of the simulated time
            clock.restart()
        announce(server.ports, server.bundle_line, port_file)

    server.run_until_signalled(ready)
    if not server.reloader.ended_within(0.0):
        _exit(0)


def main() -> int:
    """Serve as ordered on standard input; return the exit code."""
    order = WorkerOrder.model_validate_json(sys.stdin.buffer.readline())
    for descriptor in (order.report_fd, order.seat.board_fd):  # not for the processes that a worker starts
        os.set_inheritable(descriptor, False)
    configure_logs(worker=order.seat.number)
    hold_lifeline(int(order.settings.config.serving.drain_s) + _DRAIN_SLACK_S)
    try:
        server = make_server(order.settings, _clock_of(order.settings), order.seat)
        server.start()
    except RecsysError as error:
        _report(order.report_fd, Report(error=str(error), exit_code=error.exit_code))
        return error.exit_code
    server.run_until_signalled(lambda: _report(order.report_fd, Report(bundle=server.bundle_line)))
    return 0


def _clock_of(settings: ServeSettings) -> Clock:
    clock = settings.clock
    return clock_from(clock.start, clock.rate, clock.since_ns)


def _require_log(folder: Path) -> None:
    """Refuse a folder of something else: a journal that is written there is read by no night."""
    if not InteractionLog(folder).holds(FOLDER):
        raise ConfigError(
            f"--log {folder} holds other things than an interaction log: it has no folder {FOLDER}, "
            f"{' or '.join(sorted(TABLES))}; name the folder that `recsys convert` or `recsys simulate` "
            "wrote, or an empty one"
        )


def _report(descriptor: int, report: Report) -> None:
    os.write(descriptor, report.model_dump_json().encode() + b"\n")


def _exit(code: int) -> NoReturn:
    """End at once: everything is closed by now.

    Taking torch's modules down takes a second of processor, and breaks a thread that computes with them.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _exit(main())
