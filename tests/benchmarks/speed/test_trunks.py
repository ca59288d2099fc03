import json

import pytest

from benchmarks.speed.trunks import matched_shapes, measure_trunks
from recsys.cli import run
from recsys.model.trunks import TRUNKS


def test_all_trunks_are_measured_at_one_size(shop_chain, config):
    found = measure_trunks(shop_chain, config, experts=4, repeats=1, precision="fp32")
    rows = found["trunks"]
    assert set(rows) == set(TRUNKS)
    sizes = [row["parameters"] for row in rows.values()]
    assert max(sizes) <= 1.11 * min(sizes), "each within 5 % of MMoE's"
    assert all(row["ms_per_step"] > 0 and row["trunk_ms"] > 0 for row in rows.values())
    assert rows["shared_bottom"]["ratio_to_shared_bottom"] == 1
    assert found["mmoe_to_shared_bottom"] == rows["mmoe"]["ratio_to_shared_bottom"]


def test_the_size_is_that_of_the_asked_number_of_experts(config):
    shapes = matched_shapes(config, 300, 8)
    assert shapes["mmoe"].hidden == config.model.trunk.hidden
    assert shapes["mmoe"].num_experts == 8
    assert shapes["shared_bottom"].hidden[0] > 4 * config.model.trunk.hidden[0]


@pytest.mark.slow
def test_the_command_writes_what_it_prints(tmp_path, capsys):
    target = tmp_path / "trunks.json"
    assert run(["bench", "trunks", "--repeats", "1", "--json", str(target)]) == 0
    written = json.loads(target.read_text())
    printed = capsys.readouterr().out
    assert all(name in printed and row["parameters"] > 100_000 for name, row in written["trunks"].items())
