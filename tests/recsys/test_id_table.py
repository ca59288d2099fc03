"""Ids are found by their hash and told apart by their bytes; no Python object an id."""

import tracemalloc

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys import id_table
from recsys.id_table import MISSING, IdTable

TEXTS = st.lists(st.text(max_size=12), unique=True, max_size=60)


@given(ids=TEXTS, asked=st.lists(st.text(max_size=12), max_size=20))
def test_rows_are_those_of_a_dict(ids, asked) -> None:
    table, rows = (
        IdTable.of(pl.Series(ids, dtype=pl.String)),
        {item_id: row for row, item_id in enumerate(ids)},
    )
    asked = [*asked, *ids, ""]
    wanted = [rows.get(item_id, MISSING) for item_id in asked]
    assert table.rows_of(asked).tolist() == wanted
    assert [table.row_of(item_id) for item_id in asked] == wanted
    assert table.ids_of(range(len(ids))) == ids
    assert len(table) == len(ids)


@pytest.mark.parametrize("ids", [[], [""], ["", "a", "b" * 40]])
@pytest.mark.parametrize("at_once", [1, 512])
def test_many_ids_are_looked_up_in_any_table(monkeypatch, ids, at_once) -> None:
    monkeypatch.setattr(id_table, "_AT_ONCE", at_once)
    asked = ["", "a", "b" * 40, "b" * 39, "a\0", "\0", "c", "", "a", "é"]
    wanted = [ids.index(item_id) if item_id in ids else MISSING for item_id in asked]
    assert IdTable.of(pl.Series(ids, dtype=pl.String)).rows_of(asked).tolist() == wanted


@pytest.mark.parametrize("few", [0, 100])
def test_equal_hashes_of_different_ids_are_told_apart(monkeypatch, few) -> None:
    monkeypatch.setattr(id_table, "_FEW", few)  # all at once, and one by one
    monkeypatch.setattr(id_table, "_FACTOR", 1)  # the sum of the bytes: anagrams have equal hashes
    ids = ["abc", "bca", "cab", "zz", "acb"]
    table = IdTable.of(pl.Series(ids))
    assert np.unique(table.hashes).size == 2
    assert table.rows_of([*ids, "bac", "ad"]).tolist() == [0, 1, 2, 3, 4, MISSING, MISSING]
    assert [table.row_of(item_id) for item_id in (*ids, "bac")] == [0, 1, 2, 3, 4, MISSING]


def test_the_same_ids_give_the_same_arrays_everywhere() -> None:
    """Processes share them, so nothing of them may depend on the process, as Python's own hashes do."""
    table = IdTable.of(pl.Series(["a", "item-1"]))
    wanted = 0
    for byte in b"item-1":
        wanted = (wanted + byte + 1) * 0x9E3779B97F4A7C15 % 2**64
    assert table.hashes[table.rows == 1].tolist() == [wanted]


def test_no_id_is_far_from_where_its_first_bits_point() -> None:
    """Ids of a shop are numbered: they differ in their last characters."""
    for ids in (pl.int_range(0, 20_000, eager=True), pl.int_range(10**9, 10**9 + 20_000, eager=True)):
        table = IdTable.of("item-" + ids.cast(pl.String))
        assert np.diff(table.firsts).max() <= 12
        assert table.firsts.size <= 2 * len(table)


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_a_table_built_in_chunks_is_the_same(monkeypatch, chunk) -> None:
    ids = pl.Series(["", "a", "bb", "", "ccc"]).unique(maintain_order=True)
    whole = IdTable.of(ids)
    monkeypatch.setattr(id_table, "_CHUNK", chunk)
    np.testing.assert_array_equal(IdTable.of(ids).hashes, whole.hashes)


def test_a_lookup_allocates_by_what_is_asked() -> None:
    table = IdTable.of(pl.int_range(300_000, eager=True).cast(pl.String))
    asked = [str(n) for n in range(0, 300_000, 1000)]
    tracemalloc.start()
    assert table.rows_of(asked).tolist() == list(range(0, 300_000, 1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000
