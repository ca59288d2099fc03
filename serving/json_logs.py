"""Server logs: JSON lines on stderr. No log entry contains a user id."""

import logging
import sys

import structlog


def configure_logs(level: int = logging.INFO) -> None:
    """Send structured logs to stderr, one JSON object per line."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
