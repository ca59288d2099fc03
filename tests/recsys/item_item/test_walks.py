"""Walks from item to user to item by hand, and sums of two tables."""

import numpy as np
import pytest
from scipy import sparse

from recsys.item_item import walks
from recsys.item_item.neighbours import ItemItem
from recsys.item_item.walks import blend, build_walks

HAVE = np.array([[1, 1, 0, 0], [1, 0, 1, 1], [1, 0, 1, 0]], np.float32)


def test_a_walk_is_the_sum_over_users_of_both():
    users, items = HAVE.sum(axis=1), HAVE.sum(axis=0)
    expected = (HAVE.T / np.sqrt(users)) @ HAVE / np.sqrt(items)[:, None] / items**0.4
    np.fill_diagonal(expected, 0.0)
    found = build_walks(sparse.csr_matrix(HAVE), most=4).matrix().toarray()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def table_of(weights, most):
    from recsys.item_item.neighbours import cut_dense

    neighbours, kept = cut_dense(np.array(weights, np.float32), most)
    return ItemItem(neighbours=neighbours, weights=kept)


@pytest.mark.parametrize("rows", [1, 4096])
def test_a_blend_adds_a_share_of_equal_width_and_keeps_the_strongest(monkeypatch, rows):
    monkeypatch.setattr(walks, "_ROWS_AT_ONCE", rows)
    table = table_of([[0, 3, 0], [4, 0, 0], [0, 0, 0]], 1)
    other = table_of([[0, 0, 10], [0, 0, 0], [0, 0, 0]], 1)
    assert blend(table, other, 0.5).matrix().toarray().tolist() == [[0, 3, 0], [4, 0, 0], [0, 0, 0]]
    assert blend(table, other, 1.0).matrix().toarray().tolist() == [[0, 0, 5], [4, 0, 0], [0, 0, 0]]
    assert blend(table, other, 0.0) is table
    assert blend(table, table_of(np.zeros((3, 3)), 1), 1.0) is table
