"""Calibrate one head: the functions that `recsys.head_kinds.HEAD_KINDS` names: rows, task -> Calibrator.

`levelled` keeps the form of one that is there, and moves its level alone.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.calibration import (
    Affine,
    Calibrator,
    Identity,
    Isotonic,
    Platt,
    PlattItems,
    PlattParent,
    SamplingShift,
    correct_sampling,
    fit_affine,
    fit_isotonic,
    fit_isotonic_probability,
    fit_platt,
    has_both_classes,
)
from recsys.item_terms import ItemNumbers, fit_platt_items
from recsys.metrics.columns import Mask, Vector
from recsys.metrics.pointwise import log_loss
from recsys.parent_terms import fit_platt_parent
from recsys.tasks import TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRows:
    """What a head said of the rows [N] of its calibration period, and what came of them."""

    logit: npt.NDArray[np.float64]
    """[N], or [N, C] of levels."""
    prediction: Vector
    label: Vector
    """NaN where not known."""
    weight: Vector
    """1 / sampling rate, so that probabilities are those of the stream before its negatives were sampled."""
    shown_at: npt.NDArray[np.int64]
    items: ItemNumbers | None = None
    """Rates and means of each row's item; None: not known here."""
    parent: Vector | None = None
    """The logit [N] of the head's parent; None: it has none."""

    @property
    def known(self) -> "HeadRows":
        """Keep the rows whose label is known."""
        return self.where(~np.isnan(self.label))

    def where(self, chosen: Mask) -> "HeadRows":
        """Select rows by a mask [N]."""
        return HeadRows(
            logit=self.logit[chosen],
            prediction=self.prediction[chosen],
            label=self.label[chosen],
            weight=self.weight[chosen],
            shown_at=self.shown_at[chosen],
            items=None if self.items is None else self.items.take(chosen),
            parent=None if self.parent is None else self.parent[chosen],
        )

    def joined(self, calibrator: Calibrator) -> npt.NDArray[np.float64]:
        """Give what a calibrator of logits reads [N], without the terms of items."""
        if not isinstance(calibrator, PlattParent):
            return self.logit
        assert self.parent is not None, "its head has a parent"
        return calibrator.joined(self.logit, self.parent).astype(np.float64)


def platt(rows: HeadRows, task: TaskSpec) -> Platt | PlattParent:
    """Fit a sigmoid of the logit; of a head with a parent, of both logits."""
    del task
    known = rows.known
    if known.parent is None:
        return fit_platt(known.logit, known.label, known.weight)
    return fit_platt_parent(known.logit, known.parent, known.label, known.weight)


def platt_items(rows: HeadRows, task: TaskSpec) -> Platt | PlattItems | PlattParent:
    """Fit a sigmoid of the logit with a small term of the item; where nothing is known of it, without."""
    known = rows.known
    if known.items is None:
        return platt(known, task)
    return fit_platt_items(known.logit, known.label, known.items, known.weight)


def isotonic_probability(rows: HeadRows, task: TaskSpec) -> Isotonic:
    """Fit a never-falling map of the probability, its ends inside (0, 1)."""
    del task
    known = rows.known
    return fit_isotonic_probability(known.prediction, known.label, known.weight)


def platt_or_isotonic(rows: HeadRows, task: TaskSpec) -> Calibrator:
    """Fit the one that, fitted on the earlier half of the weight, has the lower log loss on the later half.

    Platt where either half has few effective rows of a class, and on a tie: it has two parameters to get
    wrong.
    """
    known = rows.known
    is_early = known.shown_at <= _middle(known.shown_at, known.weight)
    early, late = known.where(is_early), known.where(~is_early)
    if not all(has_both_classes(half.label, half.weight) for half in (early, late)):
        return platt(known, task)
    smooth = platt(early, task)
    sigmoid = log_loss(late.label, smooth.apply(late.joined(smooth)), late.weight)
    steps = log_loss(late.label, isotonic_probability(early, task).apply(late.prediction), late.weight)
    return (isotonic_probability if steps < sigmoid else platt)(known, task)


def _middle(shown_at: npt.NDArray[np.int64], weight: Vector) -> int:
    """Give the first instant [N] up to which at least half of the weight [N] lies."""
    order = np.argsort(shown_at, kind="stable")
    until = np.cumsum(weight[order])
    return int(shown_at[order][np.searchsorted(until, until[-1] / 2)])


def sampling_correction(rows: HeadRows, task: TaskSpec) -> Calibrator:
    """Leave a probability as it is, but for the mean rate at which its negatives were kept."""
    del task
    negative = rows.label != 1  # an unknown label counts as negative: only those are sampled
    if not (rows.weight[negative] > 1).any():
        return Identity()
    rate = negative.sum() / rows.weight[negative].sum()
    return SamplingShift(b=float(correct_sampling(0.0, rate)))


def affine(rows: HeadRows, task: TaskSpec) -> Affine:
    """Fit a line through the value, clipped to its range."""
    known = rows.known
    return fit_affine(known.prediction, known.label, low=task.low, high=task.high, weight=known.weight)


def isotonic(rows: HeadRows, task: TaskSpec) -> Isotonic:
    """Fit a never-falling map of the value."""
    del task
    known = rows.known
    return fit_isotonic(known.prediction, known.label, known.weight)


def identity(rows: HeadRows, task: TaskSpec) -> Identity:
    """Leave a value as it is."""
    del rows, task
    return Identity()
