"""Items that users take together, counted in their latest events: a source of candidates for a server.

    each user's latest items, each once ─▶ pairs at most WINDOW places apart ─▶ cosine ─▶ nearest NEIGHBOURS

Legend: I items of the catalogue, K neighbours.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from features.history import VOID
from recsys.snapshot import DaySnapshot
from recsys.tasks import TaskSpec

NEIGHBOURS = 10
RECENT = 20
"""Of a user so many of the latest items are looked at."""
WINDOW = 5
MIN_USERS = 2
"""A pair that fewer users took is left out: it would tell of one user."""
SHRINKAGE = 5.0
"""Added to the cosine's denominator: a pair of rare items needs more than a few users."""
NO_NEIGHBOUR = -1
LATEST = 20
"""Of the latest events of a user's history so many are looked at for neighbours."""


def together_kinds(tasks: Sequence[TaskSpec], retrieved: TaskSpec | None) -> tuple[str, ...]:
    """List the feedback kinds that say that an item was taken: of the retrieval task, and those below it."""
    if retrieved is None:
        return ()
    names = {retrieved.name}
    for task in tasks:  # parents come first
        if task.parent in names:
            names.add(task.name)
    return tuple(dict.fromkeys(task.feedback for task in tasks if task.name in names))


def items_together(snapshot: DaySnapshot, kinds: Sequence[str], item_ids: pl.Series) -> np.ndarray:
    """Give each item's neighbours, best first: rows int32 [I, K], padded with NO_NEIGHBOUR.

    Args: kinds: of the feedback that counts; item_ids: of the catalogue's rows. The same for any number of
    parts that the users are split into.
    """
    rows = pl.DataFrame({"item_id": item_ids, "row": pl.arange(item_ids.len(), dtype=pl.Int32, eager=True)})
    columns = ("user_id", "item_id", "kind", VOID)
    counted = [
        _counted(snapshot.table("tail", part, columns), kinds, rows) for part in range(snapshot.num_parts)
    ]
    pairs = _sum([pairs for pairs, _ in counted], "row", "other").filter(pl.col("users") >= MIN_USERS)
    takers = _sum([takers for _, takers in counted], "row")
    product = pl.col("users_of_row") * pl.col("users_of_other")
    nearest = (
        pairs.join(takers.rename({"users": "users_of_row"}), on="row")
        .join(takers.rename({"row": "other", "users": "users_of_other"}), on="other")
        .with_columns(score=pl.col("users") / (product.cast(pl.Float64).sqrt() + SHRINKAGE))
        .sort(["row", "score", "other"], descending=[False, True, False])
        .with_columns(place=pl.int_range(pl.len()).over("row"))
        .filter(pl.col("place") < NEIGHBOURS)
    )
    found = np.full((item_ids.len(), NEIGHBOURS), NO_NEIGHBOUR, np.int32)
    found[nearest["row"].to_numpy(), nearest["place"].to_numpy()] = nearest["other"].to_numpy()
    return found


def neighbours_of(neighbours: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """List the neighbours of a user's latest items: the nearest of each, then the next ones.

    Args: neighbours: rows [I, K], as `items_together` gives them; rows: of the catalogue [N], newest first.
    Returns: int64 [M], distinct; some may not be allowed.
    """
    found = neighbours[rows[rows < neighbours.shape[0]]].T.ravel()
    _, first = np.unique(found, return_index=True)
    ordered = found[np.sort(first)]
    distinct: np.ndarray = ordered[ordered != NO_NEIGHBOUR].astype(np.int64)
    return distinct


def _counted(
    tail: pl.DataFrame, kinds: Sequence[str], rows: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Count users by ordered pair of items, both ways, and by item."""
    events = (
        tail.filter(pl.col("kind").is_in(list(kinds)), pl.col(VOID).is_null())
        .join(rows, on="item_id", maintain_order="left")
        .unique(["user_id", "row"], keep="last", maintain_order=True)
        .filter(pl.int_range(pl.len()).reverse().over("user_id") < RECENT)
    )
    pairs = []
    for distance in range(1, WINDOW + 1):
        before = events.select("row", other=pl.col("row").shift(distance).over("user_id")).drop_nulls()
        pairs += [before, before.select(row="other", other="row")]
    both = [pair.group_by("row", "other").agg(users=pl.len().cast(pl.Int64)) for pair in pairs]
    return _sum(both, "row", "other"), events.group_by("row").agg(users=pl.len().cast(pl.Int64))


def _sum(parts: Sequence[pl.DataFrame], *keys: str) -> pl.DataFrame:
    return pl.concat(parts).group_by(keys).agg(pl.col("users").sum())
