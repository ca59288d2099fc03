"""The directed fit against its normal equations, and what each kind of rows brings."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from recsys.errors import ConfigError, DataError
from recsys.item_item import directed, ease
from recsys.item_item.directed import Setting, Sums, attribute_factors, build_directed
from recsys.item_item.histories import Histories
from recsys.item_item.recency import PerStep
from tests.recsys.item_item.shapes import random_histories

ITEMS = 25
SETTING = Setting(penalty=5.0, pairs=0.5, steps=2.0, recency=PerStep(0.5), attributes=3.0)
SUMS = Sums.of(random_histories(), ITEMS, SETTING.recency)
ATTRIBUTES = sparse.csr_matrix((np.random.default_rng(3).random((ITEMS, 6)) < 0.3).astype(np.float32))


@pytest.mark.parametrize("rows", [4, 512])
@pytest.mark.parametrize("attributes", [None, ATTRIBUTES])
@pytest.mark.parametrize("setting", [SETTING, replace(SETTING, pairs=0.0), replace(SETTING, steps=0.0)])
def test_each_item_is_ridge_regressed_on_the_others(setting, attributes, rows, monkeypatch):
    monkeypatch.setattr(ease, "_ROWS_AT_ONCE", rows)
    gram = setting.pairs * SUMS.pairs.toarray() + setting.steps * SUMS.steps.before.toarray()
    target = setting.pairs * SUMS.pairs.toarray() + setting.steps * SUMS.steps.next.toarray()
    if attributes is not None:
        factors = attribute_factors(attributes).toarray()
        gram, target = (of + setting.attributes * factors @ factors.T for of in (gram, target))
    found = build_directed(SUMS, setting, attributes).matrix().toarray()
    for j in range(ITEMS):
        others = np.delete(np.arange(ITEMS), j)
        system = gram[np.ix_(others, others)] + setting.penalty * np.eye(ITEMS - 1)
        np.testing.assert_allclose(found[others, j], np.linalg.solve(system, target[others, j]), atol=2e-4)
        assert found[j, j] == 0


def test_order_is_learned():
    """Item 1 always follows item 0, and never the other way round."""
    users = np.repeat(np.arange(40), 3)
    items = np.tile([0, 1, 2], 40)
    sums = Sums.of(Histories.of(users, items, num_users=40), 3, PerStep(0.5))
    after = build_directed(sums, Setting(penalty=1.0, pairs=0.0)).matrix().toarray()
    assert after[0, 1] > 0.5 > 0.1 > after[1, 0]
    both = build_directed(sums, Setting(penalty=1.0, steps=0.0)).matrix().toarray()
    assert both[0, 1] == pytest.approx(both[1, 0], abs=1e-4)


def test_an_item_that_nobody_has_is_found_by_its_attributes():
    users, items = np.repeat(np.arange(20), 2), np.tile([0, 1], 20)
    sums = Sums.of(Histories.of(users, items, num_users=20), 4, PerStep(0.5))
    brand = sparse.csr_matrix(np.array([[1, 0], [0, 1], [1, 0], [0, 1]]))
    found = build_directed(sums, Setting(penalty=1.0), brand).matrix().toarray()
    assert found[0, 2] > 0.1 > found[0, 3]
    assert not build_directed(sums, Setting(penalty=1.0)).matrix().toarray()[:, 2:].any()


def test_attributes_count_by_their_rarity_and_items_alike():
    factors = attribute_factors(ATTRIBUTES)
    lengths = np.sqrt(factors.multiply(factors).sum(axis=1))
    has = np.asarray(ATTRIBUTES.sum(axis=1)).ravel() > 0
    np.testing.assert_allclose(lengths[has], 1, rtol=1e-5)
    np.testing.assert_array_equal(lengths[~has], 0)
    rare = attribute_factors(sparse.csr_matrix(np.array([[1, 1], [1, 0], [1, 0], [0, 0]]))).toarray()
    assert rare[0, 1] > 4 * rare[0, 0] > 0


def test_above_eases_size_order_makes_directed_cosines(monkeypatch):
    monkeypatch.setattr(directed, "MOST_ITEMS", ITEMS - 1)
    held = np.asarray(ATTRIBUTES.sum(axis=0)).ravel()
    monkeypatch.setattr(directed, "MOST_HOLDERS", int(np.median(held)))
    few = attribute_factors(ATTRIBUTES).toarray()[:, held <= np.median(held)]
    assert 0 < few.shape[1] < ATTRIBUTES.shape[1]
    found = build_directed(SUMS, SETTING, ATTRIBUTES).matrix().toarray()
    counts = SUMS.pairs.toarray() * 0.5 + SUMS.steps.next.toarray() * 2 + 3 * few @ few.T
    norms = np.sqrt(SUMS.pairs.diagonal())
    cosines = counts / (np.outer(norms, norms) + SETTING.shrinkage)
    np.fill_diagonal(cosines, 0)
    np.testing.assert_allclose(found, cosines, rtol=1e-4)
    asked = build_directed(SUMS, SETTING, ATTRIBUTES, cosines=False).matrix().toarray()
    assert (asked < 0).any()


def test_settings_and_attributes_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="item-item steps is -1"):
        Setting(steps=-1.0)
    with pytest.raises(ConfigError, match="nothing would be learned"):
        Setting(pairs=0.0, steps=0.0)
    with pytest.raises(DataError, match="attributes are of 3 items, histories of 25"):
        build_directed(SUMS, SETTING, ATTRIBUTES[:3])
