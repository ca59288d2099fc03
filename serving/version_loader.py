"""Makes the engines of a server: a version's from its folder, and the popular list's while there is none.

folder ──▶ model, verified ──▶ its users are in the store ──▶ upserts since then ──▶ warm ──▶ Engine
"""

from collections.abc import Callable
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from features.store import FeatureStore
from recsys.errors import BundleError, DataError, MissingUsersError, RecsysError, StoreError
from recsys.log import InteractionLog
from recsys.registry import Registry
from serving.catalogue.overlay import ItemOverlay
from serving.engine import Engine
from serving.fallback import empty_model, popular_model
from serving.patch_retention import PatchRetention
from serving.served_model import ServedModel
from serving.server_options import ServerOptions

if TYPE_CHECKING:
    from serving.prepared.loader import PreparedLoader

LoadModel = Callable[[Path, FeatureStore], ServedModel]
_log = structlog.get_logger(__name__)


class VersionLoader:
    """Makes engines, one at a time.

    Args: live_version: which version answers now, None: none does; load: bundle folder, store -> model; None:
    from the host's cache of prepared versions.
    """

    def __init__(
        self,
        options: ServerOptions,
        store: FeatureStore,
        overlay: ItemOverlay,
        retention: PatchRetention,
        live_version: Callable[[], str | None],
        load: LoadModel | None = None,
    ) -> None:
        self.load_model = load
        self._options = options
        self._registry = Registry(options.runs)
        self._store = store
        self._overlay = overlay
        self._retention = retention
        self._live_version = live_version
        self._counted: list[list[date]] | None = None
        """The log's days when its popular items were counted."""

    def require_device(self) -> None:
        """Check that a GPU, or the engine, that the config names can be used.

        Raises: ConfigError.
        """
        serving = self._options.config.serving
        if self.load_model is None and (serving.device == "cuda" or serving.engine == "bfloat16"):
            _ = self._prepared

    def stop(self) -> None:
        """End a preparation that is under way: whoever waits for it gets a BundleError."""
        if "_prepared" in vars(self):
            self._prepared.stop()

    def __call__(self, version: str) -> Engine:
        """Load a version, and warm it up.

        Raises: BundleError when it cannot be loaded, or would know no user; ConfigError when
        `[serving] device` cannot be had.
        """
        load = self.load_model or self._prepared
        try:
            model = load(self._registry.path(version), self._store)
            self._require_users(str(model.version))
            self._retention.tidy()
            self._retention.require(model.items_as_of_ms)
            return self._warm(model)
        except RecsysError:
            raise
        except Exception as error:  # whatever error a bad bundle causes in a library, the old bundle stays
            _log.exception("bundle_failed", version=version)
            raise BundleError(
                f"{version} cannot be loaded ({type(error).__name__}: {error}); rebuild it"
            ) from error

    def empty(self) -> Engine:
        """Make the engine that knows no item yet."""
        return self._engine(empty_model(self._options.config))

    def popular(self) -> Engine:
        """Make the engine of the log's popular items, without a bundle; of no items if it is unreadable."""
        return self._count() or self.empty()

    def popular_of_newer_log(self) -> Engine | None:
        """Make it again where the log has other days than when it was counted last; None where it has not.

        Before a night goes live, what is popular is all that users get: each night adds a day to the log.
        While a day cannot be read, None: what was counted before is better than nothing.
        """
        return self._count(self._counted)

    def _count(self, counted: list[list[date]] | None = None) -> Engine | None:
        """Count the log's popular items; None where its days are those that were counted, or unreadable."""
        log = InteractionLog(self._options.log)
        try:
            days = [log.days(table) for table in ("items", "feedback")]
            if days == counted:
                return None
            model = popular_model(log, self._options.config)
        except (DataError, OSError) as error:
            _log.error("log_unreadable", error=str(error))
            return None
        self._counted = days
        return self._warm(model)

    def _warm(self, model: ServedModel) -> Engine:
        engine = self._engine(model)
        engine.warm(self._options.clock.now_ms())
        return engine

    def _engine(self, model: ServedModel) -> Engine:
        config = self._options.config
        return Engine(
            model,
            self._overlay,
            policy=config.policy,
            retrieval=config.retrieval,
            item_item=config.item_item,
            candidate_log_share=config.serving.candidate_log_share,
        )

    def _require_users(self, version: str) -> None:
        """Refuse to swap to a version whose users the store does not have: every user would be unknown.

        Where no version is live yet, that is better than the popular list; the log says what is missing.
        """
        try:
            self._store.get_many(version, [])
        except MissingUsersError as error:
            remedy = f"activate a later version, or run `recsys nightly --date {version[:10]}` again"
            if self._live_version() is not None:
                raise BundleError(f"its users are missing: {error}; {remedy}") from error
            _log.error("users_missing", version=version, error=str(error), remedy=remedy)
        except StoreError as error:  # answers say so until the store is back
            _log.error("store_unavailable", version=version, error=str(error))

    @cached_property
    def _prepared(self) -> "PreparedLoader":
        """Import torch and FAISS only when there is a bundle to load; the devices are chosen once.

        Raises: ConfigError when `[serving] device` cannot be had.
        """
        from serving.devices import choose_devices, with_engine
        from serving.loading import use_threads
        from serving.prepared.loader import PreparedLoader

        serving = self._options.config.serving
        use_threads(serving.threads)
        cache = serving.cache or self._options.runs / "serving" / "cache"
        return PreparedLoader(cache, with_engine(choose_devices(serving.device), serving.engine))
