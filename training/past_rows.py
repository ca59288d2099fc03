"""What the ranker reads of a day's rows by what their users had taken, as a server knew it at each row.

    taken up to the day before + the day's own events until the row ─┬▶ numbers of the row [F]
    the table of items' neighbours of a day before it ───────────────┘

No number knows its own row's label: the table is of days before, and an event counts once it was received.
Legend: N rows, F numbers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from features.days import Days
from features.definitions import Past
from features.encode import Encoder
from features.taken import requests_taken, taken_rows
from recsys.item_item.neighbours import ItemItem
from recsys.snapshot import DaySnapshot
from recsys.user_sources import READ_TERMS, PastNumbers, UserSources
from training.item_item import item_item_table, switched_on, with_rows_of

MOST_TABLES = 28
"""Periods of one training that have a table each; of more, so many follow each other with one, the one before
the first of them. A table takes seconds: of 10,000 items half a minute of a core."""


def periods_of_a_table(num_periods: int) -> int:
    """Give how many periods of a training share a table."""
    return max(1, -(-num_periods // MOST_TABLES))


@dataclass(frozen=True)
class DayPast:
    """Reads the past of one day's rows; nothing where the ranker reads none."""

    feature: Past | None
    snapshot: DaySnapshot
    previous: DaySnapshot | None
    counted: DaySnapshot | None
    """What the table is made of: the day before, or one before that."""

    @classmethod
    def of(cls, encoder: Encoder, days: Days, i: int, every: int = 1) -> "DayPast":
        """Read day i. Args: every: periods that share a table, as `periods_of_a_table` says."""
        counted = days.before(max(i - i % every, min(i, 1)))
        return cls(encoder.features.past, days[i], days.before(i), counted)

    def numbers(self, rows: pl.DataFrame, at_ms: np.ndarray, item_row: np.ndarray) -> np.ndarray:
        """Give the numbers of rows: float32 [N, F].

        Args: rows: user_id; at_ms: the instant of each row's state; item_row: of the day's items.
        """
        width = len(self.feature.names) if self.feature else 0
        found = np.zeros((rows.height, width), np.float32)
        if not width or self.previous is None or not rows.height:
            return found
        asked, of_row = _requests(rows["user_id"], at_ms)
        order = np.argsort(of_row, kind="stable")
        stops = np.searchsorted(of_row[order], np.arange(asked.height + 1))
        for request, past in enumerate(self._pasts(asked)):
            mine = order[stops[request] : stops[request + 1]]
            found[mine] = past.of_rows(item_row[mine])[:, :width]
        return found

    def _pasts(self, asked: pl.DataFrame) -> Iterator[PastNumbers]:
        """Give what each request [R] reads. Args: asked: user_id and shown_at."""
        assert self.feature is not None, "the ranker reads no past"
        assert self.previous is not None, "on a log's first day nothing was taken before"
        config, instants = self.feature.config, asked["shown_at"].dt.epoch("ms").to_list()
        start = 0
        for count, events in requests_taken(self.previous, self.snapshot, asked, config):
            of_users = taken_rows(events, count, self._day_ids, config)
            for taken, at_ms in zip(of_users, instants[start : start + count], strict=True):
                yield PastNumbers.of(UserSources.of(taken, at_ms, self._table, READ_TERMS))
            start += count

    @cached_property
    def _day_ids(self) -> pl.Series:
        """List the day's items: one that came today may be taken again today, as a server knows."""
        return self.snapshot.table("items", columns=["item_id"])["item_id"]

    @cached_property
    def _ids(self) -> pl.Series:
        """List the items of the day before: they are the day's first, and no other one has neighbours."""
        assert self.previous is not None
        return self.previous.table("items", columns=["item_id"])["item_id"]

    @cached_property
    def _table(self) -> ItemItem | None:
        assert self.feature is not None
        assert self.counted is not None
        config = self.feature.config
        ids = self.counted.table("items", columns=["item_id"])["item_id"]
        table = item_item_table(self.counted, config, ids, switched_on(config))
        if table is None or self.counted is self.previous:
            return table
        return with_rows_of(table, ids, self._ids)


def _requests(users: pl.Series, at_ms: np.ndarray) -> tuple[pl.DataFrame, np.ndarray]:
    """Give the distinct users and instants [R], and which of them each row [N] is of."""
    instants = pl.Series("shown_at", at_ms).cast(pl.Datetime("ms", "UTC"))
    rows = pl.DataFrame([users.alias("user_id"), instants])
    asked = rows.unique(maintain_order=True).with_row_index("request")
    of_row = rows.join(asked, on=["user_id", "shown_at"], how="left", maintain_order="left")["request"]
    return asked.select("user_id", "shown_at"), of_row.cast(pl.Int64).to_numpy()
