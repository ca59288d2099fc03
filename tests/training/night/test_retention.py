"""What a night removes when it is done, and whether there was room to begin."""

import json
import os
import shutil
from datetime import date
from types import SimpleNamespace

import pytest

from recsys.errors import DataError
from recsys.log import InteractionLog
from recsys.records import NightRecord, Verdict
from recsys.snapshot import DaySnapshot
from recsys.stages import MANIFEST
from training.night.disk import require_room
from training.night.litter import collect_litter
from training.night.night import Night
from training.night.stages import STAGES
from training.night.step import Step

DAY = date(2026, 1, 5)
COLLECT = next(stage for stage in STAGES if stage.name == "collect")


@pytest.fixture
def night(make_config, tmp_path):
    config = make_config(retention={"nights": 2, "reports": 2}, store={"keep": 1})
    return Night(config=config, log=InteractionLog(tmp_path / "log"), runs=tmp_path / "runs", date=DAY)


def stage(night, name, folder, inputs, **said):
    """Write a finished stage's manifest."""
    path = night.stages.root / name / folder
    path.mkdir(parents=True)
    files = {"weights": [1_000, "0" * 64, 0, 0]}
    (path / MANIFEST).write_text(json.dumps({"stage": name, "inputs": inputs, "files": files, **said}))
    return path


def night_of(night, day, list_value=None):
    """Leave what a night leaves: snapshot, weights, bundle, scores, verdict, record, reports."""
    version = f"2026-01-0{day}-x"
    folder = night.registry.path(version)
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text("{}")
    snapshot = stage(night, "features", f"days-{day}", {"day": f"2026-01-0{day}"}, day=f"2026-01-0{day}")
    days = {"days": snapshot.name}
    stage(night, "train", f"train-{day}", {"inputs": days})
    stage(night, "bundle", f"bundle-{day}", {"inputs": {**days, "weights": f"train-{day}"}}, version=version)
    stage(night, "evaluate", f"scores-{day}", {"inputs": {**days, "evaluated": version}})
    stage(night, "gate", f"gate-{day}", {"inputs": {"scores": f"scores-{day}", "previous": "2026-01-01-x"}})
    night.registry.write_record(
        NightRecord(
            version=version, night=date(2026, 1, day), verdict=Verdict.PROMOTE, champion=None,
            evaluated=version, cold_since=DAY, start="cold", trained_until={}, lags={}, checks=(),
            findings={}, accepted=(), seconds=0.0, list_value=list_value,
        )
    )  # fmt: skip
    night.reports.mkdir(exist_ok=True)
    for name in (f"validation-2026-01-0{day}.md", f"night-2026-01-0{day}.html", "own.html"):
        (night.reports / name).touch()
    return DaySnapshot(date(2026, 1, day), snapshot)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def run(night, days):
    made = {"days": days, "evaluated": "2026-01-05-x", "live": None, "anchor": "2026-01-02-x"}
    Step.of(COLLECT, night, made).run()


def test_a_night_leaves_what_is_kept_and_nothing_else(night, capsys):
    days = [night_of(night, day) for day in range(1, 6)]
    stage(night, "features", "other-config", {"day": "2026-01-05"})
    old = stage(night, "features", "other-config-old", {"day": "2026-01-05"})
    first = stage(night, "features", "anchors-first", {"day": "2026-01-01", "previous": None})
    (days[1].path / MANIFEST).write_text(
        json.dumps({"inputs": {"day": "2026-01-02", "previous": first.name}})
    )
    for path in (old, first, days[1].path):
        os.utime(path, (0, 0))
    days[1] = days[0]  # the anchor's night had another config: its days are not of this night's chain
    (night.diverged.parent / "2026-01-01").mkdir(parents=True)
    for day in (3, 4):
        (night.diverged.parent / f"2026-01-0{day}").mkdir()
    run(night, days)
    kept = [2, 4, 5]
    assert names(night.registry.bundles) == [f"2026-01-0{day}-x" for day in kept]
    for name, folder in (("train", "train"), ("bundle", "bundle"), ("evaluate", "scores"), ("gate", "gate")):
        assert names(night.stages.root / name) == [f"{folder}-{day}" for day in kept], name
    assert names(night.stages.root / "features") == [
        "anchors-first", *(f"days-{d}" for d in range(1, 6)), "other-config"
    ]  # fmt: skip
    assert names(night.reports) == [
        "night-2026-01-04.html", "night-2026-01-05.html", "own.html",
        "validation-2026-01-04.md", "validation-2026-01-05.md",
    ]  # fmt: skip
    assert names(night.diverged.parent) == ["2026-01-03", "2026-01-04"]
    assert len(night.registry.records()) == 5, "records stay"
    assert "2 bundles (2026-01-01-x, 2026-01-03-x), 9 stages, 7 reports" in capsys.readouterr().err


