"""The Prometheus endpoint: exports the stats of all workers on a port of its own."""

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from recsys.errors import ConfigError
from serving.histograms import BOUNDS_S, Counts
from serving.listen import Tls
from serving.stats import METHODS, STAGES, STATUSES
from serving.stats_board import StatsBoard, Totals, WorkerStatus
from serving.worker_facts import STATES

# Every second bound is exported, five a decade: fewer series, and still under 60 % between two bounds.
_EXPORTED = BOUNDS_S[::2]
_COUNTERS = {
    "expired": ("recsys_expired", "Calls that expired before scoring."),
    "shed": ("recsys_shed", "Calls refused for overload."),
    "lists": ("recsys_lists", "Lists journalled; the pages of a list count once."),
    "explored_lists": ("recsys_explored_lists", "Those of them that were drawn with exploration."),
    "impressions": ("recsys_impressions", "Items in journalled answers."),
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
    facts = [worker.facts for worker in workers if worker.facts is not None]
    bundle = GaugeMetricFamily("recsys_bundle", "Workers that answer with a version.", labels=["version"])
    versions = [one.version or "none" for one in facts]
    for version in sorted(set(versions)):
        bundle.add_metric([version], versions.count(version))
    yield bundle
    healthy = all(one.journal_healthy for one in facts)
    yield GaugeMetricFamily("recsys_journal_healthy", "1 while all workers can write theirs.", value=healthy)
    in_journals = sum(one.journal_bytes for one in facts)
    yield GaugeMetricFamily("recsys_journal_bytes", "Of the files being written.", value=in_journals)


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
