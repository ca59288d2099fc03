"""Users' aggregates by columns of the candidate, for whole days: (user row, item row) -> numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from features.build import cross_rows
from features.definitions import Cross
from features.encode import Encoder
from features.kinds.rows import id_column, number_arrays
from features.online import item_group
from recsys.snapshot import DaySnapshot


@dataclass(frozen=True, slots=True)
class CrossTable:
    """One cross feature of a day; K pairs of user and value that have any events.

    keys int64 [K], ascending: user row · codes + code of the value. item_codes int64 [I + 1] by item row.
    numbers float32 [K + 1, F]; the last row is for pairs without events.
    """

    keys: np.ndarray
    item_codes: np.ndarray
    num_codes: int
    numbers: np.ndarray

    def gather(self, user_row: np.ndarray, item_row: np.ndarray) -> np.ndarray:
        """Give numbers [N, F] of pairs of a user row and an item row, [N] each."""
        wanted = user_row * self.num_codes + self.item_codes[item_row]
        found = np.searchsorted(self.keys, wanted)
        hit = np.zeros(wanted.size, bool)
        inside = found < self.keys.size
        hit[inside] = self.keys[found[inside]] == wanted[inside]
        numbers: np.ndarray = self.numbers[np.where(hit, found, self.keys.size)]
        return numbers


def encode_crosses(
    encoder: Encoder,
    snapshot: DaySnapshot,
    previous: DaySnapshot | None,
    users: pl.Series,
    items: pl.DataFrame,
    part: int | None = None,
) -> tuple[CrossTable, ...]:
    """Encode a day's cross features for its user rows and item rows."""
    return tuple(
        _encode(encoder, cross, cross_rows(cross.group, previous, snapshot, part), users, items)
        for cross in encoder.features.crosses
    )


def _encode(
    encoder: Encoder, cross: Cross, rows: pl.DataFrame, users: pl.Series, items: pl.DataFrame
) -> CrossTable:
    groups = item_group(items, cross.group)
    names = groups.drop_nulls().unique(maintain_order=True)
    codes = pl.DataFrame({"name": names, "code": np.arange(names.len(), dtype=np.int64)})
    # Two codes beyond the known ones never meet: items without the value, and users' values no item has.
    num_codes = names.len() + 2
    item_codes = _look_up(groups, codes, names.len())
    value_codes = _look_up(id_column(rows, cross.group).cast(pl.String), codes, names.len() + 1)
    user_table = pl.DataFrame({"name": users, "code": np.arange(users.len(), dtype=np.int64)})
    user_rows = _look_up(rows["user_id"], user_table, users.len() + 1)
    keys = user_rows * num_codes + value_codes
    order = np.argsort(keys, kind="stable")
    arrays = number_arrays(rows.drop("user_id", cross.group))
    numbers = encoder.encode_cross(cross, arrays, rows.height)
    return CrossTable(
        keys=keys[order],
        item_codes=np.append(item_codes, names.len()),
        num_codes=num_codes,
        numbers=np.concatenate([numbers[:-1][order], numbers[-1:]]),
    )


def cross_numbers(tables: Sequence[CrossTable], user_row: np.ndarray, item_row: np.ndarray) -> np.ndarray:
    """Give all cross features of pairs, float32 [N, F]."""
    parts = [table.gather(user_row, item_row) for table in tables]
    return np.concatenate([np.zeros((user_row.size, 0), np.float32), *parts], axis=1)


def _look_up(values: pl.Series, table: pl.DataFrame, missing: int) -> np.ndarray:
    found = values.alias("name").to_frame().join(table, on="name", how="left", maintain_order="left")["code"]
    codes: np.ndarray = found.fill_null(missing).to_numpy()
    return codes
