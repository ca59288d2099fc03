"""A day's rows that stand in lists, each with inputs of its own, so that single inputs can be exchanged.

N rows of L lists. The state of the user and the clock are those of the list's first impression.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import polars as pl

from features.encode import Encoded
from recsys.metrics.columns import Lists
from training.crosses import CrossTable
from training.data import EncodedRows

_DRAWS = 20
"""How often another user is drawn, where the list's own came out, before the list keeps its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListRows:
    """Rows [N] of lists."""

    encoded: EncodedRows
    """With one row of users, items and crosses for each row, in their order, and the unknown one last."""
    crosses_of: EncodedRows
    """The day's own rows [N]: their crosses know every pair of a user and an item."""
    lists: Lists
    list_code: np.ndarray
    """[N], the list from 0."""
    context_code: np.ndarray
    """[N], equal where the request's categorical context is."""

    @classmethod
    def of(
        cls,
        encoded: EncodedRows,
        held: tuple[EncodedRows, np.ndarray] | None,
        lists: Lists,
        rows: np.ndarray,
        contexts: list[str],
    ) -> Self:
        """Take some rows of a day, all of them in lists.

        Args: encoded: the day; held: rows whose state is another one as their lists began, and their places;
        lists: of the day's rows; rows: ascending; contexts: columns of the request's categorical context.
        """
        state = encoded if held is None else _with_state(encoded, *held)
        own = state.take(rows)
        chosen = lists.take(rows)
        return cls(
            encoded=_unshared(own),
            crosses_of=own,
            lists=chosen,
            list_code=np.unique(chosen.group, return_inverse=True)[1],
            context_code=_context_codes(own.frame, contexts),
        )

    @property
    def size(self) -> int:
        """Count the rows."""
        return self.list_code.size

    def shuffled(self, rng: np.random.Generator) -> np.ndarray:
        """Give for each row [N] a row of its own list, each once."""
        place = np.lexsort((rng.random(self.size), self.list_code))
        found = np.empty(self.size, np.int64)
        found[np.argsort(self.list_code, kind="stable")] = place
        return found

    def other_users(self, rng: np.random.Generator) -> np.ndarray:
        """Give for each row [N] a row of another user, one for all rows of a list, in equal context if any.

        A list whose context is that of one user alone keeps its own.
        """
        first = np.unique(self.list_code, return_index=True)[1]
        user, context = self.encoded.user_key[first], self.context_code[first]
        by_context = np.argsort(context, kind="stable")
        start = np.searchsorted(context[by_context], context)
        size = np.searchsorted(context[by_context], context, side="right") - start
        chosen = np.arange(first.size)
        same = np.ones(first.size, np.bool_)
        for _ in range(_DRAWS):
            lists = np.flatnonzero(same)
            chosen[lists] = by_context[start[lists] + rng.integers(0, size[lists])]
            same = user[chosen] == user
            if not same.any():
                break
        found: np.ndarray = first[chosen][self.list_code]
        return found


def _with_state(encoded: EncodedRows, held: EncodedRows, places: np.ndarray) -> EncodedRows:
    """Give a day with the state of some of its rows as their lists began."""
    source = np.arange(encoded.size)
    source[places] = encoded.size + np.arange(places.size)

    def joined(live: np.ndarray, moved: np.ndarray) -> np.ndarray:
        both: np.ndarray = np.concatenate([live, moved])[source]
        return both

    return replace(
        encoded,
        contexts=replace(
            encoded.contexts,
            ids=joined(encoded.contexts.ids, held.contexts.ids),
            numbers=joined(encoded.contexts.numbers, held.contexts.numbers),
        ),
        start=joined(encoded.start, held.start),
        stop=joined(encoded.stop, held.stop),
        state_at=joined(encoded.state_at, held.state_at),
        past=joined(encoded.past, held.past),
    )


def _unshared(encoded: EncodedRows) -> EncodedRows:
    """Give each row a user, an item and crosses that no other row has."""
    own = np.arange(encoded.size)
    return replace(
        encoded,
        users=_with_unknown(encoded.users, encoded.user_row),
        items=_with_unknown(encoded.items, encoded.item_row),
        crosses=tuple(
            one_cross_a_row(table.gather(encoded.user_row, encoded.item_row)) for table in encoded.crosses
        ),
        user_row=own,
        item_row=own,
    )


def one_cross_a_row(numbers: np.ndarray) -> CrossTable:
    """Make a table that gives row n, asked for its own user and item, numbers [N, F] of row n."""
    size = numbers.shape[0]
    return CrossTable(
        keys=np.arange(size),
        item_codes=np.zeros(size + 1, np.int64),
        num_codes=1,
        numbers=np.concatenate([numbers, np.zeros_like(numbers[:1])]),
    )


def _with_unknown(entity: Encoded, rows: np.ndarray) -> Encoded:
    return entity.take(np.append(rows, entity.ids.shape[0] - 1))


def _context_codes(frame: pl.DataFrame, contexts: list[str]) -> np.ndarray:
    if not contexts:
        return np.zeros(frame.height, np.int64)
    codes: np.ndarray = frame.select(pl.struct(contexts).rank("dense").cast(pl.Int64)).to_series().to_numpy()
    return codes
