"""Many numbers of few rows, encoded together: for one user a call of numpy costs more than its work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from features.kinds.number import Number, standardised, transformed
from recsys.encoding import EncoderState


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """The numbers of one transform, by their places among all."""

    transform: str
    at: np.ndarray
    x: np.ndarray
    """Columns of the raw values, like `of`."""
    of: np.ndarray
    prior: np.ndarray
    unit: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberBlock:
    """F numbers, computed from C raw columns, as `Number.encode` computes each alone."""

    columns: tuple[str, ...]
    """[C], each once."""
    parts: tuple[_Part, ...]
    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, numbers: Sequence[Number], state: EncoderState) -> Self:
        """Join numbers whose statistics are fitted."""
        columns = tuple(dict.fromkeys(column for number in numbers for column in number.columns))
        statistics = [state.numbers[number.name] for number in numbers]
        parts = []
        for transform in dict.fromkeys(number.transform for number in numbers):
            at = [i for i, number in enumerate(numbers) if number.transform == transform]
            parts.append(
                _Part(
                    transform=transform,
                    at=np.array(at),
                    x=np.array([columns.index(numbers[i].column) for i in at]),
                    of=np.array([columns.index(numbers[i].of or numbers[i].column) for i in at]),
                    prior=np.array([statistics[i].prior for i in at]),
                    unit=np.array([numbers[i].unit for i in at]),
                )
            )
        return cls(
            columns=columns,
            parts=tuple(parts),
            mean=np.array([s.mean for s in statistics]),
            std=np.array([s.std for s in statistics]),
        )

    def encode_row(self, row: Mapping[str, object]) -> np.ndarray:
        """Encode one row of raw values, [1, F]; what is missing, absent or text gives 0."""
        values = [row.get(column) for column in self.columns]
        return self.encode(np.array([[None if isinstance(v, str) else v for v in values]], np.float64))

    def encode(self, raw: np.ndarray) -> np.ndarray:
        """Encode raw values float64 [N, C], NaN where one is missing: float32 [N, F]."""
        found = np.empty((raw.shape[0], self.mean.size))
        for part in self.parts:
            x, of = raw[:, part.x], raw[:, part.of]
            found[:, part.at] = transformed(part.transform, x, of, part.prior, part.unit)
        return standardised(found, self.mean, self.std).astype(np.float32)
