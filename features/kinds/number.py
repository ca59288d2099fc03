"""Kind `number`: a number, transformed and standardised, or cut into bins that are looked up."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import Field

from features.kinds.binned import Binned
from features.kinds.feature import Feature, FeatureKind, FitRows, Fitted, NumberFeature, Options, identity
from features.kinds.rows import FrameRows, NumberRows, is_number
from features.kinds.sums import sum_of
from features.kinds.transforms import CLIP, SHRINKAGE, signed_log
from recsys.config import FeatureConfig, FeaturesConfig
from recsys.encoding import EncoderState, NumberStatistics

Transform = Literal["raw", "log", "rate", "mean"]


class NumberOptions(Options):
    """Options of a number."""

    log: bool = False
    """Take sign(x)·log(1+|x|) first."""
    bins: int = Field(default=0, ge=0, le=1024)
    """Cut into so many bins of equal mass (edges from training days) and look each up in a table of `dim`
    columns; 0: standardise."""
    dim: int = Field(default=8, ge=1, le=256)
    """Columns of the table of bins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Number(NumberFeature):
    """A number, transformed and then standardised with statistics of training days only.

    raw: x. log: sign(x)·log(1+|x|). rate: logit of (x + s·p) / (max(of, x) + s), p the overall rate.
    mean: (unit·x + s·m) / (of + s), m the overall mean.
    """

    transform: Transform
    of: str = ""
    unit: float = 1.0
    """What one unit of a mean's column is worth: aggregates hold whole steps of a value."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Name the raw columns that the value is computed from."""
        return (self.column, self.of) if self.of else (self.column,)

    @property
    def label(self) -> str:
        """Name the kind in the list of features."""
        return f"number ({self.transform})"

    @property
    def source(self) -> str:
        """Say in the list of features what the value is computed from."""
        column = self.column if self.unit == 1 else f"{self.unit:g} * {self.column}"
        return f"{column} / {self.of}" if self.of else column

    def fit(self, rows: FitRows, known: Fitted) -> Fitted:
        """Fit prior, mean and standard deviation, once in a lineage."""
        if known.statistics is not None:
            return known
        return Fitted(statistics=self.statistics_of(rows))

    def encode(self, rows: NumberRows, state: EncoderState) -> np.ndarray:
        """Give each row's standardised number [N, 1]; 0 for a missing one."""
        statistics = state.numbers[self.name]
        number = standardised(self._transformed(rows, statistics.prior), statistics.mean, statistics.std)
        return number[:, None]

    def statistics_of(self, rows: FitRows) -> NumberStatistics:
        """Fit on rows [N].

        The prior is of all rows alike. Mean and standard deviation are of the examples: counted by rows, the
        few items that fill most lists would lie far out, or be cut, and all others in one narrow band. Where
        no row with a value has an example, rows count alike.
        """
        nothing = NumberStatistics(prior=0.0, mean=0.0, std=1.0)
        if self.column not in rows.schema or rows.num_rows == 0:
            return nothing
        prior = self._prior(rows)

        def known() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for frame, examples in rows.pieces(self.columns):
                raw = self._transformed(FrameRows(frame), prior)
                finite = np.isfinite(raw)
                yield raw[finite], examples[finite]

        made = list(known()) if rows.in_memory else None

        def numbers() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            return known() if made is None else iter(made)

        count = sum(raw.size for raw, _ in numbers())
        if not count:
            return replace(nothing, prior=prior)
        weighted = any(examples.any() for _, examples in numbers())

        def average(of: Callable[[np.ndarray], np.ndarray]) -> float:
            if not weighted:
                return sum_of((of(raw) for raw, _ in numbers()), count) / count
            total = sum_of((of(raw) * examples for raw, examples in numbers()), count)
            return total / sum_of((examples for _, examples in numbers()), count)

        mean = average(lambda raw: raw)
        std = math.sqrt(average(lambda raw: (raw - mean) ** 2))
        # A constant column's standard deviation is rounding noise; dividing by it would make noise of its
        # values.
        return NumberStatistics(prior=prior, mean=mean, std=std if std > 1e-9 * max(1.0, abs(mean)) else 1.0)

    def _prior(self, rows: FitRows) -> float:
        """Give the overall rate or mean of all rows [N]."""
        if self.transform not in ("rate", "mean"):
            return 0.0

        def total(column: str) -> float:
            found = (FrameRows(frame).numbers(column) for frame in rows.frames(self.columns))
            return sum_of((np.where(np.isnan(x), 0.0, x) for x in found), rows.num_rows)

        return float(self.unit * total(self.column) / max(total(self.of), 1.0))

    def _transformed(self, rows: NumberRows, prior: float) -> np.ndarray:
        """Apply the transform to float64 columns [N]; missing stays NaN."""
        x = rows.numbers(self.column)
        return transformed(self.transform, x, rows.numbers(self.of) if self.of else x, prior, self.unit)


def transformed(
    transform: str, x: np.ndarray, of: np.ndarray, prior: float | np.ndarray, unit: float | np.ndarray
) -> np.ndarray:
    """Apply a transform to raw values float64, of one number or side by side of many; missing stays NaN."""
    if transform == "log":
        return signed_log(x)
    if transform == "rate":
        # Feedback can outnumber what it is a share of (repeated, late, or older than what was kept of that).
        p = (x + SHRINKAGE * prior) / (np.maximum(of, x) + SHRINKAGE)
        p = np.clip(p, 1e-6, 1 - 1e-6)
        logit: np.ndarray = np.log(p) - np.log1p(-p)
        return logit
    if transform == "mean":
        mean: np.ndarray = (unit * x + SHRINKAGE * prior) / (of + SHRINKAGE)
        return mean
    return x


def standardised(x: np.ndarray, mean: float | np.ndarray, std: float | np.ndarray) -> np.ndarray:
    """Standardise and clip transformed values; a missing one becomes 0."""
    number: np.ndarray = np.clip((x - mean) / std, -CLIP, CLIP)
    number[np.isnan(number)] = 0.0
    return number


def define(declared: FeatureConfig, options: NumberOptions, features: FeaturesConfig) -> Feature:
    """Make a feature of what a config declares: a standardised number, or its bins."""
    del features
    same = identity(declared)
    if options.bins:
        name = f"{declared.entity}_{declared.name}"
        return Binned(**same, vocabulary=name, dim=options.dim, bins=options.bins, log=options.log)
    return Number(**same, transform="log" if options.log else "raw")


NUMBER = FeatureKind(options=NumberOptions, define=define, holds=is_number)
