"""What a parent process tells its workers, and what they report to it."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from recsys.config import RunConfig
from serving.addresses import Tls


class _Message(BaseModel):
    """One line of JSON on a pipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ClockSetting(_Message):
    """`--clock-start` and `--clock-rate`; without a start it is the machine's clock."""

    start: str | None = None
    rate: float = 1.0
    since_ns: int | None = None
    """Where `time.monotonic_ns` stood at the start, so that all workers have one time; None: now."""


class ServeSettings(_Message):
    """What `recsys serve` was asked for: config, folders and addresses."""

    config_file: Path
    """For error messages: the config is not read again."""
    config: RunConfig
    log: Path
    runs: Path
    clock: ClockSetting = ClockSetting()
    listen: str
    admin_listen: str
    metrics_listen: str | None = None
    insecure: bool = False
    tls: Tls | None = None
    reflection: bool = False

    @property
    def addresses(self) -> dict[str, str | None]:
        """Give each option of an address, and where it listens; None: nowhere."""
        return {
            "--listen": self.listen,
            "--admin-listen": self.admin_listen,
            "--metrics-listen": self.metrics_listen,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSeat:
    """A worker's place among the processes of one server."""

    number: int
    """From 0."""
    num_workers: int
    board_fd: int
    """Memory that all processes map: the stats board."""
    sockets: Path | None = None
    """Folder in which each worker listens for its siblings; None: they hand no calls over."""


class WorkerOrder(_Message):
    """Tells a new process what to serve; the first line of its standard input, which ends with its parent."""

    settings: ServeSettings
    seat: WorkerSeat
    report_fd: int
    """Where reports are written."""


class Report(_Message):
    """A worker's first report: it serves, or it cannot."""

    bundle: str = ""
    """Which bundle answers, as the command's first line says it."""
    error: str | None = None
    exit_code: int = 0
