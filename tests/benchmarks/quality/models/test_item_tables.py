"""The item-item table as a row: settings by validation, lists without what was met in training."""

import numpy as np
import pytest
from scipy import sparse

from benchmarks.quality.catalogue_lists import Wanted
from benchmarks.quality.models import item_tables
from benchmarks.quality.models.item_tables import TableSetting, choose_tables, table_rows, table_scorer
from benchmarks.quality.models.pair_data import Pairs, Sides, Split

USERS, ITEMS = 30, 24


def matrix_of(rng, num_users=USERS):
    """Items come in pairs: who has one mostly has the other."""
    pairs = np.repeat(rng.random((num_users, ITEMS // 2)) < 0.3, 2, axis=1)
    return sparse.csr_matrix(pairs & (rng.random((num_users, ITEMS)) < 0.8), dtype=np.float32)


@pytest.mark.parametrize("num_users", [15, 40], ids=["fewer users", "fewer items"])
def test_both_systems_make_the_same_table(monkeypatch, num_users):
    matrix = matrix_of(np.random.default_rng(0), num_users)
    found = TableSetting(3.0, 0.3).fit(matrix).matrix().toarray()
    monkeypatch.setattr(
        item_tables, "build_ease_of_users", lambda m, p: item_tables.build_ease(item_tables.gram_of(m), p)
    )
    np.testing.assert_allclose(TableSetting(3.0, 0.3).fit(matrix).matrix().toarray(), found, atol=1e-4)


def test_the_setting_is_that_with_the_best_lists(monkeypatch):
    rng = np.random.default_rng(0)
    matrix = matrix_of(rng)
    of = Wanted(users=np.arange(USERS), held_out=matrix_of(rng), known=matrix)
    for best in (0, 6, 15):
        worths = iter(np.eye(16)[best])
        monkeypatch.setattr(item_tables, "mean_ndcg", lambda *_, worths=worths: next(worths))
        setting, table = choose_tables(matrix, {"head": of})["head"]
        assert setting == TableSetting(item_tables.PENALTIES[best // 4], item_tables.SHARES[best % 4])
        again = setting.fit(matrix).matrix().toarray()
        np.testing.assert_array_equal(table.matrix().toarray(), again)
    scores = table_scorer(table, matrix)(np.array([3, 4]))
    np.testing.assert_allclose(scores, matrix.toarray()[3:5] @ again, rtol=1e-5)


def test_the_row_lists_held_out_items_of_each_head():
    rng = np.random.default_rng(1)
    user, item = matrix_of(rng).nonzero()
    pairs = Pairs(user=user, item=item, labels={"had": np.ones(user.size, np.float32)})
    thirds = np.array_split(rng.permutation(user.size), 3)
    train, validation, test = (pairs.take(rows) for rows in thirds)
    ids = (np.arange(USERS)[:, None], np.arange(USERS, USERS + ITEMS)[:, None])
    sides = Sides(user_ids=ids[0], item_ids=ids[1], num_ids=USERS + ITEMS)
    split = Split(sides=sides, train=train, validation=validation, test=test)
    lists = {"had": tuple(item_tables.wanted(part, train, sides.shape, 9) for part in (validation, test))}
    (row,) = table_rows(split, lists).values()
    run = row.train(0)
    assert row.ours
    assert not row.seeded
    assert run.validation.keys() == run.test.keys() == {"had recall@10", "had ndcg@10"}
    assert run.test["had ndcg@10"].size == lists["had"][1].users.size
    assert run.test["had ndcg@10"].mean() > 0.3
    assert run.note.startswith("had: penalty ")
