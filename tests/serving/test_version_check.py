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
    assert (code, [*found]) == (0, ["users", "load", "engine", "known users", "stranger", "similar items"])
    assert found["engine"]["detail"] in ("eager on cpu", "bfloat16 on cpu")
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
    assert (code, [*found]) == (CHECK_FAILED, ["users", "load", "engine", "known users"])
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


def with_engine(name: str, folder: Path) -> Path:
    config = folder / f"{name}.toml"
    config.write_text(f'{CONFIG.read_text()}\n[serving]\nengine = "{name}"\n')
    return config


def test_a_version_that_bfloat16_misses_goes_live_in_float32_unless_bfloat16_was_asked_for(
    night, check, tmp_path, bfloat16_misses
) -> None:
    code, found = check(night / "log", night / "runs", with_engine("auto", tmp_path))
    assert code == 0, found
    assert found["engine"]["detail"].startswith(
        "eager on cpu; not exact enough: bfloat16: golden request golden-000: predictions of "
    )
    code, found = check(night / "log", night / "runs", with_engine("bfloat16", tmp_path))
    assert (code, [*found]) == (CHECK_FAILED, ["users", "load"])
    assert 'write [serving] engine = "auto", or "eager"' in found["load"]["detail"]


def test_a_host_without_the_servers_engine_checks_in_float32_and_says_so(
    night, check, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("serving.devices.has_fast_bf16", lambda _: False)
    code, found = check(night / "log", night / "runs", with_engine("bfloat16", tmp_path))
    assert code == 0, found
    assert found["engine"]["detail"] == (
        'eager on cpu; [serving] engine = "bfloat16" was not tried: this host does not score in it'
    )


def test_an_unknown_version_is_an_error_that_lists_the_known(night, capsys) -> None:
    folders = ["--log", str(night / "log"), "--runs", str(night / "runs")]
    assert run(["serve", "--check", "v9", "--config", str(CONFIG), *folders]) == 5
    assert "no bundle 'v9' in" in capsys.readouterr().err
    assert run(["serve", "--json", "-", "--config", str(CONFIG), *folders]) == 2
    assert "--json is for --check VERSION" in capsys.readouterr().err
