"""Which stages of a night run: from one to another, forced, damaged, only looked at; on toy stages."""

import errno
import json
import os
from dataclasses import replace
from datetime import date

import pytest

from recsys.errors import ConfigError, DataError
from recsys.log import InteractionLog
from recsys.stages import read_manifest
from training.night import explain, extent, run
from training.night.explain import difference, explain_night
from training.night.extent import Part
from training.night.night import Night
from training.night.step import Stage

BUILT: list[str] = []


def _kept(step, **inputs):
    def build(folder):
        BUILT.append(step.stage.name)
        (folder / "made").write_text(" ".join([step.stage.name, *map(str, inputs)]))
        return {}

    return step.kept(build)


def _note(step, **_):
    BUILT.append(step.stage.name)


TOYS = (
    Stage(name="ingest", keys=("timezone",), inputs=(), output=None, run=_note),
    Stage(name="encode", keys=("timezone",), inputs=(), output="days", run=_kept),
    Stage(name="learn", keys=("training.seed",), inputs=("days",), output="weights", run=_kept),
    Stage(name="gate", keys=("gate.margin",), inputs=("weights",), output="scores", run=_kept),
    Stage(name="curves", keys=(), inputs=("days",), output=None, run=_note),
)
ALL = ["ingest", "encode", "learn", "gate", "curves"]


@pytest.fixture
def walk(make_config, tmp_path, monkeypatch):
    """Give what walks the toy night, and says what it built: walk(seed=1, stop_after="learn")."""
    monkeypatch.setattr(extent, "STAGES", TOYS)

    def walk_night(seed=0, dry_run=False, **options):
        BUILT.clear()
        part = Part(**options)
        config = make_config(training={"seed": seed})
        log, runs = InteractionLog(tmp_path / "log"), tmp_path / "runs"
        night = Night(config=config, log=log, runs=runs, date=date(2026, 1, 29), reuse=part.reuse(print))
        if dry_run:
            return explain_night(night, part).stages
        walk_night.made = run._walk(night, part.start_at, part.stop_after)
        return list(BUILT)

    return walk_night


def test_a_night_run_again_builds_nothing(walk):
    assert walk() == ALL
    assert walk() == ["ingest", "curves"]
    assert walk(seed=1) == ["ingest", "learn", "gate", "curves"]


def test_a_night_stops_after_a_stage_and_starts_at_one(walk):
    assert walk(stop_after="learn") == ["ingest", "encode", "learn"]
    with pytest.raises(DataError, match="stage learn would have to run: there is no result of these inputs"):
        walk(seed=1, start_at="gate")
    assert BUILT == []
    assert walk(start_at="gate") == ["gate", "curves"]
    assert walk(start_at="gate", stop_after="gate") == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start_at": "tea"}, "--start-at 'tea' is no stage of a night; they are: ingest, encode, learn"),
        ({"stop_after": "tea"}, "--stop-after 'tea'"),
        ({"force": ("tea",)}, "--force 'tea'"),
        (
            {"start_at": "gate", "stop_after": "learn"},
            "learn comes before --start-at gate: nothing would run",
        ),
    ],
)
def test_names_that_are_no_stages_are_refused(walk, options, said):
    with pytest.raises(ConfigError, match=said):
        walk(**options)


def test_a_forced_stage_takes_with_it_what_is_made_of_it(walk):
    walk()
    assert walk(force=("learn",)) == ["ingest", "learn", "gate", "curves"]
    assert walk(force=("encode",)) == ALL
    assert walk() == ["ingest", "curves"]


def _damage(stage):
    """Another byte, of the same size and time, as a disk may give it."""
    file = stage / "made"
    state = file.stat()
    with file.open("r+b") as stream:
        stream.write(b"?")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    return file


def test_what_is_read_is_proved_and_a_damaged_stage_heals_in_the_same_run(walk, capsys):
    walk()
    file = _damage(walk.made["weights"])
    assert walk() == ["ingest", "curves"], "nothing is made of it"
    assert file.read_text().startswith("?")
    assert walk(verify=True) == ["ingest", "learn", "curves"]
    assert file.read_text() == "learn days"
    file = _damage(walk.made["days"])
    # The walk finds it where it is read, and begins again: ingest runs twice.
    assert walk(seed=2) == ["ingest", "ingest", "encode", "learn", "gate", "curves"]
    assert file.read_text() == "encode"
    assert "stage encode is built again: " in capsys.readouterr().out


def test_a_disk_that_is_full_at_a_stage_without_a_folder_is_a_sentence_too(walk, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "records/v1.json")

    monkeypatch.setattr(extent, "STAGES", (*TOYS[:-1], replace(TOYS[-1], run=full)))
    with pytest.raises(
        DataError, match=r"stage curves: records/v1\.json: No space left on device; free the disk"
    ):
        walk()
    monkeypatch.setattr(extent, "STAGES", TOYS)
    assert walk() == ["ingest", "curves"]


def test_a_dry_run_says_what_would_run_and_why_and_writes_nothing(walk, tmp_path):
    first = walk(dry_run=True)
    assert not (tmp_path / "runs").exists()
    assert [(s.stage, s.does) for s in first] == [
        ("ingest", "done"), ("encode", "run"), ("learn", "run"), ("gate", "run"), ("curves", "run")
    ]  # fmt: skip
    assert first[1].why == "there is no result of these inputs"
    assert first[2].why == "it takes what encode would make"
    walk()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    done = walk(dry_run=True)
    assert [s.does for s in done] == ["done", "done", "done", "done", "run"]
    changed = walk(dry_run=True, seed=7)
    assert [s.does for s in changed] == ["done", "done", "run", "run", "run"]
    assert "the newest one differs in config.training.seed (0, now 7)" in changed[2].why
    forced = walk(dry_run=True, force=("learn",))
    assert (forced[2].does, forced[2].why) == ("run", "it is forced")
    stopped = walk(dry_run=True, seed=7, start_at="gate")
    assert (stopped[-1].stage, stopped[-1].does) == ("learn", "stop")
    assert BUILT == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_dry_run_cannot_say_what_days_will_be_that_the_journal_adds_to(walk, monkeypatch):
    walk()
    monkeypatch.setattr(explain, "num_pending", lambda *_: 2)
    first, second, *_ = walk(dry_run=True)
    assert (first.does, first.why) == ("run", "2 journal files are not in the log yet")
    assert (second.does, second.why) == ("run", "it takes what ingest would make")


def test_what_differs_is_named_by_its_path_and_not_at_length(walk):
    walk()
    said = json.loads(json.dumps(read_manifest(walk.made["weights"])["inputs"]))
    now = {**said, "config": {**said["config"], "a": 1, "b": [{"c": 2}], "d": "x" * 40, "e": 0}}
    found = difference(said, now)
    assert "config.a (absent, now 1), config.b[0].c (absent, now 2), config.d (absent, now xxx" in found
    assert found.endswith("…) and 1 more")
