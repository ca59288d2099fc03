"""METRICS: everything that the project knows of a metric, one entry each.

Evaluation, reports, the gate and their tables loop over this table; no other file lists metrics. Its order is
the order in which they are printed.
"""

from collections.abc import Callable

from recsys.errors import ConfigError
from recsys.metrics import pointwise, pooled, ranking
from recsys.metrics.columns import Rows
from recsys.metrics.list_auc import aucs_of_lists, concordances_of_lists
from recsys.metrics.metric import ListMetric, Metric, RowMetric
from recsys.metrics.true_list_auc import true_aucs_of_lists


def _of_columns(metric: Callable[..., float]) -> Callable[[Rows], float]:
    """Make a value of a function of (label, prediction, weight)."""
    return lambda rows: metric(rows.label, rows.prediction, rows.weight)


METRICS: dict[str, Metric] = {
    # --- over rows; the figures of a head
    "list_auc": RowMetric(
        title="AUC inside lists",
        higher_is_better=True,
        reads="order",
        value=lambda rows: aucs_of_lists(rows).mean,
        pooled=pooled.list_auc,
        of_constant=0.5,
        in_lists=True,
    ),
    "auc": RowMetric(
        title="AUC",
        higher_is_better=True,
        reads="order",
        value=_of_columns(pointwise.auc),
        pooled=pooled.auc,
        of_constant=0.5,
    ),
    "log_loss": RowMetric(
        title="log loss",
        higher_is_better=False,
        reads="probability",
        value=_of_columns(pointwise.log_loss),
        pooled=pooled.log_loss,
    ),
    "normalised_entropy": RowMetric(
        title="normalised entropy",
        higher_is_better=False,
        reads="probability",
        value=_of_columns(pointwise.normalised_entropy),
        pooled=pooled.normalised_entropy,
        tables=(),
    ),
    "brier": RowMetric(
        title="Brier",
        higher_is_better=False,
        reads="probability",
        value=_of_columns(pointwise.brier),
        pooled=pooled.squared_error,
        tables=(),
    ),
    "ece": RowMetric(
        title="ECE",
        higher_is_better=False,
        reads="probability",
        value=_of_columns(pointwise.ece),
        # Absolute values per bin: a draw of users looks worse than the sample it is drawn from.
        no_interval="no interval: drawing users again biases it",
        gate_limit="max_ece",
    ),
    "rmse": RowMetric(
        title="RMSE",
        higher_is_better=False,
        reads="value",
        value=_of_columns(pointwise.rmse),
        pooled=pooled.root_squared_error,
    ),
    "mae": RowMetric(
        title="MAE",
        higher_is_better=False,
        reads="value",
        value=_of_columns(pointwise.mae),
        pooled=pooled.absolute_error,
    ),
    "list_concordance": RowMetric(
        title="concordance inside lists",
        higher_is_better=True,
        reads="value",
        value=lambda rows: concordances_of_lists(rows).mean,
        pooled=pooled.list_concordance,
        of_constant=0.5,
        in_lists=True,
    ),
    # --- over ranked lists
    "ndcg_at_10": ListMetric(
        title="agreement with the log (NDCG@10)",
        higher_is_better=True,
        reads="shown",
        k=10,
        of_users=lambda lists: ranking.ndcg_at_k(lists.matches, lists.k),
        primary=True,
    ),
    "retrieval_ndcg_at_10": ListMetric(
        # Retrieval knows what gets shown to whom; the heads know what is done once it is shown.
        title="agreement of retrieval with the log (NDCG@10)",
        higher_is_better=True,
        reads="retrieved",
        k=10,
        of_users=lambda lists: ranking.ndcg_at_k(lists.matches, lists.k),
        tables=("terminal",),
    ),
    "recall_at_50": ListMetric(
        title="recall@50",
        higher_is_better=True,
        reads="retrieved",
        k=50,
        of_users=lambda lists: ranking.recall_at_k(lists.matches, lists.k),
        primary=True,
        gate_ratio="min_recall_ratio",
    ),
    "recall_at_all": ListMetric(
        # The most that ranking the candidates can reach.
        title="recall of all candidates",
        higher_is_better=True,
        reads="candidates",
        k=None,
        of_users=lambda lists: ranking.recall_at_k(lists.matches, lists.k),
        tables=(),
    ),
    "ndcg_at_10_again": ListMetric(
        title="NDCG@10 of items had before",
        higher_is_better=True,
        reads="shown",
        k=10,
        of_users=lambda lists: ranking.ndcg_at_k(lists.matches_again, lists.k),
    ),
    "ndcg_at_10_new": ListMetric(
        title="NDCG@10 of items never had",
        higher_is_better=True,
        reads="shown",
        k=10,
        of_users=lambda lists: ranking.ndcg_at_k(lists.matches_new, lists.k),
    ),
    "recall_at_50_again": ListMetric(
        title="recall@50 of items had before",
        higher_is_better=True,
        reads="retrieved",
        k=50,
        of_users=lambda lists: ranking.recall_at_k(lists.matches_again, lists.k),
    ),
    "recall_at_50_new": ListMetric(
        title="recall@50 of items never had",
        higher_is_better=True,
        reads="retrieved",
        k=50,
        of_users=lambda lists: ranking.recall_at_k(lists.matches_new, lists.k),
    ),
    "novelty_at_10": ListMetric(
        title="novelty@10 (bits)",
        higher_is_better=None,
        reads="shown",
        k=10,
        of_users=lambda lists: ranking.novelty(lists.items, lists.popularity),
        digits=2,
        tables=("baselines",),
    ),
    "diversity_at_10": ListMetric(
        title="category diversity@10",
        higher_is_better=None,
        reads="shown",
        k=10,
        of_users=lambda lists: ranking.category_diversity(lists.items, lists.category),
        tables=("baselines",),
    ),
    "coverage_at_10": ListMetric(
        title="coverage@10",
        higher_is_better=None,
        reads="shown",
        k=10,
        of_period=lambda lists: ranking.coverage(lists.items, max(lists.num_available, 1)),
        no_interval="no interval: one figure for all users",
        tables=("baselines",),
    ),
}
"""Key in JSON -> the metric."""
OF_CHANCES: dict[str, RowMetric] = {
    "true_list_auc": RowMetric(
        title="AUC inside lists by true chances",
        higher_is_better=True,
        reads="order_of_chances",
        value=lambda rows: true_aucs_of_lists(rows).mean,
        pooled=pooled.true_list_auc,
        of_constant=0.5,
        in_lists=True,
    ),
}
"""Metrics for whoever knows the labels' true chances, as a simulator does; evaluations of a log lack them."""


