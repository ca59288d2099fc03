import json

import pytest

from benchmarks.speed.balancing import TUNED, installed, planted_conflict
from recsys.cli import run
from training.balancing import BALANCERS


def test_the_conflict_is_real_and_the_loud_task_wins_it():
    """Fixed weights serve the loss in the large unit; known units share the damage, as uncertainty does."""
    found = planted_conflict(["fixed", "uncertainty"], 2)
    assert list(found) == ["fixed", TUNED, "uncertainty"]
    assert found["fixed"]["second"] < 0.02 < found["fixed"]["first"]
    assert found[TUNED]["sum"] > 0.02, "both cannot be had"
    for name in (TUNED, "uncertainty"):
        assert found[name]["first"] < found["fixed"]["first"]
        assert found[name]["sum"] < found["fixed"]["sum"]


@pytest.mark.slow
def test_the_command_prices_every_method(tmp_path, capsys):
    target = tmp_path / "balancing.json"
    assert run(["bench", "balancing", "--seeds", "2", "--repeats", "1", "--json", str(target)]) == 0
    written = json.loads(target.read_text())
    names, missing = installed()
    assert set(names) | set(missing) == set(BALANCERS)
    assert set(written["cost"]) == set(names)
    assert set(written["problem"]) == {*names, TUNED}
    assert written["cost"]["fixed"]["ratio_to_fixed"] == 1
    assert written["cost"]["mgda"]["ratio_to_fixed"] > 1.2, "one gradient a task costs more than one"
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)
