"""A running server: builds its parts from the config, starts and drains them."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc
import polars as pl
import structlog
from grpc_health.v1 import health  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]

from features.definitions import known_kinds, live_kinds
from features.kinds import FEATURE_KINDS
from protos.recsys.v1 import admin_pb2_grpc, ranking_pb2_grpc
from recsys.config import PERIOD_S
from recsys.journal import FOLDER
from recsys.registry import Registry
from serving.addresses import check_address, is_loopback, require_protection
from serving.admin import AdminService
from serving.call_log import CallLog, log_key
from serving.call_queue import Admission, CallQueue
from serving.catalogue.overlay import ItemOverlay
from serving.clock import OrderedClock
from serving.facts_publisher import FactsPublisher
from serving.feedback import FeedbackRecorder
from serving.hand_over import HandOver
from serving.health_service import ADMIN, BUNDLE, RANKING, Health
from serving.interceptors import Guard
from serving.journal import Journal
from serving.journal_tail import JournalTail
from serving.listen import ChannelOptions, bind, server_options
from serving.pages.keys import PageKeys
from serving.pages.tokens import VALID_MS, PageTokens
from serving.patch_retention import PatchRetention
from serving.processes.announce import Ports
from serving.recommender import Recommender
from serving.reload import Reloader
from serving.request_checks import Limits
from serving.restore import JournalFollower, restore_from_journal
from serving.server_options import (
    ServerOptions,
    board_of,
    num_ranking_threads,
    open_store_under,
    server_id_of,
)
from serving.service import RankingService
from serving.session_merger import SessionMerger
from serving.upsert_turn import UpsertTurn
from serving.upserts import ItemUpserter
from serving.version_loader import LoadModel, VersionLoader

if TYPE_CHECKING:
    from serving.prometheus import MetricsServer

_log = structlog.get_logger(__name__)


class Server:
    """One server process: engine, journal, store, reloader and the two gRPC ports.

    Args: load: bundle folder, store -> model; default: `serving.prepared`.
    Raises: ConfigError for an address that cannot or must not be bound, or a GPU that cannot be used.
    """

    def __init__(self, options: ServerOptions, load: LoadModel | None = None) -> None:
        self._options = options
        config = options.config
        self._held = options.seat is not None
        """The parent holds the ports, which all workers share."""
        self.server_id = server_id_of(options.seat)
        self.board, self._worker = board_of(options.seat)
        self.stats = self.board.own(self._worker)
        self._registry = Registry(options.runs)
        self._store = open_store_under(config, options.runs)
        self._overlay = ItemOverlay()
        self.journal = Journal(
            options.log / FOLDER, self.server_id, options.clock.now_ms, rotate_s=config.serving.rotate
        )
        self._retention = self._patch_retention()
        self.loader = VersionLoader(
            options, self._store, self._overlay, self._retention, lambda: self.recommender.version, load
        )
        self.loader.require_device()  # before anything is bound
        clock = OrderedClock(options.clock)
        self.recommender = self._recommender(clock)
        kinds = live_kinds(config)
        self._feedback = FeedbackRecorder(
            self.journal, self._store, clock, config.tasks, kinds, known_kinds(config)
        )
        self._session_merger = SessionMerger(self._feedback, self._store, lambda: self.recommender.version)
        self._others = self._restore(kinds)
        self.reloader = self._reloader()
        self._facts = self._facts_publisher()
        self._health = Health()
        self._call_log = self._make_call_log()
        # A second ranking thread gains nothing beside other processes: scoring only computes.
        num_threads = 1 if options.seat else num_ranking_threads()
        self._pool = self._queue("rank", num_threads, self.stats.waiting)
        self._hand_over = self._make_hand_over()
        # Both wait for disks and other writers; ranking does not wait for them.
        self._write_pools = {
            "RecordFeedback": self._queue("feedback", 2),
            "UpsertItems": self._queue("upsert", 1),
        }
        self._ranking = self._ranking_server()
        self._admin = self._admin_server()
        self._metrics: MetricsServer | None = None
        self.ports = Ports(port=0, admin_port=0)
        if not self._held:
            self._open_ports()

    def start(self) -> None:
        """Load the live version, warm it up, and start to answer."""
        self.journal.start()
        self.reloader.check()
        if self.recommender.version is None:
            self.recommender.swap(self.loader.popular())
        self.reloader.start()
        self.recommender.loaded.start()
        self._others.start()
        if self._held:  # not before: a worker gets its share of the connections as soon as it listens
            self._open_ports()
        self._admin.start()
        self._ranking.start()
        for service in ("", RANKING, ADMIN):
            self._health.report(service, serving=True)
        self._facts.publish(self.reloader.error)
        self.board.enter(self._worker, "serving")
        _log.info("ready", port=self.port, admin_port=self.admin_port, version=self.recommender.version)

    def stop(self, grace_s: float) -> None:
        """Drain: refuse new calls, finish those in progress, seal the journal.

        Args: grace_s: longest wait for calls, and for a version that is being loaded.
        """
        deadline = time.monotonic() + grace_s
        self._health.enter_graceful_shutdown()
        self.board.enter(self._worker, "draining")
        self.loader.stop()
        self.reloader.stop()
        stopped = self._ranking.stop(grace_s)
        self._health.end_watches()
        stopped.wait()
        self._admin.stop(0).wait()
        if not self.reloader.ended_within(max(0.0, deadline - time.monotonic())):
            _log.warning("load_left", remedy="nothing: what it loads does not go live")
        if self._hand_over is not None:
            self._hand_over.close()
        for pool in (self._pool, *self._write_pools.values()):
            pool.shutdown()
        self._others.stop()
        self._session_merger.close()
        if self._metrics is not None:
            self._metrics.stop()
        self.recommender.loaded.stop()
        self.journal.close()
        self._store.close()
        with contextlib.suppress(OSError):
            self._registry.write_lease(self.server_id, None)
        self.board.enter(self._worker, "stopped")
        _log.info("stopped")

    def run_until_signalled(self, announce: Callable[[], None]) -> None:
        """Serve until SIGTERM or SIGINT, then drain.

        Args: announce: called when signals are handled, so that its reader may stop the server at once.
        """
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        announce()
        stopping.wait()
        self.stop(self._options.config.serving.drain_s)

    @property
    def port(self) -> int:
        """Return the port of the ranking service; 0 before it is opened."""
        return self.ports.port

    @property
    def admin_port(self) -> int:
        """Return the port of the admin service; 0 before it is opened."""
        return self.ports.admin_port

    @property
    def bundle_line(self) -> str:
        """Say which bundle answers, or why none does."""
        if self.recommender.version is not None:
            return f"bundle {self.recommender.version}"
        why = f" ({self.reloader.error})" if self.reloader.error else ""
        return f"no bundle: the popular list answers{why}"

    def _recommender(self, clock: OrderedClock) -> Recommender:
        page_keys = PageKeys(self._options.runs / "serving", accept_ms=VALID_MS)
        return Recommender(
            self.loader.empty(),
            self.journal,
            clock,
            self.stats,
            PageTokens(page_keys),
            keep_loaded=self._options.config.serving.keep_loaded,
        )

    def _patch_retention(self) -> PatchRetention:
        config = self._options.config
        return PatchRetention(
            self._options.log / FOLDER,
            self._overlay,
            self._registry,
            keep=config.store.keep,
            period_s=PERIOD_S[config.period],
            now_ms=self._options.clock.now_ms,
            loaded_ms=lambda: [engine.model.items_as_of_ms for engine in self.recommender.loaded.all],
        )

    def _reloader(self) -> Reloader:
        return Reloader(
            self._registry,
            self.recommender,
            self.loader,
            self.server_id,
            self._options.config.serving.poll_s,
            self._on_reload,
            self.loader.popular_of_newer_log,
        )

    def _facts_publisher(self) -> FactsPublisher:
        return FactsPublisher(
            self.stats,
            self.recommender,
            self.journal,
            self._store,
            self._options.config.store.url.split(":", 1)[0],
            self._options.clock,
            self.server_id,
        )

    def _make_call_log(self) -> CallLog:
        return CallLog(
            self._worker,
            lambda: self.recommender.version,
            self._options.config.serving.slow_call_ms / 1000,
            log_key(self._options.runs / "serving"),
        )

    def _restore(self, kinds: frozenset[str]) -> JournalFollower:
        """Replay what a version that may go live lacks: two periods and a day, or more for an old one.

        Of the workers that start together only the first gives the store its events back, else all would
        write the same; one that is started again does: the last events of the one before may be missing.
        Return what takes in the following.
        """
        started_again = self.board.workers()[self._worker].num_restarts > 0
        since_ms = self._retention.since_ms
        tail = JournalTail(self._options.log / FOLDER, own_id=self.server_id, since_ms=since_ms)
        restore_from_journal(
            tail,
            self._overlay,
            self._feedback.seen,
            self._store if self._worker == 0 or started_again else None,
            kinds,
            events_since_ms=since_ms or self._retention.recent_ms(),
        )
        return JournalFollower(tail, self._overlay, self._feedback, self._session_merger)

    def _on_reload(self, error: str | None) -> None:
        self._health.report(BUNDLE, serving=error is None)
        self._facts.publish(error)
        self._retention.tidy_if_due()

    def _open_ports(self) -> None:
        options = self._options
        port = self._bind(self._ranking, options.listen, "--listen")
        if self._hand_over is not None:
            self._ranking.add_insecure_port(self._hand_over.address)
        admin_port = self._bind(self._admin, options.admin_listen, "--admin-listen", known_callers=True)
        self._metrics = self._serve_metrics()
        metrics_port = self._metrics.port if self._metrics is not None else None
        self.ports = Ports(port=port, admin_port=admin_port, metrics_port=metrics_port)

    def _bind(self, server: grpc.Server, address: str, option: str, *, known_callers: bool = False) -> int:
        options = self._options
        return bind(
            server,
            address,
            option,
            options.tls,
            insecure=options.insecure,
            known_callers=known_callers,
            held=self._held,
        )

    def _grpc_options(self) -> ChannelOptions:
        return server_options(self._options.config.serving.connection_age_s, held=self._held)

    def _queue(self, name: str, num_workers: int, show: Callable[[int], None] = lambda _: None) -> CallQueue:
        serving = self._options.config.serving
        return CallQueue(num_workers, name, serving.max_concurrent, serving.deadline_ms / 1000, show)

    def _make_hand_over(self) -> HandOver | None:
        """Let busy workers hand calls over, where there are several."""
        seat = self._options.seat
        if seat is None or seat.sockets is None or seat.num_workers == 1:
            return None
        default_s = self._options.config.serving.deadline_ms / 1000
        return HandOver(self.board, seat.number, seat.sockets, default_s, self.stats.handed_over)

    def _ranking_server(self) -> grpc.Server:
        serving = self._options.config.serving
        elsewhere = (self._hand_over.handler,) if self._hand_over is not None else ()
        admission = Admission(self._pool, self.stats, self._call_log, *elsewhere)
        guard = Guard(self.stats, self._call_log, self._pool, self._write_pools)
        server = grpc.server(self._pool, interceptors=[admission, guard], options=self._grpc_options())
        numbers = frozenset(
            a.name
            for a in self._options.config.attributes
            if a.entity == "item" and not FEATURE_KINDS[a.kind].holds(pl.String())
        )
        turn = UpsertTurn(self._options.log / FOLDER, self._others.catch_up)
        upserts = ItemUpserter(self.journal, self._overlay, self.recommender, turn, numbers)
        limits = Limits.from_config(serving)
        service = RankingService(
            self.recommender,
            self._feedback,
            self._session_merger,
            upserts,
            self.stats,
            limits,
            serving.deadline_ms / 1000,
        )
        ranking_pb2_grpc.add_RankingServiceServicer_to_server(service, server)
        self._add_common(server, RANKING)
        return server

    def _admin_server(self) -> grpc.Server:
        queue = self._queue("admin", 4)
        guard = Guard(self.stats, self._call_log, queue)
        server = grpc.server(queue, interceptors=[guard], options=self._grpc_options())
        service = AdminService(
            self._registry,
            self.recommender,
            self.reloader,
            self.journal,
            self.board,
            self._facts,
            self._options.clock,
            self._options.config.serving.threads,
            self._store,
        )
        admin_pb2_grpc.add_AdminServiceServicer_to_server(service, server)
        self._add_common(server, ADMIN)
        return server

    def _serve_metrics(self) -> "MetricsServer | None":
        address, tls = self._options.metrics_listen, self._options.tls
        if address is None:
            return None
        from serving.prometheus import ServerCollector, serve_metrics

        check_address(address, "--metrics-listen")
        require_protection(
            address, "--metrics-listen", tls, insecure=self._options.insecure, known_callers=True
        )
        collector = ServerCollector(self.board)
        return serve_metrics(address, collector, None if is_loopback(address) else tls, shared=self._held)

    def _add_common(self, server: grpc.Server, service: str) -> None:
        self._health.add_to(server, service)
        if self._options.reflection:
            reflection.enable_server_reflection(
                (service, health.SERVICE_NAME, reflection.SERVICE_NAME), server
            )
