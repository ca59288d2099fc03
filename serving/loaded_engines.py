"""The engines that a server holds: the live one, and those live before it.

A kept engine is rolled back to without loading, and answers requests that name its version. It takes upserts
in a moment later than the live one, many at a time, on a thread of its own: no upsert waits for it.
"""

import threading

import structlog

from recsys.errors import BundleError
from serving.engine import Engine
from serving.request import VersionError

_CATCH_UP_S = 0.2
_log = structlog.get_logger(__name__)


class LoadedEngines:
    """The live engine and kept ones, each of another version; safe to read from many threads.

    Args: keep: how many are held in all. While one more is being loaded it comes on top.
    """

    def __init__(self, engine: Engine, keep: int) -> None:
        self._engines: tuple[Engine, ...] = (engine,)  # live first, then the latest that was live
        self._keep = keep
        self._behind: set[str | None] = set()
        """Versions of which the log says already that they could not take in what has changed."""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="kept-versions", daemon=True)

    def start(self) -> None:
        """Start to keep the engines that are not live up to date."""
        self._thread.start()

    def stop(self) -> None:
        """Stop that."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def live(self) -> Engine:
        """Return the live engine."""
        return self._engines[0]

    @property
    def all(self) -> tuple[Engine, ...]:
        """Return all engines, the live one first."""
        return self._engines

    @property
    def versions(self) -> tuple[str, ...]:
        """List the loaded versions, the live one first."""
        return tuple(version for engine in self._engines if (version := engine.model.version) is not None)

    def find(self, version: str) -> Engine | None:
        """Return a version's engine; None when it is not loaded."""
        return next((engine for engine in self._engines if engine.model.version == version), None)

    def require(self, version: str | None) -> Engine:
        """Return a version's engine; None: the live one.

        Raises: VersionError listing what is loaded.
        """
        engines = self._engines
        if version is None:
            return engines[0]
        for engine in engines:
            if engine.model.version == version:
                return engine
        loaded = ", ".join(repr(e.model.version) for e in engines if e.model.version is not None)
        raise VersionError(
            f"bundle_version {version!r} is not loaded; loaded are: {loaded or 'none'}; leave the field "
            "empty, or activate that version"
        )

    def make_live(self, engine: Engine) -> None:
        """Put an engine first; those beyond `keep` are let go, and popularity without a bundle at once.

        Raises: BundleError, and changes nothing, when the engine cannot take in the latest upserts.
        """
        others = (e for e in self._engines if e.model.version not in (None, engine.model.version))
        kept = tuple(others)[: self._keep - 1]
        with engine.live_catalogue.going_live():  # no upsert comes between
            for other in kept:
                other.live_catalogue.follow_later()
            self._engines = (engine, *kept)

    def _follow(self) -> None:
        while not self._stopped.wait(_CATCH_UP_S):
            self._catch_up()  # a function of its own: a variable here would hold an engine that was let go

    def _catch_up(self) -> None:
        """Let kept engines take in what has changed, and the live one what it could not when it changed."""
        for engine in self._engines:
            version = engine.model.version
            try:
                engine.live_catalogue.catch_up()
                self._behind.discard(version)
            except BundleError as error:  # the next look tries again; other versions do not wait for it
                if version not in self._behind:
                    _log.error("not_up_to_date", version=version, error=str(error))
                self._behind.add(version)
