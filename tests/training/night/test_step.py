"""A stage at work: what it may read, and what stands for its bundle."""

import shutil

import pytest

from recsys.config_view import UndeclaredKeyError
from recsys.log import InteractionLog
from training.night.night import Night
from training.night.step import Stage, Step


@pytest.fixture
def night(make_config, tmp_path):
    log = InteractionLog(tmp_path / "log")
    return Night(config=make_config(), log=log, runs=tmp_path / "runs", date=None)


def step_of(night, run, keys=()):
    return Step.of(Stage(name="toy", keys=keys, inputs=(), output=None, run=run), night, {})


@pytest.mark.parametrize(
    "read", [lambda s: s.config, lambda s: s.night.config, lambda s: s.night.ingest.config]
)
def test_no_way_leads_to_a_key_that_is_not_declared(night, read):
    assert step_of(night, lambda s: read(s).period, keys=("period",)).run() == night.config.period
    with pytest.raises(UndeclaredKeyError, match="stage toy reads the config key timezone"):
        step_of(night, lambda s: read(s).timezone, keys=("period",)).run()


def test_a_bundle_that_was_removed_is_known_by_the_version_written_anew(night, monkeypatch):
    """Golden answers of another processor may give another hash."""
    monkeypatch.setattr("training.night.step.is_sound", lambda path: path.is_dir())
    versions = iter(["v1", "v2"])

    def build(_):
        version = next(versions)
        night.registry.path(version).mkdir(parents=True)
        (night.registry.path(version) / "manifest.json").touch()
        return {"version": version}

    step = step_of(night, lambda s: s.kept_bundle(build))
    assert [step.run(), step.run()] == ["v1", "v1"]
    shutil.rmtree(night.registry.path("v1"))
    assert [step.run(), step.run()] == ["v2", "v2"]
