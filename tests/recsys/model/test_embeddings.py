"""Tables: one optimiser step per row; weights that reload."""

import pytest
import torch

from recsys.model.embeddings import EPS, LocalTables, TableSpec, initial_rows

SPECS = (TableSpec(name="item_id", size=20, dim=4), TableSpec(name="hour", size=24, dim=2))


@pytest.fixture
def tables():
    return LocalTables(SPECS, learning_rate=0.1, seed=0)


@pytest.mark.parametrize(
    ("size", "capacity"), [(1, 16), (16, 16), (17, 32), (65_535, 65_536), (65_536, 65_536), (65_537, 131_072)]
)
def test_capacity_is_rounded_up(size, capacity):
    assert TableSpec(name="t", size=size, dim=1).capacity == capacity


def test_a_start_depends_on_the_tables_name_and_the_seed_alone(tables):
    alone = LocalTables(SPECS[:1], 0.1, 0)
    assert torch.equal(alone.weight["item_id"], tables.weight["item_id"])
    assert not torch.equal(initial_rows("a", 0, 5, 3, 0), initial_rows("b", 0, 5, 3, 0))
    assert not torch.equal(initial_rows("a", 0, 5, 3, 0), initial_rows("a", 0, 5, 3, 1))


def test_the_unknown_number_starts_at_zero(tables):
    assert not tables.weight["item_id"][0].any()
    assert tables.weight["item_id"][1].any()


def test_a_step_by_hand(tables):
    rows = {"item_id": torch.tensor([2, 5])}
    before = tables.weight["item_id"].clone()
    leaves = tables.lookup(rows)
    (leaves["item_id"] * torch.tensor([[1.0], [-2.0]])).sum().backward()
    tables.step(rows, leaves)
    for row, gradient in ((2, 1.0), (5, -2.0)):
        assert tables.state["item_id"][row] == pytest.approx(gradient**2)
        moved = before[row] - 0.1 * gradient / (abs(gradient) + EPS)
        torch.testing.assert_close(tables.weight["item_id"][row], moved)
    others = [n for n in range(tables.weight["item_id"].shape[0]) if n not in (2, 5)]
    assert torch.equal(tables.weight["item_id"][others], before[others])


def test_rows_that_got_no_gradient_do_not_step(tables):
    before = tables.weight["hour"].clone()
    rows = {"hour": torch.tensor([1, 2])}
    tables.step(rows, tables.lookup(rows))
    assert torch.equal(tables.weight["hour"], before)
    assert not tables.state["hour"].any()


def test_a_lookup_is_a_copy(tables):
    leaf = tables.lookup({"hour": torch.tensor([3])})["hour"]
    with torch.no_grad():
        leaf += 1
    assert not torch.equal(leaf[0], tables.weight["hour"][3])


@pytest.mark.parametrize("seed", [9, None])
def test_weights_reload_whole(tables, seed):
    rows = {"item_id": torch.arange(20), "hour": torch.arange(24)}
    leaves = tables.lookup(rows)
    sum(leaf.square().sum() for leaf in leaves.values()).backward()
    tables.step(rows, leaves)
    weights = tables.export()
    assert weights["item_id.weight"].shape == (20, 4)
    assert weights["item_id.state"].shape == (20,)
    other = LocalTables(SPECS, 0.1, seed)
    other.load(weights)
    for name, value in other.export().items():
        assert torch.equal(value, weights[name])


def test_a_grown_table_keeps_its_old_rows(tables):
    weights = tables.export()
    grown = LocalTables((TableSpec(name="item_id", size=40, dim=4),), 0.1, seed=1)
    fresh = grown.weight["item_id"].clone()
    grown.load(weights)
    assert torch.equal(grown.weight["item_id"][:20], weights["item_id.weight"])
    assert torch.equal(grown.weight["item_id"][20:], fresh[20:])
    wider = LocalTables((TableSpec(name="item_id", size=20, dim=8),), 0.1, seed=1)
    start = wider.weight["item_id"].clone()
    wider.load(weights)
    assert torch.equal(wider.weight["item_id"], start), "another width starts anew"
