"""Server logs: JSON lines on stderr. No log entry contains a user id."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from structlog.typing import Processor


def configure_logs(level: int = logging.INFO, worker: int | None = None) -> None:
    """Send structured logs to stderr, one JSON object per line.

    Args: worker: this process's number among those that write to one stream; each entry has it.
    """
    structlog.configure(
        processors=[
            *([] if worker is None else [_numbered(worker)]),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )


def _numbered(worker: int) -> Processor:
    def add(_: Any, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        entry.setdefault("worker", worker)
        return entry

    return add
