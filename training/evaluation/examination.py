"""How likely the position of each scored row is looked at, where the log's exploration can tell."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from recsys.metrics.columns import effective_rows
from recsys.metrics.examination import examination_curve
from recsys.tasks import TaskSpec

EXAMINATION = "examination"
"""Column of a frame of scored rows: relative chance in (0, 1] that the row's position was looked at."""
POLICY_COLUMNS = ("explored", "propensity", "propensity_kind")
"""What the log says of how an item got its position."""
MIN_POSITIVES = 200.0
"""Fewer effective positives on explored rows say too little: all positions count alike then."""


def examination_of(rows: pl.DataFrame, tasks: Sequence[TaskSpec]) -> pl.Series:
    """Give each row's examination [N], ones where exploration is too little to tell.

    Explored rows count 1 / propensity, so that every position holds the same items on average. The task is
    that with the most explored positives among the binary ones that every impression has a label of.

    Args: rows: position, weight, the policy columns and the tasks' labels.
    """
    explored = rows.filter("explored", pl.col("propensity_kind") == "exact")
    position = rows["position"].cast(pl.Int64).to_numpy()
    best, curve = MIN_POSITIVES, np.ones(1)
    for task in tasks:
        if not task.kind.probability or task.parent is not None or task.space != "impressions":
            continue
        known = explored.filter(pl.col(task.label).is_not_null(), pl.col("propensity").is_not_null())
        label = known[task.label].cast(pl.Float64).to_numpy()
        weight = (known["weight"] / known["propensity"]).cast(pl.Float64).to_numpy()
        if (positives := effective_rows(weight * label)) >= best:
            at = known["position"].cast(pl.Int64).to_numpy()
            best, curve = positives, examination_curve(at, label, np.ones(label.size), weight)
    return pl.Series(EXAMINATION, curve[np.minimum(position, curve.size - 1)])
