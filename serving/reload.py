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

# While no version answers, so often the log is asked for days that the popular items are not counted of.
RECOUNT_S = 60.0
# A version that failed to load is tried again after this: it may have been repaired on disk.
RETRY_S = 30.0
LEASE_RENEWAL_S = 10.0
_log = structlog.get_logger(__name__)


class Reloader:
    """Loads the live version in a thread of its own whenever the pointer moves.

    Args: load: version -> engine, verified and warm; raises RecsysError when the bundle cannot be loaded.
          on_check: called after every check with the reason why the live version does not answer (None: it
          does).
          recount: while no version answers: a newer engine of the log's popular items, None where it has no
          other days.
    """

    def __init__(
        self,
        pointer: LivePointer,
        recommender: Recommender,
        load: Callable[[str], Engine],
        server_id: str,
        poll_s: float,
        on_check: Callable[[str | None], None] = lambda _: None,
        recount: Callable[[], Engine | None] = lambda: None,
    ) -> None:
        self.server_id = server_id
        self.error: str | None = None
        """Why the live version is not the one that answers; None when it is."""
        self._pointer = pointer
        self._recommender = recommender
        self._load = load
        self._poll_s = poll_s
        self._on_check = on_check
        self._recount = recount
        self._recounted = time.monotonic()
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
        """Let nothing more go live, and let the thread end; waits for nothing."""
        self._stopped = True
        self._wake.set()

    def ended_within(self, limit_s: float) -> bool:
        """Wait for a load in progress, once stopped; return False when it goes on after so many seconds."""
        if self._thread.is_alive():
            self._thread.join(limit_s)
        return not self._thread.is_alive()

    def check_now(self) -> None:
        """Check the pointer now, without waiting for the next poll; also try a version that failed before."""
        self._failed = None
        self._wake.set()

    def check(self) -> None:
        """Check once: load and swap when another version is live, and renew the lease."""
        with self._checking:
            try:
                self._follow()
                self._follow_log()
                if not self._stopped:
                    self._lease.renew()
            except (RecsysError, OSError) as error:
                self._report(f"the registry cannot be used: {error}")
            if not self._stopped:
                self._on_check(self.error)

    def _follow(self) -> None:
        """Go where the pointer leads; it may have moved again while a version was loaded."""
        while (wanted := self._pointer.current()) != self._recommender.version:
            if self._stopped or wanted is None or self._swap_to_kept() or self._failed_lately(wanted):
                return
            self._replace(wanted)
        self.error = None

    def _follow_log(self) -> None:
        """While no version answers, let the popular items be those of the days that the log has by now."""
        now = time.monotonic()
        if self._recommender.version is not None or now - self._recounted < RECOUNT_S:
            return
        self._recounted = now
        if (engine := self._recount()) is not None and not self._stopped:
            self._recommender.swap(engine)
            _log.info("popular_items_counted", items=len(engine.model.catalogue))

    def _swap_to_kept(self) -> bool:
        """Make the version that the pointer names live, if it is kept; tell whether it is live, or kept."""
        wanted = self._pointer.current()
        if wanted is None or wanted == self._recommender.version:
            return wanted is not None
        kept = self._recommender.loaded.find(wanted)
        if kept is None:
            return False
        self._make_live(kept, wanted)
        return True

    def _make_live(self, engine: Engine, version: str) -> bool:
        """Swap to an engine; report it when that cannot take in the latest upserts, and return False."""
        try:
            self._recommender.swap(engine)
        except BundleError as error:
            self._report(f"{version} does not go live: {error}")
            return False
        self.error = None
        return True

    def _replace(self, version: str) -> None:
        start = time.monotonic()
        try:
            with self._attending_to(version):
                engine = self._load(version)
            _require_version(engine, version)
        except (RecsysError, OSError) as error:
            self._failed = (version, time.monotonic())
            self._report(f"{version} was not loaded: {error}")
            return
        self.error = None
        if self._stopped or self._pointer.current() not in (version, None):
            _log.info("loaded_in_vain", version=version, serving=self._recommender.version)
            return  # it may be the harm that another activation, or a rollback, has just ended
        if not self._make_live(engine, version):
            self._failed = (version, time.monotonic())
            return
        model = engine.model
        _log.info(
            "loaded",
            version=version,
            seconds=round(time.monotonic() - start, 3),
            device=model.device,
            engine=model.engine,
            index_device=model.index_device,
        )

    @contextmanager
    def _attending_to(self, version: str) -> Iterator[None]:
        """While a version loads, for minutes perhaps, renew the lease, and go to a kept one that is wanted.

        A rollback from a version that does harm does not wait for another one's loading.
        """
        loaded = threading.Event()

        def look() -> None:
            try:
                self._lease.renew(version)
                self._swap_to_kept()
            except (RecsysError, OSError) as error:  # loading goes on: the next look may succeed
                _log.error("registry_not_usable", error=str(error))

        def keep_looking() -> None:
            while not (loaded.is_set() or self._stopped):
                look()
                self._wake.wait(min(self._poll_s, LEASE_RENEWAL_S))
                self._wake.clear()

        look()  # the lease is written before anything is read
        thread = threading.Thread(target=keep_looking, name="while-loading", daemon=True)
        thread.start()
        try:
            yield
        finally:
            loaded.set()
            self._wake.set()
            thread.join()

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
            try:
                self.check()
            except Exception:  # a thread that ends would follow nothing and renew no lease
                _log.exception("not_checked")


class _Lease:
    """Names what the recommender holds, and what is being loaded."""

    def __init__(self, pointer: LivePointer, server_id: str, recommender: Recommender) -> None:
        self._pointer = pointer
        self._server_id = server_id
        self._recommender = recommender
        self._written: tuple[tuple[str | None, ...], float] = ((), 0.0)
        self._failing = False

    def renew(self, *loading: str) -> None:
        """Write the lease if it is old, or other versions are loaded now.

        Where it cannot be written, the server goes on, and the log says so once: what it holds may be
        collected, which takes only the users of those versions from it.
        """
        live, loaded = self._recommender.version, self._recommender.loaded.versions
        versions, now = (live, *loaded, *loading), time.monotonic()
        if versions != self._written[0] or now - self._written[1] >= LEASE_RENEWAL_S:
            others = [version for version in (*loaded, *loading) if version != live]
            try:
                self._pointer.write_lease(self._server_id, live, others)
            except OSError as error:
                if not self._failing:
                    remedy = "let the server write there, or nights may collect the users of what it holds"
                    _log.error("lease_not_written", error=str(error), remedy=remedy)
                self._failing = True
                return
            self._written, self._failing = (versions, now), False


def _require_version(engine: Engine, version: str) -> None:
    """Refuse a folder with another version's files: it would be loaded again at every check."""
    if engine.model.version != version:
        raise BundleError(f"its folder holds {engine.model.version}; restore it from a copy, or remove it")
