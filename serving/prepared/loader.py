"""Loads versions from the host's cache of prepared ones."""

import time
from dataclasses import replace
from pathlib import Path

import structlog

from features.store import FeatureStore
from recsys.errors import BundleError
from serving.devices import Devices
from serving.prepared.cache import PreparedCache, PreparedFolder
from serving.prepared.child import ChildPreparer
from serving.prepared.opened import open_prepared
from serving.served_model import ServedModel

_log = structlog.get_logger(__name__)


class PreparedLoader:
    """Loads one version after the other.

    Args: folder: of the cache.
    """

    def __init__(self, folder: Path, devices: Devices) -> None:
        self._devices = devices
        self._preparer = ChildPreparer()
        self._cache = PreparedCache(folder, self._preparer)
        self._started_at = time.time()

    def __call__(self, source: Path, store: FeatureStore) -> ServedModel:
        """Prepare a bundle, unless it is prepared already, and map it.

        Raises: BundleError, ConfigError.
        """
        held = self._cache.open(source)
        try:
            model = self._open(held, source, store)
        except BundleError as error:
            if held.made_at >= self._started_at:
                raise  # this code has prepared it, for this process or another worker
            # It may be older code's, or its disk's fault: the bundle itself decides, once.
            _log.warning("prepared_again", path=str(held.path), error=str(error))
            model = self._open(self._cache.open(source, instead_of=held), source, store)
        self._preparer.urgent = False
        return model

    def stop(self) -> None:
        """End a preparation that is under way; its caller gets a BundleError."""
        self._cache.stop()
        self._preparer.stop()

    def _open(self, held: PreparedFolder, source: Path, store: FeatureStore) -> ServedModel:
        return replace(open_prepared(held.path, source, store, self._devices), files=held)
