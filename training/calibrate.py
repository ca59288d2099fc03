"""Which calibrator each head gets, fitted on the calibration period's rows alone."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from recsys.calibration import Calibrator
from recsys.calibrators import HeadRows
from recsys.head_kinds import UNCALIBRATED
from recsys.item_terms import ItemNumbers, item_weights
from recsys.levelled import levelled
from recsys.model.head_functions import predict
from recsys.resolve import resolve
from recsys.tasks import TaskSpec


def fit_calibration(
    tasks: Sequence[TaskSpec],
    logits: Mapping[str, np.ndarray],
    rows: pl.DataFrame,
    chosen: Mapping[str, str],
    items: ItemNumbers | None = None,
) -> dict[str, Calibrator]:
    """Fit one calibrator per head on the calibration period's rows; a child's may read its parent's logit.

    Rows are weighted by 1 / sampling rate, so that calibrated probabilities are those of the real stream
    however its negatives were sampled. A head that is not calibrated, by its setting or for want of labels,
    is corrected for the sampling alone.

    Args:
        rows: `label_*` (null = not known), `weight`, `shown_at`, in the order of the logits.
        chosen: head kind -> a name of its calibrators (`[calibration]` of the config).
        items: rates and means of each row's item, for calibrators that read them.
    """
    return {task.name: _fit(task, _head_rows(task, logits, rows, items), chosen) for task in tasks}


def level_calibration(
    tasks: Sequence[TaskSpec],
    calibration: Mapping[str, Calibrator],
    logits: Mapping[str, np.ndarray],
    rows: pl.DataFrame,
    items: ItemNumbers | None = None,
) -> dict[str, Calibrator]:
    """Move the level of each head's calibrator to the labels of rows that the heads have learned.

    Args: as of `fit_calibration`.
    """
    return {
        task.name: levelled(calibration[task.name], _head_rows(task, logits, rows, items), task)
        for task in tasks
    }


def with_item_terms(
    logits: Mapping[str, np.ndarray], items: ItemNumbers, calibration: Mapping[str, Calibrator]
) -> dict[str, np.ndarray]:
    """Add to logits, as a model without a bundle gives them, the terms that a bundle's ranker adds itself."""
    found = dict(logits)
    for task, calibrator in calibration.items():
        if weights := item_weights(calibrator):
            found[task] = logits[task] + items.term(weights)
    return found


def _head_rows(
    task: TaskSpec, logits: Mapping[str, np.ndarray], rows: pl.DataFrame, items: ItemNumbers | None
) -> HeadRows:
    logit = logits[task.name].astype(np.float64)
    return HeadRows(
        logit=logit,
        prediction=predict(logit, task),
        label=rows[task.label].cast(pl.Float64).fill_null(float("nan")).to_numpy(),
        weight=rows["weight"].cast(pl.Float64).to_numpy(),
        shown_at=rows["shown_at"].cast(pl.Int64).to_numpy(),
        items=items,
        parent=None if task.parent is None else logits[task.parent].astype(np.float64),
    )


def _fit(task: TaskSpec, rows: HeadRows, chosen: Mapping[str, str]) -> Calibrator:
    name = UNCALIBRATED if np.isnan(rows.label).all() else chosen[task.head]
    calibrator: Calibrator = resolve(task.kind.calibrators[name])(rows, task)
    return calibrator
