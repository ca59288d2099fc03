"""What nights have left, listed, shown and compared: records and moves of the pointer made by hand."""

import json
from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest

from recsys.bundle import BundleParts, save_bundle
from recsys.cli import run
from recsys.encoding import EncoderState
from recsys.errors import RegistryError
from recsys.records import Check, DayData, Lineage, NightRecord, Ruling, Verdict
from recsys.registry import Registry
from recsys.retention import pin
from training.differences import differences
from training.run_commands import _history, _print_differences


def _bundle(registry, config, day, refitted):
    parts = BundleParts(
        date=str(day), parent=None, refitted=refitted, config=config, inputs={},
        encoder=EncoderState(vocabularies={}, numbers={}), calibration={},
        weights={"w": np.zeros(1, np.float32)}, items=pl.DataFrame({"item_id": ["i"]}),
        item_embeddings_ID=np.ones((1, 2), np.float32), popular=pl.DataFrame({"item_id": ["i"]}),
        snapshot_at_ms=1,
    )  # fmt: skip
    return save_bundle(registry.bundles, parts, lambda _: pl.DataFrame({"u": []}))


def _record(version, night, auc, **changes):
    check = Check(
        name="click list_auc", outcome=Verdict.PROMOTE, detail=f"{auc}", numbers={"challenger": auc}
    )
    lineage = Lineage(
        code="1.0 abc", python="3.11", libraries={"torch": "2.13"}, host="h", seed=0, seconds={"train": 3.0},
        days={str(night): DayData(snapshot=f"snap{night.day}", rows={"impressions": 10 * night.day})},
    )  # fmt: skip
    record = NightRecord(
        version=version, night=night, verdict=Verdict.PROMOTE, champion=None, evaluated=version,
        cold_since=night, start="cold: nothing was live", trained_until={"click": night}, lags={"click": 0},
        checks=(check,), findings={}, accepted=(), seconds=3.0, lineage=lineage,
    )  # fmt: skip
    return record.model_copy(update=changes)


@pytest.fixture
def registry(make_config, tmp_path):
    """Give a night that went live refitted, one of another seed that held, and an update that went live."""
    made = Registry(tmp_path / "runs")
    first, second = date(2026, 1, 28), date(2026, 1, 29)
    evaluated = _bundle(made, make_config(), first, refitted=False)
    refitted = _bundle(made, make_config(), first, refitted=True)
    held = _bundle(made, make_config(model={"head_hidden": 9}), second, refitted=False)
    for version in (evaluated, refitted):
        made.write_record(_record(version, first, 0.6, evaluated=evaluated))
    at = datetime(2026, 1, 30, 3, tzinfo=UTC)
    ruling = Ruling(at=at, by="gate", verdict=Verdict.HOLD, reasons=("click list_auc: 0.5",))
    made.write_record(_record(held, second, 0.5, champion=refitted).ruled(ruling))
    made.activate(refitted, why="night of 2026-01-28: PROMOTE")
    return made


