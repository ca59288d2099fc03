"""Gathers what this worker says of itself, and writes it onto the stats board."""

import os
import time

from features.store import FeatureStore
from serving.clock import Clock
from serving.journal import Journal
from serving.recommender import Recommender
from serving.stats import ServerStats
from serving.worker_facts import WorkerFacts

# A store may be on another host: it is not asked more often.
_ASK_STORE_S = 1.0


class FactsPublisher:
    """Publishes the facts of one worker, whenever it is told to."""

    def __init__(
        self,
        stats: ServerStats,
        recommender: Recommender,
        journal: Journal,
        store: FeatureStore,
        store_kind: str,
        clock: Clock,
        server_id: str,
    ) -> None:
        self._stats = stats
        self._recommender = recommender
        self._journal = journal
        self._store = store
        self._store_kind = store_kind
        self._clock = clock
        self._server_id = server_id
        self._started_at_ms = clock.now_ms()
        self._asked_s = -_ASK_STORE_S
        self._store_health: dict[str, str] = {}

    def publish(self, reload_error: str | None) -> None:
        """Gather the facts and publish them.

        Args: reload_error: why the live version does not answer; None: it does.
        """
        model = self._recommender.engine.model
        self._stats.publish(
            WorkerFacts(
                server_id=self._server_id,
                pid=os.getpid(),
                version=model.version or "",
                loaded_versions=self._recommender.loaded.versions,
                loaded_at_ms=self._recommender.loaded_at_ms,
                started_at_ms=self._started_at_ms,
                published_at_ms=self._clock.now_ms(),
                reload_error=reload_error or "",
                index_kind=model.index_kind,
                index_device=model.index_device,
                device=model.device,
                engine=model.engine,
                engines_refused=model.engines_refused,
                store=self.store_health(),
                journal_healthy=self._journal.healthy,
                journal_bytes=self._journal.num_bytes,
            )
        )

    def store_health(self) -> dict[str, str]:
        """Ask the store how it is, or say what it answered within the last second."""
        if time.monotonic() - self._asked_s >= _ASK_STORE_S:
            self._store_health = {"kind": self._store_kind, **self._store.health()}
            self._asked_s = time.monotonic()
        return self._store_health
