"""The turn to upsert: of all servers of one LOG, one at a time encodes and writes items.

An item's row is encoded from the patches of all servers. A server that has not read another one's patch
would show, and check, a row without it.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from recsys.errors import JournalError
from recsys.files import make_folder
from serving.request import Deadline, OverloadedError

LOCK = "upserts.lock"
_RETRY_S = 0.002
# Of the time left: so long a server waits for its turn, to have the rest for encoding.
_WAIT_SHARE = 0.5
_log = structlog.get_logger(__name__)


class UpsertTurn:
    """Gives a server its turn; safe to call from many threads.

    Args: folder: the journal's; catch_up: takes in what other servers wrote.
    """

    def __init__(self, folder: Path, catch_up: Callable[[], None]) -> None:
        self._folder = folder
        self._catch_up = catch_up

    @contextmanager
    def taken(self, deadline: Deadline) -> Iterator[None]:
        """Wait for the turn, catch up, and keep other servers out.

        Raises: OverloadedError when others keep it for too long; JournalError when the folder cannot be used.
        """
        try:
            make_folder(self._folder)
            descriptor = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            _lock(descriptor, deadline)
            try:
                self._catch_up()
            except OSError as error:
                raise self._unusable(error) from error
            yield
        finally:
            os.close(descriptor)

    def _unusable(self, error: OSError) -> JournalError:
        return JournalError(
            f"the journal's folder {self._folder} cannot be used: {error.strerror or error}; free space or "
            "fix permissions. Until then, no item is written"
        )


def _lock(descriptor: int, deadline: Deadline) -> None:
    give_up_s = time.monotonic() + _WAIT_SHARE * deadline.remaining_s()
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= give_up_s:
                raise OverloadedError("other servers are writing items; retry") from None
            time.sleep(_RETRY_S)
        except OSError as error:  # some file systems have no locks
            _log.warning("upserts_not_locked", error=str(error))
            return
        else:
            return
