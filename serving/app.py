"""Config -> running server: wiring, ports, health, and the drain on SIGTERM."""

import contextlib
import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]

from features.definitions import live_kinds
from features.store import FeatureStore, open_store
from protos.recsys.v1 import admin_pb2, admin_pb2_grpc, ranking_pb2, ranking_pb2_grpc
from recsys.config import PERIOD_S, RunConfig
from recsys.errors import BundleError, ConfigError, RecsysError, StoreError
from recsys.journal import FOLDER
from recsys.log import InteractionLog
from recsys.registry import Registry
from serving.admin import AdminService
from serving.checks import Limits, check_address, is_loopback
from serving.clock import Clock, OrderedClock
from serving.engine import Engine
from serving.fallback import empty_model, popular_model
from serving.feedback import FeedbackDesk
from serving.interceptors import Admission, CountingPool, Guard, on_pool
from serving.journal import Journal
from serving.overlay import Overlay
from serving.ports import Model
from serving.recommender import Recommender
from serving.reload import Reloader
from serving.restore import restore
from serving.service import RankingService
from serving.sessions import Sessions
from serving.stats import Stats
from serving.upserts import UpsertDesk

RANKING = ranking_pb2.DESCRIPTOR.services_by_name["RankingService"].full_name
ADMIN = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name
BUNDLE = "recsys.v1.Bundle"
"""Health of this name: SERVING while the live version is the one that answers."""
_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second server on the same port must fail, not share
    ("grpc.max_receive_message_length", 1024 * 1024),
    ("grpc.max_send_message_length", 4 * 1024 * 1024),
    ("grpc.max_connection_age_ms", 300_000),
    ("grpc.max_connection_age_grace_ms", 30_000),
)
_QUIET_S = 0.2
LoadModel = Callable[[Path, FeatureStore], Model]
_log = structlog.get_logger(__name__)


class Health(health.HealthServicer):  # type: ignore[misc]
    """grpc.health.v1 with List, which the packaged one leaves out; never waits for a worker."""

    def __init__(self) -> None:
        super().__init__(experimental_non_blocking=True)
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="health")
        self.Check = on_pool(super().Check, pool)
        self.List = on_pool(self._list, pool)

    def _list(self, request: health_pb2.HealthListRequest, context: grpc.ServicerContext) -> Any:
        """Give every service's health."""
        names = ("", RANKING, ADMIN, BUNDLE)
        statuses = {name: self.Check(health_pb2.HealthCheckRequest(service=name), context) for name in names}
        return health_pb2.HealthListResponse(statuses=statuses)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """PEM files; with `client_ca` callers must show a certificate signed by it."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What a server is told beside its config."""

    config: RunConfig
    log: Path
    runs: Path
    clock: Clock
    listen: str
    admin_listen: str
    insecure: bool = False
    tls: Tls | None = None
    reflection: bool = False
    metrics_listen: str | None = None
    """HOST:PORT of the Prometheus endpoint; None: there is none."""


