"""What keeps a version from going live, or takes it back: a server's own check, and the running servers."""

import os
import shutil
import threading
from contextlib import closing
from datetime import UTC, date, datetime

import pytest

from features.store import open_store
from recsys.log import InteractionLog
from recsys.manifest import read_manifest, version_of
from recsys.records import NightRecord, Ruling, Verdict
from recsys.registry import Registry
from training.night.go_live import Pointers, go_live
from training.night.night import Ending, Night
from training.night.post_check import await_servers

NEW, OLD = "2026-01-30-aaaaaaaaaaaa", "2026-01-29-bbbbbbbbbbbb"


class Time:
    """Time that passes while it is slept; something happens at each look."""

    def __init__(self, happens):
        self.now, self._happens = 0.0, happens

    def sleep(self, seconds):
        self.now += seconds
        self._happens(self.now)

    def wait(self, registry, within_s=60.0, loading_s=0.0):
        return await_servers(registry, NEW, within_s, loading_s, sleep=self.sleep, now_s=lambda: self.now)


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path)


def age(registry, server, seconds):
    file = registry.folder / "leases" / f"{server}.json"
    os.utime(file, (0, file.stat().st_mtime - seconds))


def test_servers_that_take_the_version_are_waited_for(registry):
    registry.write_lease("a", OLD)
    time = Time(lambda now: registry.write_lease("a", NEW if now > 1 else OLD))
    assert time.wait(registry) is None
    assert 1 < time.now < 2


def test_a_server_that_goes_on_with_another_version_is_named(registry):
    registry.write_lease("a", NEW)
    registry.write_lease("b", OLD)
    time = Time(lambda _: registry.write_lease("b", OLD))
    said = time.wait(registry, 2.0)
    assert f"1 of 1 servers did not take it within 2 s: b answers with {OLD};" in said
    assert time.now >= 2


@pytest.mark.parametrize(("fails_at_s", "wrong"), [(None, False), (6.0, True)])
def test_a_server_that_is_still_loading_is_waited_for_longer(registry, fails_at_s, wrong):
    def load(now):
        done = now > 9 and fails_at_s is None
        failed = fails_at_s is not None and now > fails_at_s
        registry.write_lease("a", NEW if done else OLD, [] if done or failed else [NEW])

    registry.write_lease("a", OLD)
    time = Time(load)
    said = time.wait(registry, 2.0, 20.0)
    assert (said is not None) is wrong, said
    assert (6 < time.now < 7) if wrong else (9 < time.now < 10)


def test_a_server_that_stops_meanwhile_takes_no_version_back(registry):
    registry.write_lease("a", NEW)
    registry.write_lease("b", OLD)
    time = Time(lambda _: registry.write_lease("b", None))
    assert time.wait(registry) is None
    assert time.now < 1


@pytest.mark.parametrize(("old_s", "waits"), [(1.0, True), (400.0, False)])
def test_a_server_that_was_killed_takes_no_version_back(registry, old_s, waits):
    registry.write_lease("killed", OLD)
    age(registry, "killed", old_s)
    time = Time(lambda _: None)
    assert time.wait(registry) is None
    assert (time.now > 59) is waits


def test_no_server_is_no_wait(registry):
    time = Time(lambda _: None)
    assert time.wait(registry) is None
    assert time.now == 0


@pytest.fixture
def night(bundle_folder, make_config, tmp_path):
    """Give the night that made the shop's bundle."""
    shutil.copytree(bundle_folder, tmp_path / "runs" / "bundles" / bundle_folder.name)
    config = make_config(publish={"check": False, "servers_s": 0.3})
    return Night(
        config=config, log=InteractionLog(tmp_path / "log"), runs=tmp_path / "runs", date=date(2026, 1, 29)
    )


