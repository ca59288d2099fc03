"""Registry: compare-and-set, a stack of rollbacks that survives crashes, locks and leases."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from datetime import date
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from recsys import registry as module
from recsys.bundle import BundleParts, save_bundle
from recsys.encoding import EncoderState
from recsys.errors import BundleError, RegistryError
from recsys.records import Check, NightRecord, Verdict
from recsys.registry import LEASE_S, SKEW_S, Registry


@pytest.fixture
def registry(tmp_path, config):
    """Give a registry of four versions: a, b, c and d by date."""
    made = Registry(tmp_path / "runs")
    for day in (1, 2, 3, 4):
        parts = BundleParts(
            date=f"2026-01-0{day}",
            parent=None,
            refitted=False,
            config=config,
            inputs={},
            encoder=EncoderState(vocabularies={}, numbers={}),
            calibration={},
            weights={"w": np.zeros(1, np.float32)},
            items=pl.DataFrame({"item_id": ["i"]}),
            item_embeddings_ID=np.ones((1, 2), np.float32),
            popular=pl.DataFrame({"item_id": ["i"]}),
            snapshot_at_ms=day,
        )
        save_bundle(made.bundles, parts, lambda _: pl.DataFrame({"user": []}))
    return made


@pytest.fixture
def versions(registry):
    return registry.versions()


def test_a_version_that_goes_while_activation_waits_does_not_go_live(registry, versions):
    wrong = []

    def activate():
        try:
            registry.activate(versions[0])
        except RegistryError as error:
            wrong.append(str(error))

    waiting = threading.Thread(target=activate)
    with registry.locked("activate"):
        waiting.start()
        time.sleep(0.3)
        shutil.rmtree(registry.path(versions[0]))
    waiting.join(10)
    assert "no bundle" in wrong[0]
    assert registry.current() is None


def test_versions_are_listed_oldest_first_without_a_killed_write(registry, versions):
    assert [v[:10] for v in versions] == ["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"]
    half = registry.bundles / ".bundle.1.tmp"
    half.mkdir()
    (half / "manifest.json").write_text("{}")
    (registry.bundles / "no-manifest").mkdir()
    assert registry.versions() == versions
    assert Registry(registry.runs / "nowhere").versions() == []


def test_nothing_is_live_before_the_first_activation(registry, versions):
    assert registry.current() is None
    with pytest.raises(RegistryError, match="nothing to roll back to: no bundle is live in "):
        registry.rollback()
    registry.activate(versions[0], expect=None)
    assert registry.current() == versions[0]
    with pytest.raises(RegistryError, match="first version that went live"):
        registry.rollback()


def test_activation_compares_and_sets(registry, versions):
    registry.activate(versions[0])
    with pytest.raises(RegistryError, match=f"'{versions[0]}' is live, not None"):
        registry.activate(versions[1], expect=None)
    with pytest.raises(RegistryError, match="is live, not"):
        registry.activate(versions[1], expect=versions[2])
    assert registry.current() == versions[0]
    registry.activate(versions[1], expect=versions[0])
    assert registry.current() == versions[1]


def test_an_unknown_version_lists_the_known(registry, versions):
    with pytest.raises(RegistryError, match=rf"no bundle '\.\./x' in .*{versions[-1]}"):
        registry.activate("../x")
    with pytest.raises(RegistryError, match="recsys nightly"):
        Registry(registry.runs / "empty").require("v")


def test_a_changed_manifest_never_goes_live(registry, versions):
    file = registry.path(versions[1]) / "manifest.json"
    file.write_text(file.read_text().replace('"refitted": false', '"refitted": true'))
    registry.activate(versions[0])
    with pytest.raises(BundleError, match="was changed"):
        registry.activate(versions[1])
    assert registry.current() == versions[0]


def test_a_folder_with_another_versions_files_never_goes_live(registry, versions):
    shutil.rmtree(registry.path(versions[0]))
    shutil.copytree(registry.path(versions[1]), registry.path(versions[0]))
    with pytest.raises(BundleError, match=f"{versions[0]} holds {versions[1]}; restore it"):
        registry.activate(versions[0])
    assert registry.current() is None


def test_a_damaged_file_never_goes_live(registry, versions):
    registry.activate(versions[0])
    weights = registry.path(versions[1]) / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(BundleError, match=r"weights\.safetensors differs"):
        registry.activate(versions[1])
    assert registry.current() == versions[0]


def test_rollback_goes_back_one_and_twice_goes_back_two(registry, versions):
    for version in versions[:3]:
        registry.activate(version)
    assert registry.rollback() == versions[1] == registry.current()
    assert registry.rollback() == versions[0] == registry.current()
    with pytest.raises(RegistryError):
        registry.rollback()


def test_after_a_rollback_the_next_activation_stands_on_what_is_live(registry, versions):
    for version in versions[:3]:
        registry.activate(version)
    registry.rollback()
    registry.activate(versions[3])
    assert registry.rollback() == versions[1]
    assert registry.rollback() == versions[0]


def test_activating_what_is_live_does_nothing(registry, versions):
    for version in (versions[0], versions[1], versions[1]):
        registry.activate(version)
    assert registry.rollback() == versions[0]


def _crash_before_the_pointer(registry, monkeypatch, act):
    def cut(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_replace_text", cut)
        with pytest.raises(KeyboardInterrupt):
            act(registry)


@pytest.mark.parametrize("crashes", [1, 2])
def test_a_crash_between_the_line_and_the_pointer_is_as_if_nothing_happened(
    registry, versions, monkeypatch, crashes
):
    registry.activate(versions[0])
    registry.activate(versions[1])
    for _ in range(crashes):
        _crash_before_the_pointer(registry, monkeypatch, lambda r: r.activate(versions[2]))
    assert registry.current() == versions[1]
    assert registry.rollback() == versions[0]


def test_a_version_that_never_went_live_is_never_rolled_back_to(registry, versions, monkeypatch):
    registry.activate(versions[0])
    _crash_before_the_pointer(registry, monkeypatch, lambda r: r.activate(versions[2]))
    registry.activate(versions[1])
    assert registry.rollback() == versions[0]


def test_a_rollback_that_crashed_can_be_repeated(registry, versions, monkeypatch):
    for version in versions[:3]:
        registry.activate(version)
    _crash_before_the_pointer(registry, monkeypatch, Registry.rollback)
    assert registry.current() == versions[2]
    assert registry.rollback() == versions[1]
    assert registry.rollback() == versions[0]


def test_a_torn_line_hides_neither_what_was_before_nor_what_comes_after(registry, versions):
    registry.activate(versions[0])
    registry.activate(versions[1])
    log = registry.folder / "activations.jsonl"
    log.write_bytes(log.read_bytes() + b'{"version": "2026-')
    assert registry.rollback() == versions[0]
    registry.activate(versions[2])
    assert registry.rollback() == versions[0]
    whole = [line for line in log.read_text().splitlines() if line.endswith("}")]
    assert len([json.loads(line) for line in whole]) == 5


def test_the_pointer_is_one_line_and_no_temporary_file_is_left(registry, versions):
    registry.activate(versions[0])
    assert (registry.folder / "CURRENT").read_text() == f"{versions[0]}\n"
    assert not list(registry.folder.glob(".*"))


def test_a_lock_that_is_held(registry):
    with registry.locked("nightly"):
        with pytest.raises(RegistryError, match=r"another process holds .*nightly\.lock"):
            registry.locked("nightly", wait=False).__enter__()
        with registry.locked("another name", wait=False):
            pass
    with registry.locked("nightly", wait=False):
        pass


HOLDER = """
import fcntl, sys, time
stream = open(sys.argv[1], "w")
fcntl.flock(stream, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_a_lock_dies_with_its_process(registry):
    registry.folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", HOLDER, str(registry.folder / "nightly.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(RegistryError, match="another process holds"):
            registry.locked("nightly", wait=False).__enter__()
        process.kill()
    with registry.locked("nightly", wait=False):
        pass


def test_a_lock_goes_with_an_error(registry):
    with pytest.raises(RuntimeError), registry.locked("nightly"):
        raise RuntimeError
    with registry.locked("nightly", wait=False):
        pass


def test_files_that_a_server_has_verified_are_not_read_again(registry, versions, monkeypatch):
    read = []
    monkeypatch.setattr("recsys.registry.verify_files", lambda path, manifest: read.append(path.name))
    registry.activate(versions[0])
    registry.activate(versions[1], verified=[versions[1]])
    assert registry.rollback(verified=[versions[0]]) == versions[0]
    assert read == [versions[0]]


def test_leases_of_living_servers_keep_their_versions(registry):
    assert registry.leased() == set()
    registry.write_lease("server-1", "v1")
    registry.write_lease("server-2", "v2", loaded=["v0"])
    registry.write_lease("server-3", None)
    assert registry.leased() == {"v0", "v1", "v2"}
    files = [json.loads(file.read_text()) for file in (registry.folder / "leases").iterdir()]
    assert {frozenset(file) for file in files} == {frozenset({"version", "pid"})}, (
        "older releases know no more"
    )
    registry.write_lease("server-2", "v0", loaded=["v2"])
    assert registry.leased() == {"v0", "v1", "v2"}
    dead = registry.folder / "leases" / "server-1.json"
    written = dead.stat().st_mtime
    os.utime(dead, (0, written - SKEW_S))
    assert registry.leased() == {"v0", "v1", "v2"}, "a clock five minutes off kills no server"
    os.utime(dead, (0, written - LEASE_S - SKEW_S - 1))
    assert registry.leased() == {"v0", "v2"}
    (registry.folder / "leases" / "server-2.json").write_text("torn")
    with pytest.raises(RegistryError, match=r"leases/server-2\.json holds no Lease"):
        registry.leased()


def test_a_swap_while_leases_are_read_hides_no_version(registry, monkeypatch):
    registry.write_lease("server-1", "v1", loaded=["v2"])
    swaps = iter([("v2", ["v1"]), ("v1", ["v2"])])

    def age_s(file):
        if swap := next(swaps, None):
            registry.write_lease("server-1", *swap)
        return 0.0

    monkeypatch.setattr("recsys.registry.age_s", age_s)
    assert registry.leased() == {"v1", "v2"}
    registry.write_lease("server-1", "v2")
    assert registry.leased() == {"v2"}


def test_the_leases_of_servers_dead_for_a_day_are_removed(registry):
    registry.write_lease("server-1", "v1")
    registry.write_lease("server-2", "v2")
    for name, age_s in (("server-1", 90_000), ("server-2", 80_000)):
        os.utime(registry.folder / "leases" / f"{name}.json", (0, time.time() - age_s))
    registry.write_lease("server-3", "v3")
    assert {path.stem for path in (registry.folder / "leases").iterdir()} == {"server-2", "server-3"}


def test_the_oldest_data_is_that_of_what_may_still_go_live(registry, versions):
    assert registry.oldest_data_end_ms(1) is None  # nothing was promoted, nothing is live
    registry.activate(versions[1])
    assert registry.kept(1) == {versions[1]}
    registry.write_lease("server-1", versions[0])
    assert registry.kept(1) == {versions[0], versions[1]}
    assert registry.oldest_data_end_ms(1) == 1
    (registry.path(versions[0]) / "manifest.json").write_text("{}")
    assert registry.oldest_data_end_ms(1) == 2


def test_a_day_of_updates_leaves_what_can_be_rolled_back_to(registry, monkeypatch):
    """Versions of one night are in no order of time: the one before the live one may be the first by name."""
    updates = {f"2026-01-29-u{n:02d}": 29 for n in range(24)}
    nights = {f"2026-01-{day}-{kind}": day for day in (26, 27, 28, 29) for kind in ("evaluated", "live")}
    held = {"2026-01-28-held": 28}
    made = updates | nights | held
    records = {
        v: SimpleNamespace(night=date(2026, 1, day), verdict=Verdict.HOLD if v in held else Verdict.PROMOTE)
        for v, day in made.items()
    }
    monkeypatch.setattr(Registry, "versions", lambda _: sorted(made))
    monkeypatch.setattr(Registry, "record", lambda _, version: records[version])
    assert registry.kept(2) == {*updates, *(v for v, day in nights.items() if day >= 28)}
    registry.write_lease("server-1", "2026-01-26-live")
    assert "2026-01-26-live" in registry.kept(2)


def test_records_lie_beside_the_bundle(registry, versions):
    assert registry.record(versions[0]) is None
    before = sorted(registry.path(versions[0]).iterdir())
    record = _record(versions[0])
    registry.write_record(record)
    assert registry.record(versions[0]) == record == registry.require_record(versions[0])
    assert sorted(registry.path(versions[0]).iterdir()) == before


def test_a_record_that_is_needed_and_missing_is_named(registry, versions):
    with pytest.raises(RegistryError, match=rf"records/{versions[0]}\.json is missing.*restore the file"):
        registry.require_record(versions[0])


@pytest.mark.parametrize(
    ("text", "said"),
    [('{"version": "v", "ni', "Invalid JSON"), ('{"verdict": "PROMOTE"}', "version: Field required"),
     ("[]", "should be an object")],
)  # fmt: skip
def test_a_torn_or_foreign_record_is_an_error_that_names_the_file(registry, versions, text, said):
    registry.write_record(_record(versions[0]))
    (registry.folder / "records" / f"{versions[0]}.json").write_text(text)
    with pytest.raises(RegistryError, match=rf"{versions[0]}\.json holds no NightRecord.*{said}"):
        registry.record(versions[0])


def test_a_foreign_activation_is_an_error_that_names_the_line(registry, versions):
    for version in versions[:2]:
        registry.activate(version)
    with (registry.folder / "activations.jsonl").open("a") as stream:
        stream.write('{"who": "somebody"}\n')
    with pytest.raises(RegistryError, match=r"activations\.jsonl, line 3, holds no Activation"):
        registry.rollback()


def _record(version):
    check = Check(name="click AUC", outcome=Verdict.PROMOTE, detail="0.7", numbers={"auc": 0.7})
    return NightRecord(
        version=version,
        night=date(2026, 1, 4),
        verdict=Verdict.PROMOTE,
        champion=None,
        evaluated=version,
        cold_since=date(2026, 1, 1),
        start="cold: nothing was live",
        trained_until={"click": date(2026, 1, 2)},
        lags={"click": 0},
        checks=(check,),
        findings={"warning": 1},
        accepted=("drift@2026-01-03",),
        seconds=1.5,
    )
