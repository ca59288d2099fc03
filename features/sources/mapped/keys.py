"""Ids made of several parts: different parts never make the same id, whatever they contain.

Of `USER-ITEM-MILLISECONDS` the last two parts hold no dash once the item's are escaped: from its end it reads
in one way only. A request that the log names keeps its id where that names the lists of one user and day;
where it comes again, for another user or on another day, it is `REQUEST~@USER~@DAY`. A `~` in a part is `~0`,
as in JSON pointers.
"""

from dataclasses import dataclass, field
from datetime import date

import numpy as np
import numpy.typing as npt
import polars as pl


def own_request(at: str = "at") -> pl.Expr:
    """Make the id of a response of one item."""
    item = escaped("item_id").str.replace_all("-", "~1", literal=True)
    return pl.format("{}-{}-{}", "user_id", item, pl.col(at).dt.epoch("ms"))


def own_event() -> pl.Expr:
    """Make the id of an event that has none."""
    return pl.format("{}:{}", own_request(), "kind")


def impression(rows: pl.DataFrame) -> pl.Expr:
    """Make the ids of impressions of request_id, position and item_id: REQUEST:POSITION, ~#ITEM if shared.

    A place is shared where a page has several lists, or a request's id several answers.
    """
    id_ = pl.format("{}:{}", "request_id", "position")
    place = pl.struct("request_id", "position")
    if rows.select(place.is_unique().all()).item():
        return id_
    several = pl.col("item_id").n_unique().over("request_id", "position") > 1
    return pl.when(several).then(pl.format("{}~#{}", id_, escaped("item_id"))).otherwise(id_)


def escaped(column: str) -> pl.Expr:
    """Write the mark between parts so that none is left in a part."""
    return pl.col(column).str.replace_all("~", "~0", literal=True)


@dataclass(slots=True)
class Requests:
    """The requests that a log names, day by day; 8 bytes each are kept."""

    _seen: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))

    def ids(self, rows: pl.DataFrame, day: date) -> pl.DataFrame:
        """Add `request_id` to one day's impressions, null where they name no request; days must ascend."""
        users = pl.col("user_id")
        named = rows.drop_nulls("request").group_by("request").agg(shared=users.min() != users.max())
        hashes = named["request"].hash(0).to_numpy()
        again = named["shared"] | pl.Series(np.isin(hashes, self._seen), dtype=pl.Boolean)
        self._seen = np.union1d(self._seen, hashes)
        plain = escaped("request")
        full = pl.format("{}~@{}~@{}", plain, escaped("user_id"), pl.lit(str(day)))
        reused = named["request"].filter(again)
        return rows.with_columns(
            request_id=pl.when(pl.col("request").is_in(reused.implode())).then(full).otherwise(plain)
        )
