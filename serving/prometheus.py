"""The Prometheus endpoint: exports the stats of all workers on a port of its own."""

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import numpy as np
import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from recsys.errors import ConfigError
from serving.addresses import Tls, is_unix, tls_context
from serving.histograms import BOUNDS_S, Counts
from serving.stats import METHODS, STAGES, STATUSES
from serving.stats_board import StatsBoard, Totals, WorkerStatus
from serving.worker_facts import STATES

# Every second bound is exported, five a decade: fewer series, and still under 60 % between two bounds.
_EXPORTED = BOUNDS_S[::2]
_log = structlog.get_logger(__name__)
_ANSWERING = ("serving", "draining")
_SCRAPE_S = 10.0
"""A scraper that sends or reads nothing for so long is hung up on."""
_COUNTERS = {
    "expired": ("recsys_expired", "Calls given up, since nobody waited any more."),
    "shed": ("recsys_shed", "Calls refused for overload."),
    "lists": ("recsys_lists", "Lists journalled; the pages of a list count once."),
    "explored_lists": ("recsys_explored_lists", "Those of them that were drawn with exploration."),
    "impressions": ("recsys_impressions", "Items in journalled answers."),
    "handed_over": ("recsys_handed_over", "Calls that a busy worker had a sibling answer."),
}


class ServerCollector(Collector):
    """Reads the stats board at each scrape, so that serving a call costs nothing."""

    def __init__(self, board: StatsBoard) -> None:
        self._board = board

    def collect(self) -> Iterator[Metric]:
        """Return all metrics."""
        totals = self._board.totals()
        yield _calls(totals)
        yield _call_seconds(totals)
        yield _stage_seconds(totals)
        degraded = CounterMetricFamily("recsys_degraded", "Answers by degradation.", labels=["reason"])
        for reason, count in totals.degraded.items():
            degraded.add_metric([reason], count)
        yield degraded
        for counter, (name, text) in _COUNTERS.items():
            yield CounterMetricFamily(name, text, value=totals.counters[counter])
        yield from _worker_metrics(self._board.workers())


def _calls(totals: Totals) -> Metric:
    family = CounterMetricFamily("recsys_calls", "Calls answered.", labels=["method", "status"])
    for name, count in totals.num_calls().items():
        family.add_metric(name.split("/"), count)
    return family


def _call_seconds(totals: Totals) -> Metric:
    text = "Time of whole calls in the server, from the call's first work to its answer."
    family = HistogramMetricFamily("recsys_call_duration_seconds", text, labels=["method", "status"])
    for m, s in np.argwhere(totals.calls.any(axis=2)):
        buckets = _buckets(totals.calls[m, s])
        family.add_metric([METHODS[m], STATUSES[s]], buckets=buckets, sum_value=totals.calls_s[m, s])
    return family


def _stage_seconds(totals: Totals) -> Metric:
    text = "Time of the stages of Recommend and Rank."
    family = HistogramMetricFamily("recsys_stage_duration_seconds", text, labels=["stage"])
    for at in np.flatnonzero(totals.stages.any(axis=1)):
        family.add_metric([STAGES[at]], buckets=_buckets(totals.stages[at]), sum_value=totals.stages_s[at])
    return family


def _buckets(counts: Counts) -> list[tuple[str, float]]:
    """Return (bound, calls up to it) for the exported bounds and +Inf."""
    cumulative = list(accumulate(counts.tolist()))
    exported = [(f"{bound:g}", float(n)) for bound, n in zip(_EXPORTED, cumulative[::2], strict=False)]
    return [*exported, ("+Inf", float(cumulative[-1]))]


def _worker_metrics(workers: tuple[WorkerStatus, ...]) -> Iterator[Metric]:
    states = GaugeMetricFamily("recsys_workers", "Workers by state.", labels=["state"])
    for state in STATES:
        states.add_metric([state], sum(worker.state == state for worker in workers))
    yield states
    restarts = CounterMetricFamily("recsys_worker_restarts", "Workers that died and were started again.")
    restarts.add_metric([], sum(worker.num_restarts for worker in workers))
    yield restarts
    # The row of one that died still has the facts of its last life.
    facts = [one.facts for one in workers if one.state in _ANSWERING and one.facts is not None]
    bundle = GaugeMetricFamily("recsys_bundle", "Workers that answer with a version.", labels=["version"])
    versions = [one.version or "none" for one in facts]
    for version in sorted(set(versions)):
        bundle.add_metric([version], versions.count(version))
    yield bundle
    engine = GaugeMetricFamily("recsys_engine", "Workers by what computes their logits.", labels=["engine"])
    engines = [one.engine or "none" for one in facts]
    for name in sorted(set(engines)):
        engine.add_metric([name], engines.count(name))
    yield engine
    healthy = all(one.journal_healthy for one in facts)
    yield GaugeMetricFamily("recsys_journal_healthy", "1 while all workers can write theirs.", value=healthy)
    in_journals = sum(one.journal_bytes for one in facts)
    yield GaugeMetricFamily("recsys_journal_bytes", "Of the files being written.", value=in_journals)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsServer:
    """A running endpoint."""

    port: int
    stop: Callable[[], None]


def serve_metrics(
    address: str, collector: Collector, tls: Tls | None = None, *, shared: bool = False
) -> MetricsServer:
    """Serve metrics at HOST:PORT, over HTTPS with `tls`, else over HTTP.

    Args: shared: other workers of this server listen on the port too; any answers for all.
    Raises: ConfigError when the address cannot be bound.
    """
    if is_unix(address):
        raise ConfigError(f"--metrics-listen {address} is a socket file; give HOST:PORT")
    host, _, port = address.rpartition(":")
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        kind = _SharedEndpoint if shared else _Endpoint
        server = make_server(host.strip("[]"), int(port), make_wsgi_app(registry), kind, _QuietHandler)
        if tls is not None:
            # Shaking hands is the scrape's own thread's: whoever connects and says nothing holds up no other.
            server.socket = tls_context(tls).wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(f"--metrics-listen {address} cannot be bound ({error}); choose another") from error
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return MetricsServer(port=server.server_port, stop=stop)


class _Endpoint(ThreadingMixIn, WSGIServer):
    """A thread per scrape; none outlives the server."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Log a scrape that broke off in one line, where the packaged server prints a traceback."""
        _log.info("scrape_failed", error=repr(sys.exception()))


class _SharedEndpoint(_Endpoint):
    allow_reuse_port = True


class _QuietHandler(WSGIRequestHandler):
    """Writes no line per scrape on stderr, where the JSON logs are."""

    timeout = _SCRAPE_S

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing."""
