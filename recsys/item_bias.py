"""How much oftener an item was chosen than the heads expected: the score of the source `item_bias`.

A head spreads what is known of one item over many layers, and where labels are few it knows an item's own
rate less well than counting does. What is counted here is what the heads leave over, so an item that was
shown to those who like it has none.

Shape: I items.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

PRIOR_POSITIVES: Final = 5.0
"""Each item is taken to have been chosen and expected so often beforehand: what was shown a few times stays
near 0, whatever became of it. A gamma prior of a Poisson rate (DuMouchel, The American Statistician 1999)."""
SCHEMA: Final = {"item_id": pl.String(), "bias": pl.Float32()}


def no_item_bias() -> pl.DataFrame:
    """Give the frame of no item."""
    return pl.DataFrame(schema=SCHEMA)


def item_bias(chosen: pl.DataFrame) -> pl.DataFrame:
    """Give log((h + p) / (e + p)) of each item: h times chosen, e expected, p the prior: `SCHEMA`, by item.

    Args: chosen: item_id, chosen, expected; an item may have several rows.
    """
    summed = chosen.group_by("item_id").agg(pl.col("chosen", "expected").sum())
    # A reversal may be counted on a later day than what it reverses: never below 0.
    times = pl.col("chosen").clip(0.0) + PRIOR_POSITIVES
    bias = (times / (pl.col("expected") + PRIOR_POSITIVES)).log().cast(pl.Float32)
    return summed.select("item_id", bias=bias).sort("item_id")


def bias_by_row(known: pl.DataFrame, ids: pl.Series) -> npt.NDArray[np.float32]:
    """Lay a bundle's biases out by the rows of a catalogue: [I]; 0 for items that it does not know."""
    joined = ids.to_frame("item_id").join(known, on="item_id", how="left", maintain_order="left")
    found: npt.NDArray[np.float32] = joined["bias"].fill_null(0.0).to_numpy()
    return found


def bias_of(bias_I: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Give the biases of rows [N]; 0 for rows behind the last: items that came after the counting."""
    found = np.zeros(rows.size, np.float32)
    known = rows < bias_I.size
    found[known] = bias_I[rows[known]]
    return found
