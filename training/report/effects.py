"""Paired differences of two systems on the same rows and the same users: every metric of the table."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from recsys.metrics.effect import Effect
from recsys.metrics.inference import paired_bootstrap, paired_bootstrap_means
from recsys.metrics.metric import RowMetric
from recsys.metrics.table import METRICS, list_metrics, row_metrics
from recsys.tasks import TaskSpec
from training.evaluation.head_metrics import HeadMetrics
from training.evaluation.head_rows import HeadRows
from training.evaluation.list_metrics import ListMetrics

OTHERS_LEVEL = 0.95
"""Level of intervals that share no error rate: all but those of the primary comparisons."""
MIN_ROWS = 100
MIN_USERS = 20
MIN_POSITIVES = 20
"""Below these a segment's counts are shown and no difference."""


class Segment(BaseModel):
    """A part of the rows, with the primary metric of one head."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    head: str
    rows: int
    users: int
    positives: int
    """Rows with label 1; of a head that predicts a value all labelled rows."""
    effect: Effect | None
    """None where there are too few rows to say anything."""


def head_effects(
    task: TaskSpec,
    rows: pl.DataFrame,
    a: HeadMetrics,
    b: HeadMetrics,
    *,
    replicates: int,
    level: float,
    seed: int,
) -> list[Effect]:
    """Compare two systems on one head's labelled rows, the primary metric first; none without labels.

    Args: rows: as `head_effect`; a, b: the head's figures, of which metrics without interval are compared;
    level: of the primary metric's interval.
    """
    if not a.rows:
        return []
    primary, metrics = task.kind.metric, row_metrics(probability=task.kind.probability)
    found = []
    for name in sorted(metrics, key=lambda name: name != primary):
        if metrics[name].pooled is None:
            found.append(_plain(name, a.values, b.values, users=a.users, rows=a.rows))
        else:
            at = level if name == primary else OTHERS_LEVEL
            found.append(head_effect(name, task, rows, replicates=replicates, level=at, seed=seed))
    return found


def head_effect(
    metric: str, task: TaskSpec, rows: pl.DataFrame, *, replicates: int, level: float, seed: int
) -> Effect:
    """Compare two systems by one metric on a head's labelled rows.

    Args: rows: of `score_rows`; `prediction_<task>` is A's, `b_prediction_<task>` B's.
    """
    known, read = HeadRows.of(task, rows), METRICS[metric]
    assert isinstance(read, RowMetric), "metrics of heads are over rows"
    a, b = (known.prediction(read, f"{side}prediction_{task.name}") for side in ("", "b_"))
    return paired_bootstrap(
        metric,
        known.label,
        a,
        b,
        known.user,
        generator=np.random.default_rng(seed),
        weight=known.weight,
        lists=known.lists,
        replicates=replicates,
        level=level,
    )


def list_effects(
    users: pl.DataFrame, a: ListMetrics, b: ListMetrics, *, replicates: int, level: float, seed: int
) -> list[Effect]:
    """Compare two systems' lists, primary metrics first.

    Args: users: one row a user, columns `<metric>` of A and `b_<metric>` of B; a, b: the means, of which
    metrics without a value per user are compared; level: of the primary metrics' intervals.
    """
    metrics = list_metrics()
    found = []
    for name in sorted(metrics, key=lambda name: not metrics[name].primary):
        metric = metrics[name]
        if metric.of_users is None:
            found.append(_plain(name, a.values, b.values, users=users.height, rows=users.height))
            continue
        values = users[name].to_numpy(), users[f"b_{name}"].to_numpy()
        if np.isnan(values[0] + values[1]).all():
            continue
        found.append(
            paired_bootstrap_means(
                name,
                *values,
                generator=np.random.default_rng(seed),
                higher_is_better=metric.higher_is_better,
                replicates=replicates,
                level=level if metric.primary else OTHERS_LEVEL,
            )
        )
    return found


def segments(tasks: Sequence[TaskSpec], rows: pl.DataFrame, *, replicates: int, seed: int) -> list[Segment]:
    """Compare on new, light and heavy users, and on items never shown before, each at OTHERS_LEVEL."""
    parts = _parts(rows)
    return [
        _segment(name, task, rows.filter(mask, pl.col(task.label).is_not_null()), replicates, seed)
        for task in tasks
        for name, mask in parts.items()
    ]


def _segment(name: str, task: TaskSpec, part: pl.DataFrame, replicates: int, seed: int) -> Segment:
    positive = (pl.col(task.label) > 0.5) if task.kind.probability else pl.lit(value=True)
    positives, users = part.filter(positive).height, part["user_id"].n_unique()
    enough = part.height >= MIN_ROWS and users >= MIN_USERS and positives >= MIN_POSITIVES
    return Segment(
        name=name,
        head=task.name,
        rows=part.height,
        users=users,
        positives=positives,
        effect=head_effect(task.kind.metric, task, part, replicates=replicates, level=OTHERS_LEVEL, seed=seed)
        if enough
        else None,
    )


def _parts(rows: pl.DataFrame) -> dict[str, pl.Expr]:
    """Split users by how often they had been shown something; the border is the scored users' median."""
    past = (
        rows.group_by("user_id").agg(pl.col("user_past").min()).filter(pl.col("user_past") > 0)["user_past"]
    )
    middle = past.median()
    border = int(middle) if isinstance(middle, int | float) else 1
    return {
        "new users (never shown anything)": pl.col("user_past") == 0,
        f"light users (1 to {border} impressions)": pl.col("user_past").is_between(1, border),
        f"heavy users (over {border} impressions)": pl.col("user_past") > border,
        "new items (never shown before)": pl.col("item_past") == 0,
    }


def _plain(
    metric: str, a: Mapping[str, float | None], b: Mapping[str, float | None], *, users: int, rows: int
) -> Effect:
    """Give a difference without interval."""
    values = a.get(metric), b.get(metric)
    return Effect(
        metric=metric,
        a=values[0],
        b=values[1],
        difference=None if values[0] is None or values[1] is None else values[1] - values[0],
        ci_low=None,
        ci_high=None,
        p_value=None,
        higher_is_better=METRICS[metric].higher_is_better,
        users=users,
        rows=rows,
        replicates=0,
    )
