"""Tables: one optimiser step per row, the same in plain torch and in TorchRec; weights that reload."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recsys.model.embeddings import EPS, LocalTables, TableSpec, initial_rows

ROOT = Path(__file__).parents[3]
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


def test_weights_reload_whole(tables):
    rows = {"item_id": torch.arange(20), "hour": torch.arange(24)}
    leaves = tables.lookup(rows)
    sum(leaf.square().sum() for leaf in leaves.values()).backward()
    tables.step(rows, leaves)
    weights = tables.export()
    assert weights["item_id.weight"].shape == (20, 4)
    assert weights["item_id.state"].shape == (20,)
    other = LocalTables(SPECS, 0.1, seed=9)
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


TORCHREC = """
import os, tempfile, warnings
warnings.simplefilter("ignore")
import torch
import torch.distributed as dist
from recsys.model.embeddings import LocalTables, TableSpec, TorchRecTables

torch.set_num_threads(1)
with tempfile.TemporaryDirectory() as folder:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=0, world_size=1)
    specs = (TableSpec(name="item_id", size=20, dim=4), TableSpec(name="hour", size=24, dim=8))
    local = LocalTables(specs, 0.1, 0)
    sharded = TorchRecTables(specs, 0.1, local.export())
    generator = torch.Generator().manual_seed(0)
    for step in range(6):
        rows = {s.name: torch.randperm(s.size, generator=generator)[:7].sort().values for s in specs}
        target = {s.name: torch.randn(7, s.dim, generator=generator) for s in specs}
        for tables in (local, sharded):
            leaves = tables.lookup(rows)
            used = ["item_id"] if step == 3 else list(leaves)
            sum((leaves[n] - target[n]).square().sum() for n in used).backward()
            tables.step(rows, leaves)
    one, other = local.export(), sharded.export()
    assert set(one) == set(other), (set(one), set(other))
    for name in one:
        torch.testing.assert_close(one[name], other[name].reshape(one[name].shape), atol=1e-6, rtol=1e-6)
    resumed = TorchRecTables(specs, 0.1, one).export()
    for name in one:
        torch.testing.assert_close(resumed[name].reshape(one[name].shape), one[name], atol=0, rtol=0)
    moved = (one["item_id.weight"] - LocalTables(specs, 0.1, 0).export()["item_id.weight"]).abs().max()
    assert moved > 0.05, moved
    dist.destroy_process_group()
print("equal")
"""


def test_torchrec_takes_the_same_steps():
    """One gloo process, fused row-wise Adagrad; in a process of its own: TorchRec's group is global."""
    done = subprocess.run(
        [sys.executable, "-c", TORCHREC], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip().endswith("equal"), done.stderr[-2000:]