def test_a_night_is_one_line_whether_it_was_refitted_or_held(registry, capsys):
    assert run(["runs", "list", "--runs", str(registry.runs)]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["night", "version", "start", "verdict"]
    assert [line.split()[0] for line in lines[:2]] == ["2026-01-28", "2026-01-29"]
    assert lines[0].split()[1:] == [registry.current(), "cold", "PROMOTE", "live"]
    assert lines[1].split()[3:] == ["HOLD"]
    assert lines[2].strip() == "click list_auc: 0.5"


def test_updates_come_after_their_night(registry, capsys):
    night = registry.record(registry.current())
    for hour in (20, 9):
        at = datetime(2026, 1, 29, hour, tzinfo=UTC)
        made = {"version": f"2026-01-28-u{hour}", "known_until": at, "champion": night.version}
        registry.write_record(night.model_copy(update=made))
    assert run(["runs", "list", "--runs", str(registry.runs), "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(r["kind"], r["version"][-3:]) for r in found[:3]] == [
        ("cold", night.version[-3:]), ("update", "-u9"), ("update", "u20")
    ]  # fmt: skip


def test_a_night_is_shown_by_version_or_date_with_who_moved_the_pointer_and_why(registry, capsys):
    live = registry.current()
    registry.activate(registry.versions()[-1], why="a try")
    registry.rollback(why="worse")
    for name in (live, "2026-01-28"):
        assert run(["runs", "show", name, "--runs", str(registry.runs)]) == 0
        text = capsys.readouterr().out
        assert text.startswith(f"{live}: night of 2026-01-28, PROMOTE, live")
        for said in ("night of 2026-01-28: PROMOTE", "gave way to 2026-01-29", ": a try", ": worse",
                     "torch 2.13", "snap28: 280 impressions", "train 3 s"):  # fmt: skip
            assert said in text
    assert run(["runs", "show", "2026-01-29", "--runs", str(registry.runs)]) == 0
    assert "was rolled back to 2026-01-28" in capsys.readouterr().out


def test_bundles_are_listed_with_what_they_are_besides(registry, capsys):
    first, other = registry.current(), registry.versions()[-1]
    registry.activate(other, why="a try")
    registry.rollback(why="worse")
    pin(registry, other, "to look at it")
    assert run(["bundle", "list", "--runs", str(registry.runs)]) == 0
    states = {line.split()[0]: line.split()[4:] for line in capsys.readouterr().out.splitlines()}
    assert states["version"] == ["state"]
    assert (states[first], states[other]) == (["live"], ["rolled", "back,", "pinned"])


def test_what_differs_between_two_nights(registry, capsys):
    where = ["--runs", str(registry.runs), "--json", "-"]
    assert run(["runs", "diff", "2026-01-28", "2026-01-29", *where]) == 0
    found = {d["key"]: (d["first"], d["second"]) for d in json.loads(capsys.readouterr().out)["differences"]}
    assert found["config.model.head_hidden"] == (8, 9)
    assert found["checks.click list_auc.challenger"] == (0.6, 0.5)
    assert found["verdict"] == ("PROMOTE", "HOLD")
    assert found["lineage.days.2026-01-29.snapshot"] == (None, "snap29")
    assert not any(key.startswith(("seconds", "rulings", "version")) for key in found)
    assert run(["runs", "diff", "2026-01-28", "2026-01-28", "--runs", str(registry.runs)]) == 0
    assert "nothing differs" in capsys.readouterr().out


def test_the_printed_differences_are_rounded_and_leave_out_what_follows_from_others(capsys):
    found = {
        "checks.click.ci_low": (0.1, 0.2),
        "checks.click.challenger": (0.6373123456789, 0.6239),
        "power[0].detectable.click": (0.3, 0.4),
        "checks.refit.ratio": (1.00000012, 1.00000013),
        "lr": (0.1, 0.1 + 1e-9),
    }
    differences = [{"key": key, "first": a, "second": b} for key, (a, b) in found.items()]
    _print_differences({"first": "v1", "second": "v2", "differences": differences})
    assert capsys.readouterr().out.splitlines() == [
        "v1 | v2",
        "  checks.click.challenger: 0.63731 | 0.6239",
        "  lr: 0.1 | 0.100000001",
        "  3 more, limits and intervals of the checks and the gate's power: --json FILE has them",
    ]


def test_rulings_and_moves_are_in_order_of_time_in_utc():
    said = {
        "record": {
            "version": "v2",
            "rulings": [
                {"at": "2026-01-31T01:00:00+00:00", "by": "gate", "verdict": "PROMOTE", "reasons": []},
                {
                    "at": "2026-01-31T02:00:09+00:00",
                    "by": "activation",
                    "verdict": "FAILED",
                    "reasons": ["why"],
                },
            ],
        },
        "activations": [
            {
                "at": datetime(2026, 1, 31, 1, 0, 5, tzinfo=UTC).timestamp(),
                "version": "v2",
                "previous": "v1",
                "rollback": False,
                "who": "a",
                "why": "b",
            }
        ],
    }
    assert [(at[-9:], lines[0].partition(" ")[0]) for at, lines in sorted(_history(said))] == [
        ("01:00:00Z", "gate:"), ("01:00:05Z", "went"), ("02:00:09Z", "activation:")
    ]  # fmt: skip


def test_a_night_that_is_not_there_is_named_with_those_that_are(registry, tmp_path, capsys):
    assert run(["runs", "show", "2026-01-01", "--runs", str(registry.runs)]) == RegistryError.exit_code
    assert f"the newest are: {registry.current()}" in capsys.readouterr().err
    assert run(["runs", "show", "x", "--runs", str(tmp_path / "no")]) == RegistryError.exit_code
    assert "run `recsys nightly` first" in capsys.readouterr().err


def test_differences_are_of_leaves():
    before = {"a": {"b": 1, "c": [1, 2]}, "d": [{"e": 1}]}
    now = {"a": {"b": 1, "c": [1, 3]}, "d": [{"e": 2}], "f": None}
    assert differences(before, now) == [("a.c", [1, 2], [1, 3]), ("d[0].e", 1, 2)]


@pytest.mark.parametrize("command", ["runs list", "bundle list"])
def test_a_folder_without_runs_is_no_empty_list(command, tmp_path, capsys):
    assert run([*command.split(), "--runs", str(tmp_path / "nope")]) == 5
    assert f"there is no folder {tmp_path / 'nope'}" in capsys.readouterr().err
    assert run([*command.split(), "--runs", str(tmp_path)]) == 5
    assert "neither registry/ nor bundles/" in capsys.readouterr().err
    (tmp_path / "registry").mkdir()
    assert run([*command.split(), "--runs", str(tmp_path)]) == 0
