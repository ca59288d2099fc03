"""The item-item table as a row: settings by validation, lists without what was met in training."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from benchmarks.quality.catalogue_lists import Wanted, kept_scorer, mean_ndcg, wanted
from benchmarks.quality.models import item_tables
from benchmarks.quality.models.item_tables import (
    HEADS,
    PENALTIES,
    SHARES,
    TableRows,
    TableSetting,
    Together,
    choose_table,
    table_scorer,
)
from benchmarks.quality.models.pair_data import Pairs, Sides, Split
from benchmarks.quality.quality_set import Run

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
        item_tables,
        "build_ease_of_users",
        lambda m, p, **how: item_tables.build_ease(item_tables.gram_of(m), p, **how),
    )
    np.testing.assert_allclose(TableSetting(3.0, 0.3).fit(matrix).matrix().toarray(), found, atol=1e-4)


def test_the_setting_is_that_with_the_best_lists(monkeypatch):
    rng = np.random.default_rng(0)
    matrix = matrix_of(rng)
    of = Wanted(users=np.arange(USERS), held_out=matrix_of(rng), known=matrix)
    settings = [TableSetting(p, s, only) for p in PENALTIES for only in (False, True) for s in SHARES]
    for best in (0, 6, 31):
        worths = iter(np.eye(len(settings))[best])
        monkeypatch.setattr(item_tables, "mean_ndcg", lambda *_, worths=worths: next(worths))
        setting, table = choose_table(matrix, [of])
        assert setting == settings[best]
        again = setting.fit(matrix).matrix().toarray()
        np.testing.assert_array_equal(table.matrix().toarray(), again)
    scores = table_scorer(table, matrix)(np.array([3, 4]))
    np.testing.assert_allclose(scores, matrix.toarray()[3:5] @ again, rtol=1e-5)


@pytest.fixture
def tables():
    """Lists of one head and 9 users."""
    rng = np.random.default_rng(1)
    user, item = matrix_of(rng).nonzero()
    pairs = Pairs(user=user, item=item, labels={"had": np.ones(user.size, np.float32)})
    thirds = np.array_split(rng.permutation(user.size), 3)
    train, validation, test = (pairs.take(rows) for rows in thirds)
    ids = (np.arange(USERS)[:, None], np.arange(USERS, USERS + ITEMS)[:, None])
    sides = Sides(user_ids=ids[0], item_ids=ids[1], num_ids=USERS + ITEMS)
    split = Split(sides=sides, train=train, validation=validation, test=test)
    return TableRows(
        split, {"had": tuple(wanted(part, train, sides.shape, 9) for part in (validation, test))}
    )


def test_the_row_lists_held_out_items_of_each_head(tables):
    row = tables.alone()
    run = row.train(0)
    assert row.ours
    assert not row.seeded
    assert run.validation.keys() == run.test.keys() == {"had recall@10", "had ndcg@10"}
    assert run.test["had ndcg@10"].size == tables.lists["had"][1].users.size
    assert run.test["had ndcg@10"].mean() > 0.3
    assert run.note.startswith("penalty ")


def test_tables_are_chosen_once_for_all_rows(tables, monkeypatch):
    row = tables.alone()
    alone = row.train(0)
    monkeypatch.setattr(item_tables, "choose_table", lambda *_: pytest.fail("chosen again"))
    of_heads = Run(validation={"had auc": np.ones(3)}, test={"had auc": np.zeros(3)})
    run = tables.beside(of_heads, lambda users: np.zeros((users.size, ITEMS), np.float32))
    assert run.validation["had auc"].all(), "what the heads gave stays"
    np.testing.assert_array_equal(run.test["had ndcg@10"], alone.test["had ndcg@10"])
    assert run.note.startswith("item_item + 0 x heads (penalty ")


def test_no_choice_looks_at_the_test_lists(tables):
    """Other items to find in the test: the same table and weight."""
    ((head, (known, test)),) = tables.lists.items()
    turned = TableRows(tables.split, {head: (known, replace(test, held_out=known.held_out[::-1].tocsr()))})
    heads = np.random.default_rng(3).random((USERS, ITEMS), np.float32).__getitem__
    one, other = (rows.beside(Run(validation={}, test={}), heads) for rows in (tables, turned))
    assert one.note == other.note
    np.testing.assert_array_equal(one.validation["had ndcg@10"], other.validation["had ndcg@10"])
    assert not np.array_equal(one.test["had ndcg@10"], other.test["had ndcg@10"])


def test_heads_that_know_the_items_lead_the_lists(tables):
    """A weight above 0, and the test's lists follow it."""
    truth = tables.lists["had"][0].held_out + tables.lists["had"][1].held_out
    run = tables.beside(Run(validation={}, test={}), lambda users: truth[users].toarray())
    row = tables.alone()
    assert run.test["had ndcg@10"].mean() > row.train(0).test["had ndcg@10"].mean() + 0.1
    assert "item_item + 0 x" not in run.note


def test_all_lists_count_alike(monkeypatch):
    """One table for all heads: the mean over lists, not over heads."""
    known = sparse.csr_matrix((USERS, ITEMS))
    lists = [Wanted(users=np.arange(n), held_out=known, known=known) for n in (1, 3)]
    monkeypatch.setattr(item_tables, "mean_ndcg", lambda _, of: 1.0 if of.users.size == 1 else 0.2)
    assert item_tables._worth(None, lists) == pytest.approx((1.0 + 3 * 0.2) / 4)


def test_the_weight_is_in_widths_and_heads_that_know_nothing_get_none():
    rng = np.random.default_rng(2)
    of = Wanted(users=np.array([3, 5, 8]), held_out=matrix_of(rng), known=sparse.csr_matrix((USERS, ITEMS)))
    right = of.held_out.toarray()
    table, heads = 10 * rng.random(right.shape).astype(np.float32), 0.01 * right
    both = Together.choose(table.__getitem__, heads.__getitem__, [of])
    assert both.share in HEADS[1:]
    widths = [scores[of.users].std(axis=1).mean() for scores in (table, heads)]
    assert both.weight == pytest.approx(both.share * widths[0] / widths[1], rel=1e-4)
    score = both.scorer(table.__getitem__, heads.__getitem__)
    np.testing.assert_allclose(score(of.users), table[of.users] + both.weight * heads[of.users], rtol=1e-5)
    assert mean_ndcg(score, of) > mean_ndcg(table.__getitem__, of)
    nothing = Together.choose(right.__getitem__, rng.random(right.shape).__getitem__, [of])
    assert nothing == Together(share=0.0, weight=0.0)
    constant = Together.choose(right.__getitem__, np.ones_like(right).__getitem__, [of])
    assert constant.weight == 0.0


def test_users_of_several_lists_are_scored_once(tables):
    asked = []

    def score(users):
        asked.extend(users.tolist())
        return users[:, None] * np.ones(ITEMS)

    both = kept_scorer(score, tables.lists)
    one, other = (of.users for of in tables.lists["had"])
    assert sorted(asked) == sorted({*one.tolist(), *other.tolist()})
    np.testing.assert_array_equal(both(other)[:, 0], other)
