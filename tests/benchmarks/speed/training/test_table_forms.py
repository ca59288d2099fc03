"""The bench of the tables' forms starts what it says."""

import sys

import pytest

from benchmarks.speed.training import own_epoch
from benchmarks.speed.training.table_forms import FORMS, form_of


def test_every_form_is_an_epoch_of_two_processes(tmp_path):
    for form in FORMS:
        command = form_of(form).epoch(tmp_path, 100, 10, seed=1)
        assert command[command.index("--processes") + 1] == "2"
        assert command[command.index("--tables") + 1] == form


def test_shared_tables_are_not_scored_by_one_rank(monkeypatch, capsys, tmp_path):
    command = form_of("row_wise").epoch(tmp_path, 100, 10, seed=1, scores=tmp_path / "scores.npy")
    monkeypatch.setattr(sys, "argv", command[2:])
    with pytest.raises(SystemExit):
        own_epoch.main()
    assert "--scores: rank 0 scores alone" in capsys.readouterr().err
