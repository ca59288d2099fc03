"""A version goes live in place of what was live when its night began, and of nothing else."""

import shutil
from contextlib import closing
from datetime import date

import pytest

from features.loading import Answering
from features.store import open_store
from recsys.errors import MissingUsersError, StoreError
from recsys.log import InteractionLog
from recsys.records import Activation, Verdict
from training.night.go_live import Pointers, go_live
from training.night.night import Night

OLDER = "2026-01-28-0123456789ab"


@pytest.fixture
def night(bundle_folder, config, tmp_path):
    """Give the night that made the shop's bundle; nothing is live yet."""
    shutil.copytree(bundle_folder, tmp_path / "runs" / "bundles" / bundle_folder.name)
    log = InteractionLog(tmp_path / "log")
    return Night(config=config, log=log, runs=tmp_path / "runs", date=date(2026, 1, 29))


@pytest.fixture
def version(bundle_folder):
    return bundle_folder.name


@pytest.fixture
def store(night):
    with closing(open_store(night.config.store, night.runs)) as opened:
        yield opened


@pytest.fixture
def end(night, version, shop_chain):
    """Give what ends the night: end(what was live, what the store pointed at)."""

    def end_night(*began, champion=OLDER):
        pointers = Pointers(registry=began[0], store=began[1]) if began else Pointers.read(night)
        return go_live(night, night.config.store, shop_chain[4], version, champion, pointers)

    return end_night


def point(night, version):
    night.registry.folder.mkdir(parents=True, exist_ok=True)
    (night.registry.folder / "CURRENT").write_text(f"{version}\n")


def pointers(night, store):
    return night.registry.current(), store.current()


def test_what_was_live_at_the_start_gives_way(night, version, store, end):
    point(night, OLDER)
    assert end().live
    assert pointers(night, store) == (version, version)
    (line,) = night.registry.activations.read()
    assert (line.previous, line.why) == (OLDER, "night of 2026-01-29: PROMOTE")
    assert line.who


def test_who_moves_the_pointer_during_a_night_is_not_overruled(night, store, end):
    point(night, "2026-01-27-fedcba987654")
    ending = end(OLDER, None)
    assert (ending.live, ending.verdict) == (False, Verdict.HOLD)
    assert ending.reason.startswith("2026-01-27-fedcba987654 is live and 2026-01-28-0123456789ab was when")
    assert pointers(night, store) == ("2026-01-27-fedcba987654", None)


def test_of_two_hosts_with_one_store_the_later_stops(night, version, store, end):
    point(night, OLDER)
    store.publish("theirs", [], {}, 0)
    store.activate("theirs", expect=None)
    ending = end(OLDER, None)
    assert (ending.live, ending.verdict) == (False, Verdict.HOLD)
    assert "the store points at theirs, and at None when the night began: another host" in ending.reason
    assert pointers(night, store) == (OLDER, "theirs")
    with pytest.raises(MissingUsersError):
        store.get_many(version, ())  # it wrote nothing there


@pytest.mark.parametrize("which", ["registry", "store"])
def test_a_pointer_that_moves_at_the_last_moment_stays_too(night, version, store, end, which, monkeypatch):
    point(night, OLDER)
    store.publish("before", [], {}, 0)
    store.activate("before", expect=None)
    check = Answering.check_golden

    def moved(self):
        if which == "registry":
            point(night, "2026-01-27-fedcba987654")
        else:
            store.publish("theirs", [], {}, 0)
            store.activate("theirs", expect="before")
        return check(self)

    monkeypatch.setattr(Answering, "check_golden", moved)
    ending = end(OLDER, "before")
    assert (ending.live, ending.verdict) == (False, Verdict.HOLD)
    expected = {"registry": ("2026-01-27-fedcba987654", "before"), "store": (OLDER, "theirs")}
    assert pointers(night, store) == expected[which]


def test_a_store_of_another_runs_folder_is_refused_before_the_night_works(night, version, store, tmp_path):
    store.publish("2026-01-27-fedcba987654", [], {}, 0)
    store.activate("2026-01-27-fedcba987654", expect=None)
    with pytest.raises(StoreError, match=r"27-fedcba987654, which .*/runs never had: another runs folder"):
        Pointers.read(night)
    night.registry.folder.mkdir(parents=True)
    night.registry.activations.append(Activation(version=version, previous="2026-01-27-fedcba987654", at=0.0))
    assert Pointers.read(night).store == "2026-01-27-fedcba987654", "its bundle may be gone by now"


def test_a_version_that_was_rolled_back_comes_back_by_hand_alone(night, version, store, end):
    point(night, OLDER)
    assert end().live
    rolled_back = Activation(version=OLDER, previous=version, at=0.0, rollback=True, who="ann@host")
    night.registry.activations.append(rolled_back)
    point(night, OLDER)
    for _ in range(2):
        ending = end()
        assert (ending.live, ending.verdict) == (False, Verdict.HOLD)
        assert "was rolled back by ann@host, and no night brings it back" in ending.reason
        assert night.registry.current() == OLDER
    night.registry.activate(version)
    assert end().live
    point(night, OLDER)
    assert end().live, "what was activated by hand is not barred any more"


def test_an_older_night_leaves_the_newer_one_live(night, version, end):
    point(night, "2026-01-30-0123456789ab")
    ending = end()
    assert (ending.live, ending.verdict) == (False, Verdict.PROMOTE)
    assert ending.reason == "it is of no earlier night, and stays"
    assert night.registry.current() == "2026-01-30-0123456789ab"


def test_a_night_killed_between_the_two_pointers_goes_on(night, version, store, end, monkeypatch):
    point(night, OLDER)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("recsys.registry.Registry.activate", killed)
        with pytest.raises(KeyboardInterrupt):
            end()
    assert pointers(night, store) == (OLDER, version)
    assert end().live
    assert pointers(night, store) == (version, version)
