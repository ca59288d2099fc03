"""Predicted against observed propensities: whether what the log says of its own policy is so."""

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from recsys.errors import DataError


class PropensityBin(BaseModel):
    """Events that were predicted alike, and how often they happened."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    events: int
    predicted: float
    """Mean probability."""
    observed: float
    """Share that happened."""
    z: float
    """Difference in standard errors of independent events; beyond 3 or so it is no chance."""


def propensity_table(
    predicted: npt.ArrayLike, happened: npt.ArrayLike, bins: int = 10
) -> tuple[PropensityBin, ...]:
    """Compare probabilities [N] that an item is shown with whether it was [N], in bins of equal events.

    Every candidate belongs in here, and not only what was shown: of the shown alone all have happened.
    Raises: DataError when lengths differ or a probability is outside [0, 1].
    """
    chance, shown = np.asarray(predicted, np.float64), np.asarray(happened, np.float64)
    if chance.shape != shown.shape or chance.ndim != 1 or not chance.size:
        raise DataError(
            f"predicted has shape {chance.shape}, happened {shown.shape}; pass two of equal length"
        )
    if not ((chance >= 0) & (chance <= 1)).all():
        raise DataError(f"a predicted propensity is outside [0, 1]: {chance.min()} to {chance.max()}")
    found = []
    for rows in np.array_split(np.argsort(chance, kind="stable"), min(bins, chance.size)):
        spread = float(np.sqrt((chance[rows] * (1 - chance[rows])).sum()))
        difference = float((shown[rows] - chance[rows]).sum())
        # Certain events have no spread: one that fails is beyond any error.
        z = difference / spread if spread > 0 else float(np.sign(difference)) * 1e9
        found.append(
            PropensityBin(
                events=rows.size,
                predicted=float(chance[rows].mean()),
                observed=float(shown[rows].mean()),
                z=z,
            )
        )
    return tuple(found)
