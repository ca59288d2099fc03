"""Updates during the day: each label learned once, full versions, a light gate, the night undisturbed."""

import json
import shutil
from contextlib import closing
from datetime import UTC, date, datetime
from itertools import pairwise

import numpy as np
import pytest

from features.encode import Encoder
from features.store import open_store
from recsys.bundle import load_bundle
from recsys.cli import run as run_command
from recsys.errors import ConfigError, DataError
from recsys.log import InteractionLog
from recsys.records import Verdict
from recsys.registry import Registry
from recsys.settings import to_toml
from training.incremental.learn import closed_between
from training.incremental.run import show_update, update
from training.night import go_live
from training.night.night import Night
from training.night.run import run_night
from training.publish import verify_version


def at(hour, minute=0, day=30):
    return datetime(2026, 1, day, hour, minute, tzinfo=UTC)


def _written(runs):
    files = (path for path in runs.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path: path.stat().st_mtime_ns for path in files}


@pytest.fixture
def tasks(config):
    return [t.model_dump(mode="json") for t in config.tasks]


def test_two_updates_and_the_night_after_them(night, runs, tmp_path):
    """Full versions that reproduce their golden requests; the night is the one that it would have been."""
    before = Registry(runs).current()
    first = update(night.config, night.log.root, runs, at(12))
    assert (first.verdict, first.live) == (Verdict.PROMOTE, first.version)
    record = Registry(runs).require_record(first.version)
    assert (record.champion, record.known_until) == (before, at(9)), "a quarter of twelve hours is held out"
    assert record.evaluated == Registry(runs).require_record(before).evaluated
    assert verify_version(runs, first.version)[0] > 0
    second = update(night.config, night.log.root, runs, at(21))
    assert Registry(runs).require_record(second.version).known_until == at(18)
    assert Registry(runs).current() == second.version
    old, new = (load_bundle(Registry(runs).path(v)) for v in (before, second.version))
    assert new.manifest.calibration == old.manifest.calibration
    assert new.snapshot_at_ms == old.snapshot_at_ms, "users in the store and the model are of one instant"
    name = "ranker.heads.heads.click.0.weight"
    assert not np.array_equal(new.weights[name], old.weights[name])

    after = run_night(Night(config=night.config, log=night.log, runs=runs, date=date(2026, 1, 30)))
    undisturbed = shutil.copytree(night.runs, tmp_path / "undisturbed")
    alone = run_night(Night(config=night.config, log=night.log, runs=undisturbed, date=date(2026, 1, 30)))
    assert after.evaluated == alone.evaluated
    assert Registry(runs).require_record(after.evaluated).champion == before, "updates are passed over"


def test_every_label_is_shown_to_one_update(shop_chain, config, trained):
    """Over a day of updates each label that becomes known is there once, and none that is not."""
    encoder = Encoder.from_config(config, trained.state)
    instants = [at(0), at(1), at(9, 30), at(10), at(23), at(0, day=31)]
    whole, parts = [], []
    for i in (4, 5):
        rows = closed_between(shop_chain, i, encoder, config, instants[0], instants[-1])
        whole.append({t.name: np.nansum(~np.isnan(rows.labels[t.name])) for t in config.tasks})
        cut = [closed_between(shop_chain, i, encoder, config, *pair) for pair in pairwise(instants)]
        parts.append({t.name: sum(np.nansum(~np.isnan(c.labels[t.name])) for c in cut) for t in config.tasks})
        for task in config.tasks:
            ids = [
                name
                for c in cut
                for name in c.frame["impression_id"].to_numpy()[~np.isnan(c.labels[task.name])]
            ]
            assert len(ids) == len(set(ids))
    assert parts == whole
    assert whole[0]["rating"] > 0, "yesterday's ratings become known today"
    assert whole[1]["click"] > 500


def test_a_childs_label_is_known_when_its_parents_is(shop_chain, make_config, tasks, trained):
    """A child whose own window closes first is still shown to one update, none is left out."""
    tasks[0]["window"], tasks[1]["window"] = "24h", "1h"
    config = make_config(task=tasks[:2])
    encoder = Encoder.from_config(config, trained.state)
    rows = closed_between(shop_chain, 4, encoder, config, at(0), at(0, day=31))
    labels = shop_chain.labelled_for(config.tasks).labels(4)
    known = {name: int((~np.isnan(rows.labels[name])).sum()) for name in ("click", "purchase")}
    assert known["purchase"] == known["click"] == labels["label_click"].is_not_null().sum() > 0


def test_another_config_than_the_live_versions_is_refused(night, runs, make_config):
    with pytest.raises(ConfigError, match=r"^model: the config differs from that of .*run the night first"):
        update(make_config(model={"attention_dim": 12}), night.log.root, runs, at(12))
    with pytest.raises(ConfigError, match=r'period = "P1W": updates during the day need period = "P1D"'):
        update(make_config(period="P1W"), night.log.root, runs, at(12))


