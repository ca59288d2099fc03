"""`recsys serve --check`: a real server answers with a version that need not be live, or says why not."""

import json
import shutil
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from recsys.cli import run
from recsys.log import InteractionLog
from recsys.records import CHECK_FAILED
from recsys.registry import Registry

CONFIG = Path(__file__).with_name("tiny.toml")
DAY = date(2026, 1, 30)


@pytest.fixture
def check(night, tmp_path, capsys):
    """Give what checks the night's version: check(log, runs) -> exit code, name -> finding."""

    def tried(log, runs, config=CONFIG):
        (version,) = Registry(night / "runs").versions()
        folders = ["--log", str(log), "--runs", str(runs)]
        code = run(["serve", "--check", version, "--json", "-", "--config", str(config), *folders])
        found = json.loads(capsys.readouterr().out)
        assert found["ok"] is (code == 0)
        return code, {finding["name"]: finding for finding in found["findings"]}

    return tried


def files_of(folder):
    """Give what is there, but for the store: reading SQLite makes files beside it."""
    files = [path for path in folder.rglob("*") if "store" not in path.parts]
    return {path: path.stat().st_mtime_ns for path in files}


def test_a_sound_version_answers_and_nothing_is_written(night, check) -> None:
    before = files_of(night)
    code, found = check(night / "log", night / "runs")
    assert (code, [*found]) == (0, ["users", "load", "known users", "stranger", "similar items"])
    assert found["known users"]["detail"] == "8 users of the log got lists, 8 known"
    assert files_of(night) == before


def test_small_pages_and_a_proxy_of_the_machine_fail_no_sound_version(
    night, check, tmp_path, monkeypatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # nobody is there
    config = tmp_path / "small.toml"
    config.write_text(f"{CONFIG.read_text()}\n[serving]\ndefault_page_size = 5\nmax_page_size = 5\n")
    code, found = check(night / "log", night / "runs", config)
    assert code == 0, found
    assert found["stranger"]["detail"] == "a stranger got 5 items"


def test_a_version_that_knows_no_user_of_the_log_is_refused(night, check, tmp_path) -> None:
    theirs = InteractionLog(night / "log").read("impressions", DAY)
    log = InteractionLog(tmp_path / "log")
    log.write("impressions", DAY, theirs.with_columns(user_id="other-" + pl.col("user_id")))
    code, found = check(log.root, night / "runs")
    assert (code, [*found]) == (CHECK_FAILED, ["users", "load", "known users"])
    assert found["known users"]["detail"].startswith("none of 8 users of the log's last day is known to the")


def test_a_damaged_version_and_one_without_users_are_refused(night, check, tmp_path) -> None:
    runs = shutil.copytree(night / "runs", tmp_path / "runs", ignore=shutil.ignore_patterns("stages"))
    (version,) = Registry(runs).versions()
    with (runs / "bundles" / version / "weights.safetensors").open("r+b") as weights:
        weights.seek(1_000)
        weights.write(b"\xff")
    code, found = check(night / "log", runs)
    assert (code, found["users"]["ok"], found["load"]["ok"]) == (CHECK_FAILED, True, False)
    assert "weights.safetensors" in found["load"]["detail"]
    (runs / "store" / f"base-{version}.sqlite").unlink()
    code, found = check(night / "log", runs)
    assert (code, [*found]) == (CHECK_FAILED, ["users"])
    assert found["users"]["detail"].endswith("run its night again")


def test_an_unknown_version_is_an_error_that_lists_the_known(night, capsys) -> None:
    folders = ["--log", str(night / "log"), "--runs", str(night / "runs")]
    assert run(["serve", "--check", "v9", "--config", str(CONFIG), *folders]) == 5
    assert "no bundle 'v9' in" in capsys.readouterr().err
    assert run(["serve", "--json", "-", "--config", str(CONFIG), *folders]) == 2
    assert "--json is for --check VERSION" in capsys.readouterr().err
