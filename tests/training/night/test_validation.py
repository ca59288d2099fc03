"""What a night does with findings: it stops until the log is repaired or the finding accepted."""

import json
import shutil
from datetime import date
from pathlib import Path

import polars as pl
import pytest

import recsys
from features.build import build_snapshots
from features.validation.ingest import parse_codes
from recsys.cli import run
from recsys.config import parse_config
from recsys.errors import ConfigError, DataError, RegistryError
from recsys.log import InteractionLog
from training.night.night import Night
from training.night.run import run_night, stop_night

DAY, NEXT = date(2026, 1, 29), date(2026, 1, 30)


@pytest.fixture(scope="module")
def built(shop_log, make_config, tmp_path_factory):
    """Give the night of a day on which everybody sits before a television; all days are built."""
    folder = tmp_path_factory.mktemp("spoiled")
    log = InteractionLog(shutil.copytree(shop_log.root, folder / "log"))
    spoil(log, DAY)
    config = make_config(gate={"min_rows": 100_000}, validation={"min_expected": 5})
    made = Night(config=config, log=log, runs=folder / "runs", date=DAY)
    build_snapshots(log, NEXT, config, made.stages)
    return made


@pytest.fixture
def night(built, tmp_path):
    """Give a copy of it."""
    folder = shutil.copytree(built.runs.parent, tmp_path, dirs_exist_ok=True)
    return on(built, DAY, log=InteractionLog(folder / "log"), runs=folder / "runs")


def spoil(log, day):
    path = log.files("impressions", day)[0]
    frame = log.read("impressions", day).with_columns(context_device=pl.lit("tv"))
    log.write("impressions", day, frame, path.stem)


def on(night, day, **changes):
    fields = {"config": night.config, "log": night.log, "runs": night.runs, "date": day, **changes}
    return Night(**fields)


def test_an_error_stops_until_it_is_accepted_and_that_is_on_record(night):
    with pytest.raises(DataError, match=r"--accept-findings drift") as caught:
        run_night(night)
    assert "context_device=tv" in str(caught.value)
    night.ingest.accepted.accept(DAY, ["drift"], DAY)
    result = run_night(night)
    assert result.version == night.registry.current()
    assert result.validation.counts["accepted"] == 1
    assert result.to_json()["findings"]["accepted"] == 1
    assert night.registry.record(result.version).accepted == ("drift@2026-01-29",)
    journal = (night.runs / "registry" / "accepted-findings.jsonl").read_text()
    assert json.loads(journal) == {"codes": ["drift"], "day": "2026-01-29", "night": "2026-01-29"}


def test_a_later_night_does_not_learn_what_an_earlier_one_has_refused(night, shop_log):
    good = on(night, date(2026, 1, 28))
    assert run_night(good).version
    with pytest.raises(DataError):
        run_night(night)
    with pytest.raises(DataError, match=r"--accept-findings drift@2026-01-29"):
        run_night(on(night, NEXT))
    # Repaired, the next night goes on.
    for path in shop_log.files("impressions", DAY):
        shutil.copy(path, night.log.root / "impressions" / f"date={DAY}" / path.name)
    assert not _validated(on(night, NEXT))


def _validated(night):
    """Run a night until it would learn; give the findings that did not stop it."""
    stop_night(night, "validate")
    return json.loads((night.runs / "reports" / f"validation-{night.date}.json").read_text())["findings"]


def test_a_torn_line_of_acceptances_is_named(night):
    accepted = night.ingest.accepted
    accepted.accept(DAY, ["drift"], DAY)
    accepted.path.write_text(accepted.path.read_text() + '{"day": "2026-0')
    with pytest.raises(
        RegistryError, match=r"accepted-findings\.jsonl, line 2, holds no Acceptance .*restore"
    ):
        accepted.accept(NEXT, ["drift"], NEXT)


def test_a_first_night_only_warns_of_days_long_past(night):
    found = [(f["day"], f["code"], f["severity"]) for f in _validated(on(night, NEXT))]
    assert found == [("2026-01-29", "drift", "warning")]


