"""Follows the live pointer: loads the version it names and swaps the engine between requests.

When the new bundle cannot be loaded, the old one keeps answering and `Reloader.error` says why.
"""

import threading
import time
from collections.abc import Callable

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
        self._lease: tuple[str | None, float] = (None, 0.0)
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
                self._renew_lease()
            except (RecsysError, OSError) as error:
                self._report(f"the registry cannot be used: {error}")
            self._on_check(self.error)

    def _follow(self) -> None:
        wanted = self._pointer.current()
        if wanted == self._recommender.version:
            self.error = None
        elif wanted is not None and not self._failed_lately(wanted):
            self._replace(wanted)

    def _replace(self, version: str) -> None:
        start = time.monotonic()
        try:
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
            index_device=model.index_device,
        )

    def _failed_lately(self, version: str) -> bool:
        failed = self._failed
        return failed is not None and failed[0] == version and time.monotonic() - failed[1] < RETRY_S

    def _renew_lease(self) -> None:
        version, now = self._recommender.version, time.monotonic()
        if version != self._lease[0] or now - self._lease[1] >= LEASE_RENEWAL_S:
            self._pointer.write_lease(self.server_id, version)
            self._lease = (version, now)

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


def _require_version(engine: Engine, version: str) -> None:
    """Refuse a folder with another version's files: it would be loaded again at every check."""
    if engine.model.version != version:
        raise BundleError(f"its folder holds {engine.model.version}; restore it from a copy, or remove it")
