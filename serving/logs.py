"""JSON lines on stderr; ids of users never in the clear."""

import logging
import os
import sys
from hashlib import blake2b

import structlog

# A new key a process: a hash can be followed within one server's life and not be looked up in a list of
# users.
_KEY = os.urandom(16)


def configure_logs(level: int = logging.INFO) -> None:
    """Send structured logs to stderr, one JSON object a line."""
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


def hashed(identifier: str) -> str:
    """Hide an id, so that lines of one user can still be told to belong together."""
    return blake2b(identifier.encode(), key=_KEY, digest_size=6).hexdigest()