def test_the_anchor_to_come_stays_with_its_stages(night):
    """No night has one now, as the champion is the best; two nights later the second best is."""
    days = [night_of(night, day, list_value=value) for day, value in enumerate((0.1, 0.3, 0.2, 0.0, 0.4), 1)]
    made = {"days": days, "evaluated": "2026-01-05-x", "live": None, "anchor": None}
    Step.of(COLLECT, night, made).run()
    assert names(night.registry.bundles) == ["2026-01-04-x", "2026-01-05-x"]
    days += [
        night_of(night, day, list_value=value) for day, value in ((6, 0.3), (7, 0.2), (8, 0.1), (9, 0.0))
    ]
    Step.of(COLLECT, night, {**made, "days": days, "evaluated": "2026-01-09-x"}).run()
    kept = [5, 6, 7, 8, 9]
    assert names(night.registry.bundles) == [f"2026-01-0{day}-x" for day in kept]
    assert names(night.stages.root / "train") == [f"train-{day}" for day in kept]


def test_an_older_night_removes_no_snapshot_of_later_ones(night):
    days = [night_of(night, day) for day in range(1, 6)]
    for snapshot in days:
        os.utime(snapshot.path, (0, 0))
    night_of(night, 9)
    run(night, days[:2])
    assert {f"days-{day}" for day in range(1, 6)} <= {*names(night.stages.root / "features")}


def disk(monkeypatch, free):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))


def test_a_night_without_room_does_not_begin(night, monkeypatch, frames):
    frames.write(night.log, "impressions", frames.impressions({}))
    disk(monkeypatch, 1_000)
    with pytest.raises(DataError, match=r"has 0.00 MB free and a night needs about .* first night, ti"):
        require_room(night)
    night_of(night, 4)
    disk(monkeypatch, 4_801)  # four stages with the features that they read, 1,000 bytes each, and a manifest
    with pytest.raises(DataError, match=r"the night of 2026-01-04 wrote 0.00 MB.*\[retention\] nights = 2"):
        require_room(night)
    disk(monkeypatch, 4_804)
    require_room(night)
    for name, text in (("torn", '{"inputs": '), ("old", '{"inputs": {}, "version": "2026-01-04-x"}')):
        (stage(night, "train", name, {}) / MANIFEST).write_text(text)
    require_room(night)  # a manifest that a power cut tore, or of another release, is no traceback
    night_of(night, 5)
    disk(monkeypatch, 0)
    require_room(night)  # it was run before: it may have nothing to do


def test_temporary_files_of_killed_ingests_go_when_they_are_old(night):
    partition = night.log.root / "impressions" / "date=2026-01-05"
    partition.mkdir(parents=True)
    left = [partition / ".journal-a.parquet.17.tmp", partition / ".journal-b.parquet.18.tmp"]
    for file in left:
        file.touch()
    os.utime(left[0], (0, 0))
    (partition / "part.parquet").touch()
    assert collect_litter(night.runs, night.log.root) == [left[0]]
    assert sorted(os.listdir(partition)) == [".journal-b.parquet.18.tmp", "part.parquet"]
