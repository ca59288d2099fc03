"""Which calibrator each head gets, fitted on the calibration period's rows alone."""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import torch

from recsys.calibration import (
    MIN_ROWS_PER_CLASS,
    Calibrator,
    Identity,
    Platt,
    correct_sampling,
    fit_affine,
    fit_isotonic,
    fit_isotonic_probability,
    fit_platt,
)
from recsys.config import CalibrationConfig
from recsys.metrics.columns import Vector
from recsys.metrics.pointwise import log_loss
from recsys.model.head_kinds import HEAD_KINDS
from recsys.tasks import TaskSpec

Fit = Callable[[np.ndarray], Calibrator]
"""Chosen rows (a mask) -> a calibrator fitted on them."""


def fit_calibration(
    tasks: Sequence[TaskSpec], logits: dict[str, np.ndarray], rows: pl.DataFrame, config: CalibrationConfig
) -> dict[str, Calibrator]:
    """Fit one calibrator per head on the calibration period's rows, each alone.

    Rows are weighted by 1 / sampling rate, so that calibrated probabilities are those of the real stream
    however its negatives were sampled. A head that is not calibrated, by its setting or for want of labels,
    is corrected for the sampling alone.

    Args: rows: `label_*` (null = not known), `weight`, `shown_at`, in the order of the logits.
    """
    weight = rows["weight"].cast(pl.Float64).to_numpy()
    shown_at = rows["shown_at"].cast(pl.Int64).to_numpy()
    found: dict[str, Calibrator] = {}
    for task in tasks:
        label = rows[task.label].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        known = ~np.isnan(label)
        chosen = logits[task.name][known].astype(np.float64)
        kind = config.kind(task.head)
        if kind == "none" or not known.any():
            found[task.name] = _uncalibrated(task, label, weight)
            continue
        fits = _fits(task, chosen, label[known], weight[known])
        if kind == "auto":
            kind = _better(fits, chosen, label[known], weight[known], shown_at[known])
        found[task.name] = fits[kind](np.ones(label[known].size, bool))
    return found


def _uncalibrated(task: TaskSpec, label: Vector, weight: Vector) -> Calibrator:
    """Leave a head as it is, but for the mean rate at which the negatives of a binary one were kept."""
    negative = label != 1  # not known counts: what nobody chose is what was sampled
    if not task.is_binary or not (weight[negative] > 1).any():
        return Identity()
    rate = negative.sum() / weight[negative].sum()
    return Platt(a=1.0, b=float(correct_sampling(0.0, rate)))


def _fits(task: TaskSpec, logit: np.ndarray, label: Vector, weight: Vector) -> dict[str, Fit]:
    """Give every way to calibrate the head, by its name in the config."""
    prediction = HEAD_KINDS[task.head].predict(torch.from_numpy(logit), task).numpy()
    if task.is_binary:
        return {
            "platt": lambda m: fit_platt(logit[m], label[m], weight[m]),
            "isotonic": lambda m: fit_isotonic_probability(prediction[m], label[m], weight[m]),
        }
    return {
        "affine": lambda m: fit_affine(
            prediction[m], label[m], low=task.low, high=task.high, weight=weight[m]
        ),
        "isotonic": lambda m: fit_isotonic(prediction[m], label[m], weight[m]),
    }


def _better(
    fits: dict[str, Fit], logit: np.ndarray, label: Vector, weight: Vector, shown_at: np.ndarray
) -> str:
    """Name the fit on the earlier half of the rows that has the lower log loss on the later half.

    Platt where either half has few rows of a class, and on a tie: it has two parameters to get wrong.
    """
    early = shown_at <= np.median(shown_at)
    for part in (early, ~early):
        positives = int(label[part].sum())
        if min(positives, int(part.sum()) - positives) < MIN_ROWS_PER_CLASS:
            return "platt"
    late = ~early
    losses = {}
    for kind, fit in fits.items():
        calibrator = fit(early)
        values = logit if calibrator.reads == "logit" else torch.from_numpy(logit).sigmoid().numpy()
        losses[kind] = log_loss(label[late], calibrator.apply(values[late]), weight[late])
    return "isotonic" if losses["isotonic"] < losses["platt"] else "platt"
