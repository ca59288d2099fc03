"""Value of logged lists in another order, per task.

Estimator: re-ranking of what was shown (the sets stay as logged) by heads and sources, labels weighted by
1 / examination of the position they were seen at (Joachims et al., WSDM 2017), places discounted as in NDCG.
Examination is read off the log: observed over predicted labels per position, since predictions do not know
the position.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.errors import DataError
from recsys.fusion import Fusion
from recsys.metrics.columns import effective_rows
from recsys.metrics.examination import examination_curve
from recsys.schema import REQUEST_KEY
from recsys.tasks import TaskSpec
from training.evaluation.head_rows import SOURCE
from training.evaluation.off_policy import discount

Vector = npt.NDArray[np.float64]
_PREDICTION = "prediction_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """Shown items [N] of requests [R] by users [U], sorted by request and position."""

    tasks: tuple[TaskSpec, ...]
    request: npt.NDArray[np.int64]
    user: npt.NDArray[np.int64]
    """[N]: 0..U-1."""
    position: npt.NDArray[np.int64]
    weight: Vector
    predictions: Mapping[str, npt.NDArray[np.float32]]
    sources: Mapping[str, npt.NDArray[np.float32]]
    """Score of each source that has a weight in the bundle's score."""
    labels: Mapping[str, Vector]
    """NaN: not known."""
    examination: Vector
    """[N]: relative chance that the logged position was looked at."""
    checked: npt.NDArray[np.bool_]
    """[N]: of the half of the users that the search does not see."""

    @property
    def num_requests(self) -> int:
        """Count the lists."""
        return int(self.request[-1]) + 1 if self.request.size else 0

    @property
    def num_users(self) -> int:
        """Count the users."""
        return int(self.user.max(initial=-1)) + 1

    def take(self, rows: npt.NDArray[np.bool_]) -> "Lists":
        """Give whole requests alone."""
        return replace(
            self,
            request=_codes(self.request[rows]),
            user=_codes(self.user[rows]),
            position=self.position[rows],
            weight=self.weight[rows],
            predictions={t: v[rows] for t, v in self.predictions.items()},
            sources={n: v[rows] for n, v in self.sources.items()},
            labels={t: v[rows] for t, v in self.labels.items()},
            examination=self.examination[rows],
            checked=self.checked[rows],
        )


@dataclass(frozen=True, slots=True)
class Value:
    """A task's value as sums per user [U]: total over weight is the value."""

    total: Vector
    weight: Vector

    @property
    def mean(self) -> float:
        """Give the value; NaN without a known label."""
        weight = self.weight.sum()
        return float(self.total.sum() / weight) if weight > 0 else float("nan")


def lists_of(rows: pl.DataFrame, tasks: Sequence[TaskSpec], task: TaskSpec | None) -> Lists:
    """Make lists of scored impressions (`training.evaluation.evaluate.score_rows`).

    Args: tasks: those to value, by their labels (predictions are of all, for all make the score); task: the
    binary task whose labels tell how far users look; None: every position counts alike.
    Raises: DataError when no request shows two items: there is nothing to put in order.
    """
    # One request may be answered in pages by several impressions of one position: order by both.
    rows = rows.with_columns(__size=pl.len().over(REQUEST_KEY)).filter(pl.col("__size") > 1)
    rows = rows.sort(*REQUEST_KEY, "position", "impression_id")
    if rows.is_empty():
        raise DataError(
            "no request of these days shows two items: without lists there is no order to search; "
            "log whole pages under one request_id"
        )
    position = rows["position"].to_numpy().astype(np.int64)
    labels = {t.name: _labels(rows, t) for t in tasks}
    predictions, sources = (
        {c.removeprefix(prefix): rows[c].to_numpy() for c in rows.columns if c.startswith(prefix)}
        for prefix in (_PREDICTION, SOURCE)
    )
    weight = rows["weight"].cast(pl.Float64).to_numpy()
    examination = np.ones(position.size)
    if task is not None:
        label = _labels(rows, task)
        known = ~np.isnan(label)
        curve = examination_curve(
            position[known], label[known], predictions[task.name][known].astype(np.float64), weight[known]
        )
        examination = curve[np.minimum(position, curve.size - 1)]
    return Lists(
        tasks=tuple(tasks),
        request=_codes(rows.select(pl.struct(REQUEST_KEY).rank("dense")).to_series().to_numpy()),
        user=_codes(rows["user_id"].rank("dense").to_numpy()),
        position=position,
        weight=weight,
        predictions=predictions,
        sources=sources,
        labels=labels,
        examination=examination,
        checked=_checked(rows["user_id"]),
    )


def _labels(rows: pl.DataFrame, task: TaskSpec) -> Vector:
    labels: Vector = rows[task.label].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return labels


def is_checked(user_id: str) -> bool:
    """Tell whether a user is of the half that the search does not see; by the id, so always alike."""
    return bool(hashlib.sha256(user_id.encode()).digest()[0] & 1)


def places(lists: Lists, fusion: Fusion) -> npt.NDArray[np.int64]:
    """Give each row's place [N], from 1, in its list by fused score; ties keep the logged order."""
    order = np.lexsort((lists.position, -fusion.score(lists.predictions, lists.sources), lists.request))
    starts = np.flatnonzero(np.diff(lists.request, prepend=-1))
    place = np.empty(order.size, np.int64)
    place[order] = np.arange(order.size) - np.repeat(starts, np.diff(np.append(starts, order.size))) + 1
    return place


def list_values(lists: Lists, fusion: Fusion, k: int) -> dict[str, Value]:
    """Value every task of the lists in the order that a fusion gives them.

    A task over all impressions: its label's discounted rate at the top k, as if looked at. A task of observed
    labels: the discounted mean of the labels that are known (stars of what stands on top).
    """
    weight = lists.weight * discount(places(lists, fusion), k)
    found = {}
    for task in lists.tasks:
        label = lists.labels[task.name]
        known = ~np.isnan(label)
        seen = weight[known] / lists.examination[known]
        base = weight[known] if task.space == "impressions" else seen
        user = lists.user[known]
        found[task.name] = Value(
            np.bincount(user, seen * label[known], minlength=lists.num_users).astype(np.float64),
            np.bincount(user, base, minlength=lists.num_users).astype(np.float64),
        )
    return found


def effective_labels(lists: Lists, task: TaskSpec) -> float:
    """Give Kish's effective number of labels that a task's value rests on: positives, or known values."""
    label = lists.labels[task.name]
    used = label > 0 if task.space == "impressions" else ~np.isnan(label)
    return effective_rows((lists.weight / lists.examination)[used])


def _checked(users: pl.Series) -> npt.NDArray[np.bool_]:
    half = {user: is_checked(user) for user in users.unique().to_list()}
    return users.replace_strict(half, return_dtype=pl.Boolean).to_numpy()


def _codes(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    codes: npt.NDArray[np.int64] = np.unique(values, return_inverse=True)[1].astype(np.int64)
    return codes
