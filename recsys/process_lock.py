"""A lock on a file that dies with its process, and that says who holds it."""

import fcntl
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.errors import RegistryError

_COMMAND_LETTERS = 300


class Holder(BaseModel):
    """The process that holds a lock."""

    model_config = ConfigDict(frozen=True)

    host: str
    pid: int
    since: datetime
    command: str

    @classmethod
    def this(cls) -> Self:
        """Describe this process."""
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:_COMMAND_LETTERS]
        return cls(host=socket.gethostname(), pid=os.getpid(), since=datetime.now(UTC), command=command)

    def __str__(self) -> str:
        """Say it in words."""
        return f"{self.command}, process {self.pid} on {self.host} since {self.since:%Y-%m-%d %H:%M:%S} UTC"


@contextmanager
def process_lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock until the block ends; its file names this process meanwhile.

    Raises: RegistryError at once, naming the holder, when another process has it and `wait` is False.
    """
    with path.open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise RegistryError(
                f"another process holds {path}: {holder_of(path) or 'it says nothing of itself'}; wait "
                "for it, or stop it: the lock goes with its process"
            ) from None
        stream.truncate(0)
        stream.write(Holder.this().model_dump_json())
        stream.flush()
        try:
            yield
        finally:
            stream.truncate(0)  # nobody, once the lock is gone


def holder_of(path: Path) -> Holder | None:
    """Read who holds a lock, or held it when its process was killed; None: nobody."""
    try:
        return Holder.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None
