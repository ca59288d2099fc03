"""The Prometheus endpoint: exports the counters of `ServerStats` on a port of its own."""

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from recsys.errors import ConfigError
from serving.journal import Journal
from serving.listen import Tls
from serving.recommender import Recommender
from serving.stats import BOUNDS_S, ServerStats


class ServerCollector(Collector):
    """Reads the counters at each scrape, so that serving a call costs nothing."""

    def __init__(self, stats: ServerStats, recommender: Recommender, journal: Journal) -> None:
        self._stats = stats
        self._recommender = recommender
        self._journal = journal

    def collect(self) -> Iterator[Metric]:
        """Return all metrics."""
        calls = CounterMetricFamily("recsys_calls", "Calls answered.", labels=["method", "status"])
        for name, count in self._stats.calls().items():
            calls.add_metric(name.split("/"), count)
        degraded = CounterMetricFamily("recsys_degraded", "Answers by degradation.", labels=["reason"])
        for reason, count in self._stats.degradation().items():
            degraded.add_metric([reason], count)
        bundle = GaugeMetricFamily("recsys_bundle", "1 for the version that answers.", labels=["version"])
        bundle.add_metric([self._recommender.version or "none"], 1)
        yield from (calls, degraded, bundle, self._latency())
        yield CounterMetricFamily("recsys_expired", "Calls expired unscored.", value=self._stats.num_expired)
        yield CounterMetricFamily("recsys_shed", "Calls refused for overload.", value=self._stats.num_shed)
        yield GaugeMetricFamily(
            "recsys_journal_healthy", "1 while it can be written.", value=self._journal.healthy
        )

    def _latency(self) -> Metric:
        counts, total_s = self._stats.histogram()
        bounds = [*(f"{bound:g}" for bound in BOUNDS_S), "+Inf"]
        buckets = [(bound, float(count)) for bound, count in zip(bounds, accumulate(counts), strict=True)]
        latency = HistogramMetricFamily("recsys_latency_seconds", "Recommend and Rank, answered.")
        latency.add_metric([], buckets=buckets, sum_value=total_s)
        return latency


def serve_metrics(address: str, collector: Collector, tls: Tls | None = None) -> Callable[[], None]:
    """Serve metrics at HOST:PORT, over HTTPS with `tls`, else over HTTP; return a function that stops it.

    Raises: ConfigError when the address cannot be bound.
    """
    host, _, port = address.rpartition(":")
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        server, thread = start_http_server(int(port), host, registry, **_https(tls))
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(f"--metrics-listen {address} cannot be bound ({error}); choose another") from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop


def _https(tls: Tls | None) -> dict[str, Any]:
    if tls is None:
        return {}
    files = {"certfile": str(tls.certificate), "keyfile": str(tls.key)}
    return (
        files
        if tls.client_ca is None
        else {**files, "client_cafile": str(tls.client_ca), "client_auth_required": True}
    )
