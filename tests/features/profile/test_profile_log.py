"""`recsys data profile`: what is printed and written."""

import json
import re

import pytest

from features.profile.model import LogProfile
from recsys.cli import run


def test_prints_tables_and_writes_page_and_json(shop, tmp_path, capsys):
    shop.write()
    out, figures = tmp_path / "page", tmp_path / "figures.json"
    assert run(["data", "profile", str(shop.log.root), "--out", str(out), "--json", str(figures)]) == 0
    printed = capsys.readouterr().out
    for word in ("2,880", "click", "33.33 %", "2026-01-05", "events per user and item"):
        assert word in printed, word
    profile = LogProfile.model_validate_json(figures.read_text())
    assert profile.impressions == 2880
    assert json.loads((out / "profile.json").read_text()) == json.loads(figures.read_text())
    page = (out / "profile.html").read_text()
    # the ratings' values; impressions, two kinds, new shares, hours, positions
    assert page.count("<svg") == 7
    assert len(page) < 1_000_000
    assert not re.search(r"(src|href)=|url\(|@import", page), "one file, no network"


def test_findings_are_printed_with_their_remedy(shop, capsys):
    shop.write(feedback=lambda f: f.filter(f["kind"] != "rating"))
    assert run(["data", "profile", str(shop.log.root)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "warning fewer than 100 labels for purchase, rating of the shop's config" in printed
    assert "remove it, or collect more feedback" in printed


def test_the_logs_own_config_is_read(shop, capsys):
    shop.write()
    (shop.log.root / "config.toml").write_text(
        '[[task]]\nname = "c"\nfeedback = "click"\nhead = "binary"\nwindow = "1h"\n'
    )
    assert run(["data", "profile", str(shop.log.root)]) == 0
    assert "nothing to look at was found" in capsys.readouterr().out


def test_names_from_the_log_are_escaped(shop, tmp_path):
    shop.write(
        feedback=lambda f: f.with_columns(kind=f["kind"].replace("click", "<script>alert(1)</script>"))
    )
    assert run(["data", "profile", str(shop.log.root), "--out", str(tmp_path)]) == 0
    assert "<script>" not in (tmp_path / "profile.html").read_text()


def test_no_such_log(tmp_path, capsys):
    assert run(["data", "profile", str(tmp_path / "nowhere")]) == 3
    assert "recsys convert" in capsys.readouterr().err
    (tmp_path / "file").write_text("x")
    assert run(["data", "profile", str(tmp_path)]) == 3
    assert "no impressions in the log" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(shop, tmp_path, capsys):
    shop.write(days=1)
    (tmp_path / "file").write_text("x")
    assert run(["data", "profile", str(shop.log.root), "--out", str(tmp_path / "file" / "x")]) == 3
    assert "cannot write" in capsys.readouterr().err


def test_a_log_without_a_head_is_profiled(shop, capsys):
    shop.write(feedback=lambda frame: frame.head(0))
    (shop.log.root / "config.toml").write_text('timezone = "UTC"\n')
    assert run(["data", "profile", str(shop.log.root)]) == 0
    assert "no feedback at all" in capsys.readouterr().out
    other = shop.log.root / "other.toml"
    other.write_text('timezone = "UTC"\n')
    assert run(["data", "profile", str(shop.log.root), "--config", str(other)]) == 2
    assert "task: is missing; a config needs at least one [[task]]" in capsys.readouterr().err


@pytest.mark.data
def test_a_real_log(data, tmp_path, capsys):
    folder = data / "taobao_userbehavior_100k"
    if not folder.is_dir():
        pytest.skip(f"RECSYS_DATA={data} has no {folder.name}")
    log = tmp_path / "log"
    assert run(["convert", "taobao", str(folder), "--out", str(log)]) == 0
    assert run(["data", "profile", str(log), "--json", str(tmp_path / "p.json")]) == 0
    profile = LogProfile.model_validate_json((tmp_path / "p.json").read_text())
    assert profile.utc_offsets == (8, 8)
    assert {"organic_feedback", "sampled_negatives", "cold_items"} <= {f.code for f in profile.findings}
