"""CURRENT -> a new Engine, swapped between requests. When a bundle cannot be trusted, the old one stays."""

import threading
import time
from collections.abc import Callable

import structlog

from recsys.errors import RecsysError
from serving.engine import Engine
from serving.ports import Versions
from serving.recommender import Recommender

# A version that failed is tried again after this: the disk may have been repaired.
RETRY_S = 30.0
LEASE_EVERY_S = 10.0
_log = structlog.get_logger(__name__)


class Reloader:
    """Follows the live pointer.

    Args: load: version -> engine, verified and warm; raises RecsysError when the bundle cannot be trusted.
          on_check: hears after every look why the live version is not the one that answers (None: it is).
    """

    def __init__(
        self,
        versions: Versions,
        recommender: Recommender,
        load: Callable[[str], Engine],
        server_id: str,
        poll_s: float,
        on_check: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        self.server_id = server_id
        self.error: str | None = None
        """Why the live version is not the one that answers."""
        self._versions = versions
        self._recommender = recommender
        self._load = load
        self._poll_s = poll_s
        self._on_check = on_check
        self._failed: tuple[str, float] | None = None
        self._leased: tuple[str | None, float] = (None, 0.0)
        self._checking = threading.Lock()
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="reload", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """Stop following; a load under way is waited for."""
        self._stopped = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def hurry(self) -> None:
        """Look at the pointer now, also at a version that failed before."""
        self._failed = None
        self._wake.set()

    def check(self) -> None:
        """Look once: load and swap when another version is live, and renew the lease."""
        with self._checking:
            try:
                self._follow()
                self._renew_lease()
            except (RecsysError, OSError) as error:
                self._note(f"the registry cannot be used: {error}")
            self._on_check(self.error)

    def _follow(self) -> None:
        wanted = self._versions.current()
        if wanted == self._recommender.version:
            self.error = None
        elif wanted is not None and not self._failed_lately(wanted):
            self._replace(wanted)

    def _replace(self, version: str) -> None:
        start = time.monotonic()
        try:
            engine = self._load(version)
        except (RecsysError, OSError) as error:
            self._failed = (version, time.monotonic())
            self._note(f"{version} was not loaded: {error}")
            return
        self._recommender.swap(engine)
        self.error = None
        _log.info("loaded", version=version, seconds=round(time.monotonic() - start, 3))

    def _failed_lately(self, version: str) -> bool:
        failed = self._failed
        return failed is not None and failed[0] == version and time.monotonic() - failed[1] < RETRY_S

    def _renew_lease(self) -> None:
        version, now = self._recommender.version, time.monotonic()
        if version != self._leased[0] or now - self._leased[1] >= LEASE_EVERY_S:
            self._versions.write_lease(self.server_id, version)
            self._leased = (version, now)

    def _note(self, error: str) -> None:
        if error != self.error:
            _log.error("reload_failed", error=error, serving=self._recommender.version)
        self.error = error

    def _run(self) -> None:
        while not self._stopped:
            self._wake.wait(self._poll_s)
            self._wake.clear()
            if not self._stopped:
                self.check()