def test_the_config_sets_severities_and_accepts(night, make_config):
    def counts(**validation):
        settings = {"min_expected": 5, **validation}
        config = make_config(gate={"min_rows": 100_000}, validation=settings)
        mine = on(night, DAY, config=config)
        return mine.ingest.check_days(chain, date(2026, 1, 28)).counts

    chain = build_snapshots(night.log, DAY, night.config, night.stages)
    assert counts() == {"error": 1, "warning": 0, "info": 0, "accepted": 0}
    assert counts(severity={"drift": "warning"})["warning"] == 1
    assert counts(accept=["drift"])["accepted"] == 1
    assert counts(psi=[50, 60]) == {"error": 0, "warning": 0, "info": 0, "accepted": 0}


@pytest.mark.parametrize(
    ("section", "said"),
    [({"severity": {"schema": "info"}}, "cannot be softened"), ({"accept": ["empty"]}, "cannot be softened"),
     ({"severity": {"volum": "info"}}, "volum"), ({"psi": [0.1]}, "psi")],
)  # fmt: skip
def test_settings_that_cannot_be(section, said):
    data = {"task": [{"name": "c", "feedback": "c", "head": "binary", "window": "1h"}], "validation": section}
    with pytest.raises(ConfigError, match=said):
        parse_config(data, "FILE")


def test_codes_to_accept_are_read_and_refused():
    assert parse_codes("volume, drift@2026-01-02,", DAY) == {DAY: ["volume"], date(2026, 1, 2): ["drift"]}
    assert parse_codes("", DAY) == {}
    with pytest.raises(ConfigError, match=r"'empty'.*known: bots, clock"):
        parse_codes("empty", DAY)
    with pytest.raises(ConfigError, match=r"'tomorrow' is no date"):
        parse_codes("volume@tomorrow", DAY)


def test_the_commands_say_the_same(night, tmp_path, capsys):
    config = tmp_path / "shop.toml"
    write_config(config)
    where = ["--log", str(night.log.root), "--config", str(config), "--date", str(DAY)]
    report = tmp_path / "report.json"
    assert run(["data", "validate", *where, "--json", str(report)]) == DataError.exit_code
    assert "error [drift] impressions.context_device" in capsys.readouterr().err
    assert json.loads(report.read_text())["stops"]
    runs = ["--runs", str(night.runs)]
    given = ["--incremental", "--accept-findings", "drift"]
    assert run(["train", *where[:4], *runs, *given]) == ConfigError.exit_code
    assert "--incremental does not take --accept-findings" in capsys.readouterr().err
    assert run(["train", *where, *runs]) == DataError.exit_code
    assert "accept a known day with --accept-findings drift" in capsys.readouterr().err
    assert run(["nightly", *where, *runs]) == DataError.exit_code
    assert "validation-2026-01-29.md" in capsys.readouterr().err
    text = (night.runs / "reports" / "validation-2026-01-29.md").read_text()
    assert "# Data of 2026-01-29: 1 error" in text
    assert "| impressions/date=2026-01-29/simulated.parquet |" in text
    assert run(["train", *where, *runs, "--accept-findings", "drift"]) == 0
    assert "is written and not live" in capsys.readouterr().out
    assert run(["nightly", *where, *runs, "--stop-after", "record"]) == 0
    assert "error [drift] (accepted) impressions.context_device" in capsys.readouterr().err
    assert run(["data", "validate", *where, *runs]) == 0
    assert "1 accepted; a night may train on it" in capsys.readouterr().out


def test_a_day_that_the_log_does_not_have(shop_log, capsys):
    where = ["--log", str(shop_log.root)]
    assert run(["data", "validate", *where, "--date", "2031-01-01"]) == DataError.exit_code
    assert "2026-01-25 to 2026-01-30" in capsys.readouterr().err
    assert run(["data", "validate", *where, "--date", "noon"]) == ConfigError.exit_code


def write_config(path):
    """Write the packaged config with a small model, and checks for a shop this small."""
    text = Path(recsys.__file__).with_name("shop.toml").read_text()
    extra = """
[validation]
min_expected = 5
[gate]
min_rows = 100000
underpowered = "promote"
[features]
text_dim = 6
history_length = 5
[model]
embedding_dim = 8
trunk = {hidden = [8], num_experts = 2}
"""
    path.write_text(text + extra)
