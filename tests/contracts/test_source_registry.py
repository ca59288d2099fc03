"""A source that only this file knows: `recsys convert NAME` finds it, its files and its config."""

import subprocess
import sys
from datetime import UTC, date, datetime

import polars as pl
import pytest

from features.sources import SOURCES, Source
from features.sources.conversion import Conversion
from recsys.cli import run
from recsys.log import InteractionLog

DAY = date(2026, 1, 5)
TOY = Source(f"{__name__}:convert_lines", "lines.txt", "examples/toy.toml")


def convert_lines(src, out, *, step):
    """Read "user item" lines, an impression each."""
    step("reading lines", 0.5)
    rows = [line.split() for line in (src / "lines.txt").read_text().splitlines()]
    shown = pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row").with_columns(
        impression_id=pl.format("r{}:1", pl.int_range(pl.len())),
        request_id=pl.format("r{}", pl.int_range(pl.len())),
        shown_at=pl.lit(datetime(2026, 1, 5, 12, tzinfo=UTC)),
        position=1,
        propensity=None,
        propensity_kind=pl.lit("unknown"),
        explored=False,
        sampled=False,
        sampling_rate=1.0,
    )
    with Conversion("toy", out) as conversion:
        conversion.write("impressions", shown, pl.lit(DAY))
        return conversion.publish()


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    monkeypatch.setitem(SOURCES, "toy", TOY)


def test_convert_finds_the_source_and_says_what_comes_next(tmp_path, capsys):
    (tmp_path / "lines.txt").write_text("anna shoe\nbela hat\n")
    out = tmp_path / "log"
    assert run(["convert", "toy", str(tmp_path), "--out", str(out)]) == 0
    assert InteractionLog(out).read("impressions", DAY)["user_id"].to_list() == ["anna", "bela"]
    assert "--config examples/toy.toml" in capsys.readouterr().out


def test_a_wrong_name_lists_the_source(tmp_path, capsys):
    assert run(["convert", "tpy", str(tmp_path), "--out", str(tmp_path / "log")]) == 2
    assert "unknown source 'tpy'; known: csv, parquet, hetrec" in (said := capsys.readouterr().err)
    assert "taobao, toy" in said


def test_the_help_names_the_source_and_its_files():
    """In a process of its own: the help is written when the command is imported."""
    script = (
        "from features.sources import SOURCES, Source; from recsys.cli import run; "
        "SOURCES['toy'] = Source('nowhere:convert', 'lines.txt', ''); run(['convert', '--help'])"
    )
    command = [sys.executable, "-c", script]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "toy: lines.txt" in " ".join(said.split())
