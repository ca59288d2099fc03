"""Lists over the whole catalogue: no guarded figure may collapse against the champion's."""

from recsys.config import GateConfig
from recsys.metrics.metric import ListMetric
from recsys.metrics.table import list_metrics
from recsys.records import Check, Verdict
from training.evaluation.list_metrics import ListMetrics
from training.gate.decision import finding


def check_lists(challenger: ListMetrics, champion: ListMetrics | None, config: GateConfig) -> list[Check]:
    """Check that no guarded figure of the ranked lists collapsed against the champion's."""
    return [
        _ratio(metric, challenger.values[name], champion.values[name] if champion else None, config)
        for name, metric in list_metrics().items()
        if metric.gate_ratio
    ]


def _ratio(metric: ListMetric, challenger: float | None, champion: float | None, config: GateConfig) -> Check:
    """Hold a figure of lists against its share of the champion's."""
    name, least = metric.title, float(getattr(config, metric.gate_ratio))
    if challenger is None:
        return finding(name, Verdict.PROMOTE, "nobody to measure it on: reported, not evaluated")
    if champion is None or champion <= 0:
        return finding(
            name, Verdict.PROMOTE, f"{challenger:.4f}, no champion to compare with", challenger=challenger
        )
    outcome = Verdict.PROMOTE if challenger >= least * champion else Verdict.HOLD
    detail = f"{challenger:.4f}, champion {champion:.4f}; at least {least:g} times the champion's is required"
    return finding(name, outcome, detail, challenger=challenger, champion=champion)
