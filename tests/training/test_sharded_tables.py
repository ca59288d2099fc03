"""Tables that ranks share make the steps of plain ones, and leave what these leave; who gets them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.config import TrainingConfig
from recsys.errors import ConfigError
from recsys.model.embeddings import TableSpec
from training.balancing import BALANCERS
from training.host_choice import HostChoice
from training.processes.free_memory import total_memory
from training.processes.joint_saver import JointSaver
from training.sharding.plan import (
    ANYWHERE,
    Collections,
    Room,
    TableUse,
    allowed_kinds,
    check_sharding,
    make_planner,
    quiet,
)
from training.table_placement import copies_fit
from training.train import train
from training.trainer.group import Group
from training.trainer.saver import Saver
from training.warm_start import Previous

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-4
"""Relative difference allowed of each loss of each step, as for replicated tables."""
TABLES = {
    "user_id": TableUse(rows=1_000_000, dim=32),
    "item_id": TableUse(rows=200_000, dim=32, per_example=31.0),
    "hour": TableUse(rows=24, dim=8),
}
MB = 1_000_000


def test_every_kind_of_sharding_makes_the_steps_of_plain_tables(tmp_path):
    """Two gloo ranks; what they export is loaded by one and by four."""
    script = Path(__file__).with_name("sharding_ranks.py")
    started = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said, errors = started.communicate(timeout=300)
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
    assert said.strip().endswith("equal"), errors[-3000:]


@pytest.fixture(scope="module")
def wide(make_config):
    """Give the small config with widths that FBGEMM has, and days cut into many steps."""
    return make_config(features={"user_id_dim": 8}, training={"batch_size": 64})


@pytest.mark.usefixtures("quick_ranks")
def test_a_warm_fit_in_two_ranks_follows_one_process_and_goes_on_in_one(shop_chain, wide, tmp_path):
    """Vocabularies have grown since the weights that it starts from; a checkpoint of both goes on alone."""
    cold = {t.name: (0, 0) for t in wide.tasks}
    first = train(shop_chain, cold, wide, None, 1)
    start = Previous.same(first.weights(), first.ranker, first.state, wide)
    warm = {t.name: (1, 2) for t in wide.tasks}

    def go_on(saver=None, **choice):
        watchers = [saver] if saver else []
        return train(
            shop_chain,
            warm,
            wide,
            start,
            1,
            folder=tmp_path,
            choice=HostChoice(**choice),
            watchers=watchers,
            start=saver.read() if saver and not choice else None,
        )

    one, saver = go_on(), Saver(tmp_path / "saved", 1e-9, print)
    two = go_on(saver, processes=2, tables="sharded")
    grown = one.state.vocabularies["item_id"].size - first.state.vocabularies["item_id"].size
    assert grown > 0
    assert one.log.steps == two.log.steps > 16
    for step, (alone, together) in enumerate(zip(one.log.losses, two.log.losses, strict=True)):
        assert alone == pytest.approx(together, rel=TOLERANCE), step
    weights, before = two.weights(), first.weights()
    for name, value in one.weights().items():
        np.testing.assert_allclose(weights[name], value, atol=2e-4, rtol=1e-3, err_msg=name)
    moved = weights["table.item_id.weight"][: len(before["table.item_id.weight"])]
    assert np.abs(moved - before["table.item_id.weight"]).max() > 1e-3
    kept = saver.read()
    assert 1 < kept.log.steps < two.log.steps
    assert kept.tensors["table.item_id.weight"].shape == weights["table.item_id.weight"].shape
    back = go_on(saver)
    assert back.log.losses[kept.log.steps :] != []
    for step, (alone, together) in enumerate(zip(back.log.losses, two.log.losses, strict=True)):
        assert alone == pytest.approx(together, rel=TOLERANCE), step


def _planned(room, tables=TABLES, wanted=None):
    """Plan on a machine that is not there; table -> (kind, kernel, host memory of a shard)."""
    from torchrec.distributed.embedding import EmbeddingCollectionSharder

    planner = make_planner(tables, room, 1024, allowed_kinds(tables, wanted or {}), ANYWHERE)
    with quiet():
        planner.plan(Collections(tables, learning_rate=0.1), [EmbeddingCollectionSharder()])
    return {o.name: (o.sharding_type, o.compute_kernel, o.shards[0].storage.ddr) for o in planner._best_plan}


def test_gpus_hold_tables_in_their_memory_while_there_is_room():
    """User rows are 132 MB with accumulators, item rows 26 MB; half of each on each GPU."""
    gpus = Room(ranks=2, local_ranks=2, device="cuda", gpu_bytes=200 * MB)
    assert {kernel for _, kernel, _ in _planned(gpus).values()} == {"fused"}


def test_what_is_too_large_for_a_gpu_lies_in_host_memory_behind_a_cache():
    plan = _planned(Room(ranks=2, local_ranks=2, device="cuda", gpu_bytes=60 * MB))
    assert plan["user_id"] == ("row_wise", "fused_uvm_caching", 66 * MB)
    assert plan["item_id"][1] == "fused"
    smaller = _planned(Room(ranks=2, local_ranks=2, device="cuda", gpu_bytes=30 * MB))
    assert smaller["user_id"][1] == "fused_uvm", "without room for a cache either"


def test_the_config_has_its_way():
    gpus = Room(ranks=2, local_ranks=2, device="cuda", gpu_bytes=900 * MB)
    plan = _planned(gpus, wanted={"item_id": "column_wise", "hour": "table_wise"})
    assert (plan["item_id"][0], plan["hour"][0]) == ("column_wise", "table_wise")
    assert plan["user_id"][0] in {"row_wise", "table_wise"}


SPECS = (TableSpec(name="item_id", size=1 << 20, dim=31),)
"""128 MiB, accumulators included."""


def test_copies_are_made_while_they_fit(monkeypatch):
    monkeypatch.setattr("training.table_placement.total_memory", lambda: 512 << 20)
    assert copies_fit(SPECS, torch.device("cpu"), 2), "half of 256 MiB"
    assert not copies_fit(SPECS, torch.device("cpu"), 3)
    auto, two = TrainingConfig(device="cpu"), HostChoice(processes=2)
    assert two.with_tables(auto, SPECS).tables == "replicated"
    assert HostChoice(processes=3).with_tables(auto, SPECS).tables == "sharded"
    assert HostChoice().with_tables(auto, SPECS * 9).tables == "replicated", "one process has them all"
    asked = TrainingConfig(device="cpu", tables="sharded")
    assert two.with_tables(asked, SPECS).tables == "sharded"
    assert str(two.with_tables(asked, SPECS)) == "fp32, 2 processes, sharded tables"


def test_a_container_has_what_it_may_use(monkeypatch, tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("0::/inner\n")
    (tmp_path / "inner").mkdir()
    monkeypatch.setattr("training.processes.free_memory.OWN_GROUP", own)
    monkeypatch.setattr("training.processes.free_memory.GROUPS", tmp_path)
    whole = total_memory()
    for folder, text, expected in (
        ("inner", "max\n", whole),
        (".", f"{1 << 20}\n", 1 << 20),
        ("inner", f"{1 << 62}\n", 1 << 20),
    ):
        (tmp_path / folder / "memory.max").write_text(text)
        assert total_memory() == expected


@pytest.mark.parametrize(
    ("training", "specs", "said"),
    [
        ({"sharding": {"items": "row_wise"}}, SPECS, "items: no such table; the model has item_id"),
        ({}, SPECS, "item_id is 31 wide.*multiples of 4"),
        (
            {"balancing": "upgrad"},
            (TableSpec(name="item_id", size=9, dim=8),),
            "'upgrad' looks at.*fixed, uncertainty, dwa",
        ),
    ],
)
def test_what_sharded_tables_cannot_do_is_refused(training, specs, said):
    with pytest.raises(ConfigError, match=said):
        check_sharding(TrainingConfig(**training), specs)


def test_a_cut_of_copies_is_refused(make_config):
    with pytest.raises(ConfigError, match='how item_id is cut, and tables = "replicated" cuts none'):
        make_config(training={"tables": "replicated", "sharding": {"item_id": "row_wise"}})


def test_balancers_that_look_at_losses_alone_are_named():
    assert [n for n, entry in BALANCERS.items() if not entry.reads_rows] == ["fixed", "uncertainty", "dwa"]


class _Progress:
    step = 0

    def checkpoint(self):
        raise OSError("no space left on device")


def test_a_checkpoint_that_cannot_be_gathered_is_said_and_the_fit_goes_on(tmp_path):
    said = []
    saver = Saver(tmp_path, 1, said.append)
    saver.saved_at -= 100.0
    for _ in range(2):  # gathering costs as much each time: the next one is when it is due again
        JointSaver(saver, Group()).after_step(_Progress())
    assert said == ["no checkpoint at step 1, training goes on: no space left on device"]


def test_more_processes_than_gpus_are_refused(monkeypatch, shop_chain, make_config):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    config = make_config(training={"device": "cuda"})
    with pytest.raises(ConfigError, match=r"processes = 3: each process has a GPU .* there are 2; take"):
        train(shop_chain, {}, config, None, 1, choice=HostChoice(processes=3))