def test_a_head_that_got_worse_keeps_the_live_version(night, runs):
    """And the labels are learned by the next update that goes live."""
    before = Registry(runs).current()
    strict = night.config.updates.model_copy(update={"min_rows": 20, "margin": -0.9})
    held = update(night.config.model_copy(update={"updates": strict}), night.log.root, runs, at(12))
    assert (held.verdict, held.live) == (Verdict.HOLD, before)
    assert Registry(runs).current() == before
    assert any(c.outcome is Verdict.HOLD and c.name == "click loss" for c in held.checks)
    later = update(night.config, night.log.root, runs, at(21))
    assert later.verdict is Verdict.PROMOTE
    assert later.rows > held.rows
    assert Registry(runs).require_record(later.version).champion == before


def test_a_second_update_of_the_same_labels_changes_nothing(night, runs, capsys):
    """Run again, it would learn what it has just been compared on."""
    first = update(night.config, night.log.root, runs, at(12))
    kept = _written(runs)
    again = update(night.config, night.log.root, runs, at(12))
    assert (again.live, again.version, again.verdict, again.rows) == (first.live, None, None, 0)
    assert _written(runs) == kept
    show_update(again)
    assert f"nothing new: no label became known up to 2026-01-30 12:00 UTC that {first.live}" in (
        capsys.readouterr().out
    )
    assert update(night.config, night.log.root, runs, at(12).replace(microsecond=1)).version is None
    assert update(night.config, night.log.root, runs, at(15)).version


def test_an_update_of_which_no_head_is_compared_is_held(night, runs):
    before = Registry(runs).current()
    few = night.config.updates.model_copy(update={"min_rows": 100_000})
    held = update(night.config.model_copy(update={"updates": few}), night.log.root, runs, at(12))
    assert (held.verdict, held.live) == (Verdict.HOLD_UNDERPOWERED, before)
    assert Registry(runs).current() == before
    assert "[updates] min_rows = 100000 labels" in held.checks[-1].detail
    assert update(night.config, night.log.root, runs, at(12)).verdict is Verdict.PROMOTE


def test_an_updates_version_is_rolled_back_and_its_snapshot_goes_with_the_next(night, runs, monkeypatch):
    """What a server needs of the version before is all there; the next update goes on from it."""
    before = Registry(runs).current()
    monkeypatch.setattr(go_live, "publish", None)  # no user is written
    first = update(night.config, night.log.root, runs, at(12))
    assert Registry(runs).rollback() == before
    assert verify_version(runs, before)[0] > 0
    with closing(open_store(night.config.store, runs)) as store:
        users = list(InteractionLog(night.log.root).read("users", night.log.days("users")[0])["user_id"])
        bases = [[user.base for user in store.get_many(v, users)] for v in (before, first.version)]
    assert bases[0] == bases[1], "an update changes no user"
    assert any(base is not None for base in bases[0])

    log = InteractionLog(shutil.copytree(night.log.root, runs.parent / "log"))
    log.write("impressions", date(2026, 1, 30), log.read("impressions", date(2026, 1, 30)).head(-1))
    features = set((runs / "stages" / "features").iterdir())
    second = update(night.config, log.root, runs, at(21))
    record = Registry(runs).require_record(second.version)
    assert (record.champion, record.known_until) == (before, at(15, 45))
    now = set((runs / "stages" / "features").iterdir())
    assert len(now - features) == len(features - now) == 1, (
        "the day's new snapshot is there instead of the old"
    )


@pytest.mark.parametrize("when", [at(23, day=29), at(1, day=31)])
def test_only_the_day_after_the_night_is_learned(night, runs, when):
    with pytest.raises(DataError, match=r"is updated until the end of 2026-01-30.*run that night"):
        update(night.config, night.log.root, runs, when)


def test_nothing_live_is_refused(night, tmp_path):
    with pytest.raises(DataError, match="nothing is live"):
        update(night.config, night.log.root, tmp_path, at(12))


def test_the_command_makes_a_version_live_and_takes_only_its_own_options(night, runs, tmp_path, capsys):
    file = tmp_path / "c.toml"
    file.write_text(to_toml(night.config.model_dump(mode="json", by_alias=True)))
    argv = ["train", "--config", str(file), "--log", str(night.log.root), "--runs", str(runs)]
    instant = ["--at", "2026-01-30T12:00"]
    assert run_command([*argv, *instant]) == 2
    assert "without --incremental, does not take --at" in capsys.readouterr().err
    assert run_command([*argv, *instant, "--incremental", "--nproc", "2"]) == 2
    assert "--incremental does not take --nproc" in capsys.readouterr().err
    assert run_command([*argv, *instant, "--incremental", "--json", "-"]) == 0
    live = Registry(runs).current()
    assert json.loads(capsys.readouterr().out)["live"] == live
    assert run_command(["nightly", *argv[1:], "--date", "2026-01-29"]) == 0
    assert f"{live} is live" in " ".join(capsys.readouterr().out.split())
