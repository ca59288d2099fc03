"""Parts of the training bench that are not in every run: both precisions, and the demo's first night."""

import re
from typing import get_type_hints

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from benchmarks.commit import CHECKOUT
from benchmarks.speed.fresh_run import FreshRun, Patience
from benchmarks.speed.training import first_night
from benchmarks.speed.training.peer_epoch import WholeBatches
from benchmarks.speed.training.precision_quality import measure_precision
from benchmarks.speed.training.training_bench import PARTS
from benchmarks.speed_commands import bench_train_command
from recsys.cli import run
from recsys.simulator.dials import ShopDials


def test_every_part_is_named_by_the_help_and_by_the_page():
    page = (CHECKOUT / "docs" / "benchmarks" / "training-speed.md").read_text()
    (option,) = get_type_hints(bench_train_command, include_extras=True)["part"].__metadata__
    for part in PARTS:
        assert re.search(rf"\b{part}\b", option.help)
        assert f"`{part}`" in page


@pytest.mark.parametrize("batch", ["many", "2048,", "0", "-1"])
def test_batch_sizes_that_are_no_numbers_are_named(capsys, batch):
    assert run(["bench", "train", "--batch", batch]) == 2
    assert "Invalid value for '--batch': " in capsys.readouterr().err


def test_both_precisions_are_trained_on_every_seed(shop_log, config):
    found = measure_precision(config, shop_log.root, 0, [3, 4])
    assert found.keys() == {"fp32", "bf16"}
    full, half = found["fp32"]["click AUC"], found["bf16"]["click AUC"]
    assert full[0] != full[1]
    assert full[0] != half[0]


def test_the_first_night_is_the_demos_in_the_code_of_both_commits(monkeypatch):
    asked = []

    def quiet_run(command, cores, patience, threads, paths, allocator):
        asked.append((paths, dict(zip(command[5::2], command[6::2], strict=True)), allocator))
        return FreshRun({}, 0.0, seconds=float(len(asked)))

    monkeypatch.setattr(first_night, "quiet_run", quiet_run)
    found = first_night.measure_first_night(
        ShopDials(users=20, items=100, days=4), 2, "HEAD", (0, 1), Patience()
    )
    assert found["now"]["seconds"]["runs"] == [1.0, 3.0]
    assert found["before"]["seconds"]["median"] == 3.0
    (now,), (before,) = asked[0][0], asked[1][0]
    assert now == CHECKOUT != before
    options = [of for _, of, _ in asked]
    assert {of["--date"] for of in options} == {"2026-01-28"}  # the demo's nights are the last three days
    assert len({of["--runs"] for of in options}) == 4, "no night finds another one's stages"
    assert all(allocator == {} for *_, allocator in asked)


def test_whole_batches_have_every_row_once_shuffled():
    rows = torch.arange(10)
    batches = list(WholeBatches(TensorDataset(rows, rows * 2), 4, shuffle=True))
    assert [len(one) for one, _ in batches] == [4, 4, 2]
    ones, twos = (np.concatenate(part) for part in zip(*batches, strict=True))
    assert sorted(ones) == list(range(10))
    assert list(ones) != list(range(10))
    assert (twos == 2 * ones).all()
    assert [b[0].tolist() for b in WholeBatches(TensorDataset(rows), 8)] == [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9]]