class Server:
    """A server and everything it holds.

    Args: load: bundle folder, store -> model; default: `serving.loading.load_model`.
    Raises: ConfigError for an address that may not be bound.
    """

    def __init__(self, options: ServerOptions, load: LoadModel | None = None) -> None:
        self._options = options
        self._load_model = load
        config = options.config
        self.server_id = f"{socket.gethostname().split('.')[0]}-{os.getpid()}"
        self.stats = Stats()
        self._registry = Registry(options.runs)
        self._store = _open_store(config, options.runs)
        self._overlay = Overlay()
        self.journal = Journal(
            options.log / FOLDER, self.server_id, options.clock.now_ms, rotate_s=config.serving.rotate
        )
        nothing = self._engine(empty_model(config))
        clock = OrderedClock(options.clock)
        self.recommender = Recommender(nothing, self.journal, clock, self.stats)
        shown_live = live_kinds(config)
        self._feedback = FeedbackDesk(self.journal, self._store, clock, config.tasks, shown_live)
        self._sessions = Sessions(self._feedback, self._store, lambda: self.recommender.version)
        restore(
            options.log / FOLDER,
            self._overlay,
            self._feedback.seen,
            self._store,
            shown_live,
            self._since_ms(),
        )
        self.reloader = Reloader(
            self._registry,
            self.recommender,
            self._load,
            self.server_id,
            config.serving.poll_s,
            self._on_reload,
        )
        self._health = Health()
        self._pool = CountingPool(num_workers(), "rank")
        self._ranking = self._ranking_server()
        self._admin = self._admin_server()
        self.port = _bind(self._ranking, options.listen, "--listen", options)
        self.admin_port = _bind(self._admin, options.admin_listen, "--admin-listen", options)
        self._stop_metrics = self._serve_metrics()

    def start(self) -> None:
        """Load the live version, warm up, and begin to answer."""
        self.journal.start()
        self.reloader.check()
        if self.recommender.version is None:
            self._serve_popular()
        self.reloader.start()
        self._admin.start()
        self._ranking.start()
        for service in ("", RANKING, ADMIN):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        _log.info("ready", port=self.port, admin_port=self.admin_port, version=self.recommender.version)

    def stop(self, grace_s: float) -> None:
        """Drain: refuse new calls, finish those under way, seal the journal."""
        self._health.enter_graceful_shutdown()
        self.reloader.stop()
        stopped = self._ranking.stop(grace_s)
        self._wait_for_calls(stopped)
        self._ranking.stop(0).wait()  # what is left are health watchers, which never end by themselves
        self._admin.stop(0).wait()
        self._pool.shutdown()
        self._stop_metrics()
        self.journal.close()
        self._store.close()
        with contextlib.suppress(OSError):
            self._registry.write_lease(self.server_id, None)
        _log.info("stopped")

    def run_until_signalled(self, announce: Callable[[], None]) -> None:
        """Serve until SIGTERM or SIGINT, then drain.

        Args: announce: says that the server is ready; who hears it may end the server at once.
        """
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        announce()
        stopping.wait()
        self.stop(self._options.config.serving.drain_s)

    def _serve_popular(self) -> None:
        popular = self._engine(popular_model(InteractionLog(self._options.log), self._options.config))
        popular.warm(self._options.clock.now_ms())
        self.recommender.swap(popular)

    def _wait_for_calls(self, stopped: threading.Event) -> None:
        """Wait until no call has been under way for a moment: its reply may still be on its way out."""
        quiet_since = time.monotonic()
        while not stopped.wait(0.02):
            if self._pool.num_pending:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > _QUIET_S:
                return

    def _engine(self, model: Model) -> Engine:
        config = self._options.config
        return Engine(
            model,
            self._overlay,
            policy=config.policy,
            retrieval=config.retrieval,
            candidate_log_share=config.serving.candidate_log_share,
        )

    def _load(self, version: str) -> Engine:
        load = self._load_model or self._import_loader()
        try:
            engine = self._engine(load(self._registry.path(version), self._store))
            engine.warm(self._options.clock.now_ms())
        except RecsysError:
            raise
        except (
            Exception
        ) as error:  # whatever a bad bundle does to the libraries that read it, the old one stays
            _log.exception("bundle_failed", version=version)
            raise BundleError(
                f"{version} cannot be loaded ({type(error).__name__}: {error}); rebuild it"
            ) from error
        return engine

    def _import_loader(self) -> LoadModel:
        """Import torch and FAISS only where there is a bundle."""
        from serving.loading import load_model, use_threads

        use_threads(self._options.config.serving.threads)
        return load_model

    def _since_ms(self) -> int:
        """Give an instant before the live snapshot: what came later may be in no base yet."""
        return self._options.clock.now_ms() - 2000 * PERIOD_S[self._options.config.period] - 86_400_000

    def _on_reload(self, error: str | None) -> None:
        serving, not_serving = (
            health_pb2.HealthCheckResponse.SERVING,
            health_pb2.HealthCheckResponse.NOT_SERVING,
        )
        self._health.set(BUNDLE, serving if error is None else not_serving)

    def _ranking_server(self) -> grpc.Server:
        serving = self._options.config.serving
        admission = Admission(self._pool, serving.max_concurrent, self.stats)
        server = grpc.server(self._pool, interceptors=[admission, Guard(self.stats)], options=_OPTIONS)
        numbers = frozenset(
            a.name for a in self._options.config.attributes if a.entity == "item" and a.kind == "number"
        )
        upserts = UpsertDesk(self.journal, self._overlay, self.recommender, self._options.clock, numbers)
        limits = Limits.from_config(serving)
        service = RankingService(
            self.recommender, self._feedback, self._sessions, upserts, limits, serving.deadline_ms / 1000
        )
        ranking_pb2_grpc.add_RankingServiceServicer_to_server(service, server)
        self._add_common(server, RANKING)
        return server

    def _admin_server(self) -> grpc.Server:
        server = grpc.server(CountingPool(4, "admin"), interceptors=[Guard(self.stats)], options=_OPTIONS)
        service = AdminService(
            self._registry,
            self.recommender,
            self.reloader,
            self.journal,
            self.stats,
            self._options.clock,
            self._options.config.serving.threads,
        )
        admin_pb2_grpc.add_AdminServiceServicer_to_server(service, server)
        self._add_common(server, ADMIN)
        return server

    def _serve_metrics(self) -> Callable[[], None]:
        address = self._options.metrics_listen
        if address is None:
            return lambda: None
        from serving.metrics import ServerCollector, serve_metrics

        check_address(address, "--metrics-listen")
        _require_protection(address, self._options)
        return serve_metrics(address, ServerCollector(self.stats, self.recommender, self.journal))

    def _add_common(self, server: grpc.Server, service: str) -> None:
        for name in ("", service):
            self._health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._options.reflection:
            reflection.enable_server_reflection(
                (service, health.SERVICE_NAME, reflection.SERVICE_NAME), server
            )


