"""A number cut into bins of equal mass, each an id of its own: kind `number` with `bins`."""

from dataclasses import dataclass

import numpy as np

from features.kinds.feature import FitRows, Fitted, IdFeature
from features.kinds.rows import FrameRows, Rows
from features.kinds.transforms import signed_log
from recsys.encoding import EncoderState, NumberStatistics
from recsys.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Binned(IdFeature):
    """A number's bin, looked up in an embedding table."""

    bins: int
    log: bool = False
    """Take sign(x)·log(1+|x|) before binning: the edges then lie on that scale."""

    @property
    def label(self) -> str:
        """Name the kind in the list of features."""
        return f"number in {self.bins} bins"

    def fit(self, rows: FitRows, known: Fitted) -> Fitted:
        """Find the edges, once in a lineage."""
        ids = tuple(str(b) for b in range(1, self.bins + 1))
        return Fitted(
            vocabulary=known.vocabulary or Vocabulary(ids=ids, hash_buckets=0),
            statistics=known.statistics or self._edges(rows),
        )

    def encode(self, rows: Rows, state: EncoderState) -> np.ndarray:
        """Give each row's bin 1 ... B, int64 [N]; a missing number is bin 0."""
        values = rows.numbers(self.column)
        edges = np.array(state.numbers[self.name].edges)
        cut = np.searchsorted(edges, signed_log(values) if self.log else values, side="right") + 1
        bins: np.ndarray = np.where(np.isnan(values), 0, cut).astype(np.int64)
        return bins

    def _edges(self, rows: FitRows) -> NumberStatistics:
        """Cut into bins of equal mass; equal values never fall into two bins.

        Exact quantiles need all values of the column at once.
        """
        found = [FrameRows(frame).numbers(self.column) for frame in rows.frames(self.columns)]
        values = np.concatenate([values[np.isfinite(values)] for values in found])
        edges: tuple[float, ...] = ()
        if values.size:
            shares = np.arange(1, self.bins) / self.bins
            cuts = np.quantile(signed_log(values) if self.log else values, shares, method="higher")
            edges = tuple(float(e) for e in np.unique(cuts))
        return NumberStatistics(prior=0.0, mean=0.0, std=1.0, edges=edges)