@pytest.fixture
def older(night, bundle_folder):
    """Make a version that is live already."""
    manifest = read_manifest(bundle_folder).model_copy(update={"parent": bundle_folder.name})
    manifest = manifest.model_copy(update={"version": version_of(manifest)})
    shutil.copytree(bundle_folder, night.registry.path(manifest.version))
    text = manifest.model_dump_json(indent=1)
    (night.registry.path(manifest.version) / "manifest.json").write_text(text)
    night.registry.activate(manifest.version, why="night of 2026-01-28: PROMOTE")
    with closing(open_store(night.config.store, night.runs)) as store:
        store.publish(manifest.version, [], {}, 0)
        store.activate(manifest.version, expect=None)
    return manifest.version


@pytest.fixture
def end(night, older, bundle_folder, shop_chain):
    """Give what ends the night."""

    def end_night():
        store = night.config.store
        return go_live(night, store, shop_chain[4], bundle_folder.name, older, Pointers.read(night))

    return end_night


@pytest.fixture
def stubborn(night, older):
    """Let a server answer with the older version, whatever is live."""
    done = threading.Event()

    def answer():
        while not done.wait(0.02):
            night.registry.write_lease("host-1", older)

    night.registry.write_lease("host-1", older)
    thread = threading.Thread(target=answer)
    thread.start()
    yield
    done.set()
    thread.join()


@pytest.mark.usefixtures("stubborn")
def test_a_version_that_a_server_does_not_take_is_rolled_back_and_barred(night, bundle_folder, older, end):
    version = bundle_folder.name
    ending = end()
    assert (ending.live, ending.verdict) == (False, Verdict.CHECK_FAILED)
    assert ending.reason.startswith(f"{version} was rolled back to {older}: 1 of 1 servers did not take it")
    with closing(open_store(night.config.store, night.runs)) as store:
        assert (night.registry.current(), store.current()) == (older, older)
    moves = [(m.version, m.rollback) for m in night.registry.activations.read()]
    assert moves == [(older, False), (version, False), (older, True)]
    again = end()
    assert (again.live, again.verdict) == (False, Verdict.HOLD)


@pytest.mark.usefixtures("stubborn")
@pytest.mark.parametrize("failed_before", [False, True])
def test_a_night_killed_while_it_waited_waits_again(night, bundle_folder, older, end, failed_before):
    version = bundle_folder.name
    failed = Ruling(at=datetime.now(UTC), by="activation", verdict=Verdict.CHECK_FAILED)
    night.registry.write_record(
        NightRecord(
            version=version, night=night.date, verdict=Verdict.PROMOTE, champion=None, evaluated=version,
            cold_since=night.date, start="cold", trained_until={}, lags={}, checks=(), findings={},
            accepted=(), seconds=0.0, rulings=(failed,) * failed_before,
        )
    )  # fmt: skip
    night.registry.activate(version, why=f"night of {night.date}: PROMOTE")
    assert end().verdict is Verdict.CHECK_FAILED
    assert night.registry.current() == older
    night.registry.activate(version, why="by hand")
    assert end() == Ending(live=True), "who activates by hand has the last word"


def test_a_version_that_no_server_answers_with_is_never_live(night, bundle_folder, older, end, make_config):
    object.__setattr__(night, "config", make_config(publish={"check": True, "check_s": 0.01}))
    ending = end()
    assert (ending.live, ending.verdict, ending.verdict.exit_code) == (False, Verdict.CHECK_FAILED, 15)
    assert "did not go live: a server did not answer with it within [publish] check_s" in ending.reason
    with closing(open_store(night.config.store, night.runs)) as store:
        assert (night.registry.current(), store.current()) == (older, older)


@pytest.mark.usefixtures("stubborn")
def test_a_store_that_has_lost_the_users_of_the_version_before_stops_no_rollback(night, older, end):
    (night.runs / "store" / f"base-{older}.sqlite").unlink()
    ending = end()
    assert (night.registry.current(), ending.verdict) == (older, Verdict.CHECK_FAILED)
    assert f"; users of {older}: the store has no users of {older}" in ending.reason
