"""The folder of prepared versions on one host, private to the user that the servers run as.

    <key>/            a prepared version; complete, since it is renamed into place
    <key>/in-use      every process that uses it holds a shared lock on this
    .<key>.lock       whoever prepares or removes it holds this; why the last preparation failed
    .<key>.new        being prepared

A key is version, hash of the manifest and number of the format. Locks go with their processes: what a killed
one leaves is removed by the next that opens a version. Processes that ask for one version at the same time
wait for the first one's result, which may be its error.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import stat
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import structlog

from recsys.errors import BundleError, ConfigError
from recsys.manifest import Manifest, read_manifest
from recsys.stages import disk_failure
from serving.prepared.listing import IN_USE, LISTING, is_as_listed

FORMAT = 3
"""Changes whenever a folder prepared by older code must not be used."""
_ENTRY = re.compile(r"\.?(?P<key>[^.].*\.[0-9a-f]{20}\.\d+)(\.(lock|new|old))?")
_POLL_S = 0.05
_REASON_BYTES = 4096
_log = structlog.get_logger(__name__)
Prepare = Callable[[Path, Path, Path, int], None]
"""Given a bundle, a folder to fill, its final name, and the lock to hold meanwhile."""


class PreparedFolder:
    """A prepared version in use; nobody removes it while this object lives."""

    def __init__(self, path: Path, lock: int, *, is_new: bool) -> None:
        self.path = path
        self.is_new = is_new
        """Whether it was prepared for this object."""
        self._release = weakref.finalize(self, os.close, lock)
        self.made_at = (path / LISTING).stat().st_mtime
        """When it was prepared, in seconds since 1970; another process may replace it later."""

    def release(self) -> None:
        """Use it no more."""
        self._release()


class PreparedCache:
    """Prepared versions in one folder; used by one thread at a time.

    Args: prepare: fills a folder.
    """

    def __init__(self, folder: Path, prepare: Prepare) -> None:
        self._folder = folder
        self._prepare = prepare
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let whoever waits for another process's preparation wait no longer."""
        self._stopped.set()

    def open(self, source: Path, *, instead_of: PreparedFolder | None = None) -> PreparedFolder:
        """Give a bundle's prepared folder, preparing it if it is not there.

        Args: instead_of: one of this bundle that is no good: it is prepared again, unless another process has
        done so already.
        Raises: BundleError for a damaged bundle, or when the cache has no room; ConfigError for a cache that
        others could change.
        """
        asked_ns = time.time_ns()
        manifest = read_manifest(source)
        with self._disk_errors():
            require_private(self._folder)
            key = key_of(manifest)
            with self._locked(key) as lock:  # which the collection leaves alone
                self.collect()
                found = self._use(key, is_new=False)
                if found is not None and instead_of is not None and found.made_at == instead_of.made_at:
                    found = None
                if found is None:
                    _raise_failure_since(asked_ns, lock)
                    self._make(source, key, lock)
                    found = self._use(key, is_new=True)
        if found is None:
            raise BundleError(f"{self._folder / key} vanished when it was made; let nobody write there")
        return found

    def collect(self) -> None:
        """Remove versions that no process uses, and what killed ones have left."""
        names = (_ENTRY.fullmatch(entry.name) for entry in self._folder.iterdir())
        for key in sorted({name["key"] for name in names if name is not None}):
            lock = _try_lock(self._lock_file(key), fcntl.LOCK_EX)
            if lock is None:
                continue  # it is being prepared, or opened
            try:
                self._remove_leftovers(key)
                if not self._is_used(key):
                    self._remove(key)
                    self._lock_file(key).unlink(missing_ok=True)
            finally:
                os.close(lock)

    def _make(self, source: Path, key: str, lock: int) -> None:
        self._remove_leftovers(key)
        self._remove(key)
        temporary = self._folder / f".{key}.new"
        os.ftruncate(lock, 0)
        try:
            with self._disk_errors():
                self._prepare(source, temporary, self._folder / key, lock)
        except BundleError as error:
            if not self._stopped.is_set():  # a reason of this process alone
                with contextlib.suppress(OSError):  # a full disk: each process finds that out itself
                    os.pwrite(lock, str(error).encode()[:_REASON_BYTES], 0)
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _use(self, key: str, *, is_new: bool) -> PreparedFolder | None:
        """Take a folder into use; None when it is missing, or not as it was prepared."""
        path = self._folder / key
        if not is_as_listed(path):
            if path.exists():
                _log.error("prepared_version_changed", path=str(path), remedy="it is prepared again")
            return None
        lock = _try_lock(path / IN_USE, fcntl.LOCK_SH)
        return None if lock is None else PreparedFolder(path, lock, is_new=is_new)

    def _is_used(self, key: str) -> bool:
        path = self._folder / key / IN_USE
        if not path.exists():
            return False
        lock = _try_lock(path, fcntl.LOCK_EX)
        if lock is not None:
            os.close(lock)
        return lock is None

    def _remove(self, key: str) -> None:
        """Remove a version under its lock; who has mapped it goes on reading it."""
        path, old = self._folder / key, self._folder / f".{key}.old"
        if path.is_symlink() or not path.exists():
            path.unlink(missing_ok=True)
            return
        os.rename(path, old)  # whole or not at all, should this process be killed
        shutil.rmtree(old, ignore_errors=True)

    def _remove_leftovers(self, key: str) -> None:
        for suffix in ("new", "old"):
            shutil.rmtree(self._folder / f".{key}.{suffix}", ignore_errors=True)

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pl.exceptions.PolarsError) as error:
            reason = disk_failure(error)
            if reason is None:
                raise
            raise BundleError(
                f"a version cannot be prepared in {self._folder}: {reason}; free the disk, or name another "
                "folder in [serving] cache"
            ) from error

    def _lock_file(self, key: str) -> Path:
        return self._folder / f".{key}.lock"

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[int]:
        while (lock := _try_lock(self._lock_file(key), fcntl.LOCK_EX)) is None:
            if self._stopped.wait(_POLL_S):
                raise BundleError("the server stops")
        try:
            yield lock
        finally:
            os.close(lock)


def key_of(manifest: Manifest) -> str:
    """Name a version's folder."""
    digest = hashlib.sha256(manifest.model_dump_json().encode()).hexdigest()
    return f"{manifest.version}.{digest[:20]}.{FORMAT}"


def require_private(folder: Path) -> None:
    """Make a folder that only this user can read and change, or check that one is that.

    Raises: ConfigError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode):
        problem = "is a link, or no folder"
    elif state.st_uid != os.geteuid():
        problem = f"belongs to user {state.st_uid}, not to {os.geteuid()}"
    elif stat.S_IMODE(state.st_mode) & 0o077:
        problem = f"can be read or changed by others (mode {stat.S_IMODE(state.st_mode):o}, not 700)"
    else:
        return
    raise ConfigError(
        f"the cache of prepared versions {folder} {problem}; remove it, or name another in [serving] cache"
    )


def _raise_failure_since(asked_ns: int, lock: int) -> None:
    """Raise the error of a preparation that failed while this process waited: its own would fail as well."""
    if os.fstat(lock).st_mtime_ns >= asked_ns and (reason := os.pread(lock, _REASON_BYTES, 0)):
        raise BundleError(reason.decode(errors="replace"))


def _try_lock(path: Path, kind: int) -> int | None:
    """Lock a file, made if it is not there; None when another process holds it, or it is being removed."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if path.name != IN_USE else 0)
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == path.stat().st_ino:  # not one that has just been removed
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
