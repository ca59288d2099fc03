"""Follows the live pointer: loads the version it names and swaps the engine between requests.

A version that is still loaded is swapped to without loading. When a new one cannot be loaded, the old one
keeps answering and `Reloader.error` says why. A lease names everything that is loaded, or is being loaded, so
that no collection of old versions takes it away meanwhile.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from recsys.errors import BundleError, RecsysError
from serving.engine import Engine
from serving.protocols import LivePointer
from serving.recommender import Recommender

# A version that failed to load is tried again after this: it may have been repaired on disk.
RETRY_S = 30.0
LEASE_RENEWAL_S = 10.0
_log = structlog.get_logger(__name__)


class Reloader:
    """Loads the live version in a thread of its own whenever the pointer moves.

    Args: load: version -> engine, verified and warm; raises RecsysError when the bundle cannot be loaded.
          on_check: called after every check with the reason why the live version does not answer (None: it
          does).
    """

    def __init__(
        self,
        pointer: LivePointer,
        recommender: Recommender,
        load: Callable[[str], Engine],
        server_id: str,
        poll_s: float,
        on_check: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        self.server_id = server_id
        self.error: str | None = None
        """Why the live version is not the one that answers; None when it is."""
        self._pointer = pointer
        self._recommender = recommender
        self._load = load
        self._poll_s = poll_s
        self._on_check = on_check
        self._failed: tuple[str, float] | None = None
        self._lease = _Lease(pointer, server_id, recommender)
        self._checking = threading.Lock()
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="reload", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; waits for a load in progress."""
        self._stopped = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def check_now(self) -> None:
        """Check the pointer now, without waiting for the next poll; also try a version that failed before."""
        self._failed = None
        self._wake.set()

    def check(self) -> None:
        """Check once: load and swap when another version is live, and renew the lease."""
        with self._checking:
            try:
                self._follow()
                self._lease.renew()
            except (RecsysError, OSError) as error:
                self._report(f"the registry cannot be used: {error}")
            self._on_check(self.error)

    def _follow(self) -> None:
        wanted = self._pointer.current()
        if wanted == self._recommender.version:
            self.error = None
        elif wanted is not None and not self._failed_lately(wanted):
            kept = self._recommender.loaded.find(wanted)
            if kept is None:
                self._replace(wanted)
            else:
                self._recommender.swap(kept)
                self.error = None

    def _replace(self, version: str) -> None:
        start = time.monotonic()
        try:
            with self._lease.loading(version):
                engine = self._load(version)
            _require_version(engine, version)
        except (RecsysError, OSError) as error:
            self._failed = (version, time.monotonic())
            self._report(f"{version} was not loaded: {error}")
            return
        self._recommender.swap(engine)
        self.error = None
        model = engine.model
        _log.info(
            "loaded",
            version=version,
            seconds=round(time.monotonic() - start, 3),
            device=model.device,
            engine=model.engine,
            index_device=model.index_device,
        )

    def _failed_lately(self, version: str) -> bool:
        failed = self._failed
        return failed is not None and failed[0] == version and time.monotonic() - failed[1] < RETRY_S

    def _report(self, error: str) -> None:
        if error != self.error:
            _log.error("reload_failed", error=error, serving=self._recommender.version)
        self.error = error

    def _run(self) -> None:
        while not self._stopped:
            self._wake.wait(self._poll_s)
            self._wake.clear()
            if not self._stopped:
                self.check()


class _Lease:
    """Names what the recommender holds, and what is being loaded."""

    def __init__(self, pointer: LivePointer, server_id: str, recommender: Recommender) -> None:
        self._pointer = pointer
        self._server_id = server_id
        self._recommender = recommender
        self._written: tuple[tuple[str | None, ...], float] = ((), 0.0)

    def renew(self, *loading: str) -> None:
        """Write the lease if it is old, or other versions are loaded now.

        Raises: OSError.
        """
        live, loaded = self._recommender.version, self._recommender.loaded.versions
        versions, now = (live, *loaded, *loading), time.monotonic()
        if versions != self._written[0] or now - self._written[1] >= LEASE_RENEWAL_S:
            others = [version for version in (*loaded, *loading) if version != live]
            self._pointer.write_lease(self._server_id, live, others)
            self._written = (versions, now)

    @contextmanager
    def loading(self, version: str) -> Iterator[None]:
        """Name a version too and go on renewing, on a thread: loading may take minutes."""
        loaded = threading.Event()

        def try_renewing() -> None:
            try:
                self.renew(version)
            except OSError as error:  # loading goes on: the next renewal may succeed
                _log.error("lease_not_renewed", error=str(error))

        def keep_renewing() -> None:
            while not loaded.wait(LEASE_RENEWAL_S):
                try_renewing()

        try_renewing()
        thread = threading.Thread(target=keep_renewing, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            loaded.set()
            thread.join()


def _require_version(engine: Engine, version: str) -> None:
    """Refuse a folder with another version's files: it would be loaded again at every check."""
    if engine.model.version != version:
        raise BundleError(f"its folder holds {engine.model.version}; restore it from a copy, or remove it")
