"""`recsys simulate` on a folder: written once, refused when something is there, replaced by force."""

import pytest

from recsys.cli import run
from recsys.log import InteractionLog
from recsys.simulator.shop import Shop

SMALL = ["--days", "2", "--users", "40", "--items", "100"]


def test_writes_a_log_and_says_what(tmp_path, capsys):
    out = tmp_path / "a folder" / "log"
    assert run(["simulate", "--seed", "7", "--out", str(out), *SMALL]) == 0
    said = capsys.readouterr().out
    for part in ("impressions", "click rate", "2026-01-29 to 2026-01-30, seed 7"):
        assert part in said
    assert len(InteractionLog(out).days("impressions")) == 2
    assert (out / "truth" / "shop.json").is_file()
    assert not [path for path in out.rglob("*") if path.suffix in (".pkl", ".tmp")]


def test_a_folder_with_something_in_it_is_refused(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert run(["simulate", "--out", str(tmp_path), *SMALL]) == 2
    assert "--force" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_force_replaces_the_log_and_nothing_else(tmp_path):
    out = tmp_path / "log"
    assert run(["simulate", "--out", str(out), "--days", "3", *SMALL[2:]]) == 0
    (out / "notes.txt").write_text("mine")
    assert run(["simulate", "--out", str(out), *SMALL, "--force"]) == 0
    assert len(InteractionLog(out).days("impressions")) == 2
    assert (out / "notes.txt").read_text() == "mine"


def test_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "log").write_text("")
    assert run(["simulate", "--out", str(tmp_path / "log"), *SMALL]) == 2
    assert "is a file" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--days", "--users", "--items"])
def test_a_dial_out_of_range_is_named(tmp_path, capsys, option):
    assert run(["simulate", "--out", str(tmp_path / "log"), option, "0"]) == 2
    assert option in capsys.readouterr().err


def test_any_dial_can_be_set_by_name(tmp_path):
    out = tmp_path / "log"
    dials = ["--dial", "contrary_users=0.5", "--dial", "relatedness=-1"]
    assert run(["simulate", "--out", str(out), *SMALL, *dials]) == 0
    written = Shop.from_log(out).dials
    assert (written.contrary_users, written.relatedness) == (0.5, -1.0)


@pytest.mark.parametrize(
    ("dial", "said"), [("fame=1", "known: users"), ("rank", "NAME=VALUE"), ("rank=1", "rank")]
)
def test_a_wrong_dial_is_named(tmp_path, capsys, dial, said):
    assert run(["simulate", "--out", str(tmp_path / "log"), *SMALL, "--dial", dial]) == 2
    assert said in capsys.readouterr().err
