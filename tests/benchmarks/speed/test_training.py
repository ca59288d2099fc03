import json

import pytest

from recsys.cli import run


def test_bench_train_prints_what_it_writes(shop_log, tmp_path, capsys):
    target = tmp_path / "train.json"
    assert run(["bench", "train", "--log", str(shop_log.root), "--repeats", "1", "--json", str(target)]) == 0
    printed, written = json.loads(capsys.readouterr().out), json.loads(target.read_text())
    assert printed == written
    for figures in written["fit"].values():
        reached = figures["rows_per_second"] * figures["flop_per_row"]
        assert figures["share_of_floor"] == pytest.approx(reached / figures["gemm_flop_per_second"])
        assert reached > 0
