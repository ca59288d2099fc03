"""The key that signs page tokens: one file in RUNS, shared by all workers, kept across restarts.

RUNS/serving/page_token_keys.json holds the key and the one before it, readable by its owner alone.

Rotation: the worker that finds the key a day old (or no key, or a file that others can read) makes a new one
under a lock; all workers read the file again once it has changed. The previous key is accepted for ten
minutes after the change, which is as long as any token lives, so a rotation breaks no list. To void every
token at once, remove the file.
"""

import contextlib
import fcntl
import json
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

ROTATE_MS = 24 * 3600 * 1000
_KEY_BYTES = 32
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Keys:
    """The file's contents."""

    key: bytes
    made_ms: int
    previous: bytes | None = None

    @classmethod
    def parse(cls, text: str) -> "_Keys":
        data = json.loads(text)
        previous = data["previous"]
        return cls(
            key=_key(data["key"]),
            made_ms=int(data["made_ms"]),
            previous=None if previous is None else _key(previous),
        )

    def text(self) -> str:
        previous = None if self.previous is None else self.previous.hex()
        return json.dumps({"key": self.key.hex(), "made_ms": self.made_ms, "previous": previous})

    def rotated(self, now_ms: int) -> "_Keys":
        return _Keys(key=os.urandom(_KEY_BYTES), made_ms=now_ms, previous=self.key)


class PageKeys:
    """Keys that sign and check tokens; safe to call from many threads and processes.

    Args: accept_ms: how long the previous key is accepted. Where the folder cannot be written, the key is
    kept in memory: tokens are then good for this process alone.
    """

    def __init__(self, folder: Path, accept_ms: int) -> None:
        self._path = folder / "page_token_keys.json"
        self._accept_ms = accept_ms
        self._lock = threading.Lock()
        self._read_at: tuple[int, int] | None = None
        """Inode and time of the file that the keys were read from."""
        self._keys: _Keys | None = None
        self._in_memory: _Keys | None = None

    def signing(self, now_ms: int) -> bytes:
        """Return the key to sign with."""
        return self._current(now_ms).key

    def accepted(self, now_ms: int) -> list[bytes]:
        """List the keys whose signatures are accepted."""
        keys = self._current(now_ms)
        if keys.previous is None or now_ms - keys.made_ms > self._accept_ms:
            return [keys.key]
        return [keys.key, keys.previous]

    def _current(self, now_ms: int) -> _Keys:
        with self._lock:
            try:
                keys = self._read()
                if keys is None or now_ms - keys.made_ms >= ROTATE_MS:
                    keys = self._replace(now_ms)
                self._in_memory = None
            except OSError as error:
                keys = self._without_file(now_ms, error)
            return keys

    def _read(self) -> _Keys | None:
        """Read the file if it has changed; None when there is no usable one."""
        try:
            state = self._path.stat()
        except FileNotFoundError:
            self._read_at = None
            return None
        if self._read_at != (state.st_ino, state.st_mtime_ns):
            self._keys = None
            if stat.S_IMODE(state.st_mode) & 0o077:
                _log.error("page_token_key_was_readable_by_others", path=str(self._path))
                return None
            try:
                self._keys = _Keys.parse(self._path.read_text())
            except (ValueError, KeyError, TypeError) as error:
                _log.error("page_token_key_is_damaged", path=str(self._path), error=str(error))
                return None
            self._read_at = (state.st_ino, state.st_mtime_ns)
        return self._keys

    def _replace(self, now_ms: int) -> _Keys:
        """Write a new key, unless another process has just done so."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self._path.with_suffix(".lock")):
            keys = self._read()
            if keys is None:
                keys = _Keys(key=os.urandom(_KEY_BYTES), made_ms=now_ms)
            elif now_ms - keys.made_ms >= ROTATE_MS:
                keys = keys.rotated(now_ms)
            else:
                return keys
            _write_private(self._path, keys.text())
            state = self._path.stat()
            self._keys, self._read_at = keys, (state.st_ino, state.st_mtime_ns)
        return keys

    def _without_file(self, now_ms: int, error: OSError) -> _Keys:
        """Return the keys last read from the file, or a key of this process alone."""
        if self._in_memory is None:
            _log.error("page_token_key_in_memory", path=str(self._path), error=str(error))
            self._in_memory = self._keys or _Keys(key=os.urandom(_KEY_BYTES), made_ms=now_ms)
        return self._in_memory


def _key(text: str) -> bytes:
    key = bytes.fromhex(text)
    if len(key) != _KEY_BYTES:
        raise ValueError(f"a key has {len(key)} bytes, not {_KEY_BYTES}")
    return key


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write_private(path: Path, text: str) -> None:
    """Replace a file by one that only its owner can read."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
