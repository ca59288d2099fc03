"""Ids made of several parts: different parts never make the same id, whatever they contain.

Of `USER-ITEM-MILLISECONDS` the last two parts hold no dash once the item's are escaped: from its end it reads
in one way only. A request that the log names keeps its id where that names the lists of one user and day;
where it comes again, for another user or on another day, it is `REQUEST~@USER~@DAY`. A `~` in a part is `~0`,
as in JSON pointers.
"""

from dataclasses import dataclass, field
from datetime import date

import polars as pl

from features.sources.mapped.seen import Seen


def own_request(at: str = "at") -> pl.Expr:
    """Make the id of a response of one item."""
    item = escaped("item_id").str.replace_all("-", "~1", literal=True)
    return pl.format("{}-{}-{}", "user_id", item, pl.col(at).dt.epoch("ms"))


def own_event() -> pl.Expr:
    """Make the id of an event that has none."""
    return pl.format("{}:{}", own_request(), "kind")


def impression() -> pl.Expr:
    """Make the id of an impression of request_id and position."""
    return pl.format("{}:{}", "request_id", "position")


def with_items(made: pl.DataFrame) -> pl.DataFrame:
    """Add ~#ITEM to made ids of several items: a page has several lists, a request several answers."""
    shared = pl.col("item_id").n_unique().over("impression_id", "user_id") > 1
    full = pl.format("{}~#{}", "impression_id", escaped("item_id"))
    mine = shared & (pl.col("impression_id") == impression())
    return made.with_columns(impression_id=pl.when(mine).then(full).otherwise("impression_id"))


def escaped(column: str) -> pl.Expr:
    """Write the mark between parts so that none is left in a part."""
    return pl.col(column).str.replace_all("~", "~0", literal=True)


@dataclass(slots=True)
class Requests:
    """The requests that a log names, day by day; 8 bytes each are kept."""

    _seen: Seen = field(default_factory=Seen)

    def ids(self, rows: pl.DataFrame, day: date) -> pl.DataFrame:
        """Add `request_id` to one day's impressions, null where they name no request; days must ascend.

        `request` stays where it is another: feedback names that one.
        """
        reused = self._reused(rows)
        plain = escaped("request")
        if reused.len():
            full = pl.format("{}~@{}~@{}", plain, escaped("user_id"), pl.lit(str(day)))
            plain = pl.when(pl.col("request").hash(0).is_in(reused.implode())).then(full).otherwise(plain)
        named = rows.with_columns(request_id=plain)
        return named.with_columns(request=pl.when(pl.col("request") != pl.col("request_id")).then("request"))

    def _reused(self, rows: pl.DataFrame) -> pl.Series:
        """Give the hashes of a day's requests that several users or earlier days have, too."""
        users = pl.col("user")
        hashes = rows.select("request", user=pl.col("user_id").hash(0)).drop_nulls("request").group_by(
            pl.col("request").hash(0)
        ).agg(shared=users.min() != users.max()).sort("request")  # fmt: skip
        again = self._seen.again(hashes["request"])
        return hashes["request"].filter(hashes["shared"] | again)
