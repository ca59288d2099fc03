"""The benches of exchange and of checkpoints run, and give every figure."""

import json
import sys

import pytest

from benchmarks.speed.training import checkpoint_cost, exchange


@pytest.mark.usefixtures("quick_ranks")
def test_sums_are_timed_in_shared_memory_and_over_gloo(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["exchange", "--repeats", "3"])
    exchange.main()
    found = json.loads(capsys.readouterr().out)["microseconds"]
    assert list(found) == ["shared_memory", "gloo"]
    for times in found.values():
        assert list(times) == ["1", "1000", "100000", "1000000"]
        assert min(times.values()) > 0


def test_a_checkpoint_is_timed(monkeypatch, capsys, tmp_path):
    given = ["checkpoint_cost", "--rows", "1000", "--steps", "10", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", given)
    checkpoint_cost.main()
    found = json.loads(capsys.readouterr().out)
    assert found["mb"] > 7, "617,000 parameters, three floats each"
    assert min(found["copy_ms"], found["write_ms"]) > 0