def num_workers() -> int:
    """Count the calls answered at a time: scoring only computes, so more than the cores would only wait."""
    return max(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2)


def _open_store(config: RunConfig, runs: Path) -> FeatureStore:
    try:
        return open_store(config.store, runs)
    except OSError as error:
        raise StoreError(
            f"the store under {runs} cannot be opened: {error.strerror}; check --runs"
        ) from error


def _bind(server: grpc.Server, address: str, option: str, options: ServerOptions) -> int:
    """Bind an address and give its port.

    Raises: ConfigError when it is none, is not loopback and nothing protects it, or cannot be bound.
    """
    check_address(address, option)
    _require_protection(address, options)
    _check_free(address, option)
    try:
        if options.tls is not None:
            return server.add_secure_port(address, _credentials(options.tls))
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigError(f"{option} {address} cannot be bound ({error}); choose another") from error


def _check_free(address: str, option: str) -> None:
    """Try a port with a plain socket first: gRPC does not say why it could not be bound."""
    host, _, port = address.rpartition(":")
    if address.startswith("unix:") or port == "0":
        return
    try:
        where = socket.getaddrinfo(host.strip("[]") or None, int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(where[0], where[1]) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where[4])
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = "another process has the port" if taken else error.strerror
        raise ConfigError(
            f"{option} {address} cannot be bound: {why}; choose another (port 0 takes a free one)"
        ) from error


def _require_protection(address: str, options: ServerOptions) -> None:
    if options.tls is None and not options.insecure and not is_loopback(address):
        raise ConfigError(
            f"{address} can be reached from other machines: give --tls-cert and --tls-key, or --insecure "
            "when something else protects it"
        )


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    try:
        pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
        authority = tls.client_ca.read_bytes() if tls.client_ca else None
    except OSError as error:
        raise ConfigError(
            f"{error.filename} cannot be read: {error.strerror}; check the --tls files"
        ) from error
    return grpc.ssl_server_credentials(
        [pair], root_certificates=authority, require_client_auth=authority is not None
    )