def row_metrics(*, probability: bool) -> dict[str, RowMetric]:
    """Give the metrics of a head that predicts a probability, or of one that predicts a value."""
    return {
        name: metric
        for name, metric in METRICS.items()
        if isinstance(metric, RowMetric) and metric.of_probability == probability
    }


def list_metrics() -> dict[str, ListMetric]:
    """Give the metrics of ranked lists."""
    return {name: metric for name, metric in METRICS.items() if isinstance(metric, ListMetric)}


def row_metric(name: str) -> RowMetric:
    """Give a metric over rows.

    Raises: ConfigError naming the known ones.
    """
    metric = OF_CHANCES.get(name, METRICS.get(name))
    if not isinstance(metric, RowMetric):
        known = sorted(n for n, m in METRICS.items() if isinstance(m, RowMetric))
        raise ConfigError(f"metric {name!r} is not over rows; choose one of {known}")
    return metric


def pooled_metric(name: str) -> RowMetric:
    """Give a metric over rows whose differences have an interval.

    Raises: ConfigError naming the known ones.
    """
    metric = OF_CHANCES.get(name, METRICS.get(name))
    if not isinstance(metric, RowMetric) or metric.pooled is None:
        known = [n for n, m in METRICS.items() if isinstance(m, RowMetric) and m.pooled is not None]
        raise ConfigError(f"metric {name!r} is not pooled over rows; choose one of {sorted(known)}")
    return metric


def most_places(reads: str) -> int:
    """Give the largest k of the metrics that read shown, or retrieved, lists."""
    return max(m.k for m in list_metrics().values() if m.reads == reads and m.k is not None)
