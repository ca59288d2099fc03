"""What goes live by hand has its users in the store: there, published again, or refused."""

import shutil
import subprocess
import sys
from contextlib import closing
from datetime import UTC, date, datetime

import pytest

from features.store import open_store
from recsys.cli import run
from recsys.config import StoreConfig
from recsys.errors import MissingUsersError, RegistryError, StoreError
from recsys.records import Activation, NightRecord, Verdict
from recsys.registry import Registry
from recsys.stages import write_json
from training.republish import ensure_users


@pytest.fixture
def registry(bundle_folder, shop_chain, tmp_path):
    """Give the registry of a runs folder with a bundle, and with the features it was written of."""
    runs, features = tmp_path / "runs", shop_chain[4].path
    shutil.copytree(bundle_folder, runs / "bundles" / bundle_folder.name)
    stages = runs / "stages"
    (stages / "features").mkdir(parents=True)
    (stages / "features" / features.name).symlink_to(features)
    said = {"version": bundle_folder.name, "inputs": {"inputs": {"days": features.name}}}
    (stages / "bundle" / "x").mkdir(parents=True)
    write_json(stages / "bundle" / "x" / "manifest.json", said)
    return Registry(runs)


@pytest.fixture
def version(bundle_folder):
    return bundle_folder.name


@pytest.fixture
def store(registry):
    with closing(open_store(StoreConfig(), registry.runs)) as opened:
        yield opened


def test_users_that_are_there_are_not_written_again_and_lost_ones_are(store, registry, version, shop_chain):
    assert ensure_users(store, registry, version) > 20
    assert ensure_users(store, registry, version) is None
    (known,) = store.get_many(version, shop_chain[4].table("users")["user_id"].head(1).to_list())
    assert known.base is not None


def test_a_version_whose_features_are_gone_is_refused(store, registry, version):
    shutil.rmtree(registry.runs / "stages" / "bundle")
    said = rf"no users of {version}.*no features of its night any more; run `recsys nightly --date 2026-01-29"
    with pytest.raises(MissingUsersError, match=said):
        ensure_users(store, registry, version)


def test_a_version_of_the_day_has_the_users_of_the_one_it_went_on_from(store, registry, version):
    record = NightRecord(
        version="2026-01-29-update", night=date(2026, 1, 29), verdict=Verdict.PROMOTE, champion=version,
        evaluated=version, cold_since=date(2026, 1, 29), start="update", trained_until={}, lags={}, checks=(),
        findings={}, accepted=(), seconds=1.0, known_until=datetime(2026, 1, 30, 9, tzinfo=UTC),
    )  # fmt: skip
    registry.write_record(record)
    ensure_users(store, registry, version)
    assert ensure_users(store, registry, record.version) == 0
    store.get_many(record.version, ())


def test_users_that_both_have_lost_come_from_the_night(store, registry, version, shop_chain):
    """Another version's stage, which wrote of other features, lies beside it."""
    shutil.copytree(registry.bundles / version, registry.bundles / "2026-01-29-update")
    record = NightRecord(
        version="2026-01-29-update", night=date(2026, 1, 29), verdict=Verdict.PROMOTE, champion=version,
        evaluated=version, cold_since=date(2026, 1, 29), start="update", trained_until={}, lags={}, checks=(),
        findings={}, accepted=(), seconds=1.0, known_until=datetime(2026, 1, 30, 9, tzinfo=UTC),
    )  # fmt: skip
    registry.write_record(record)
    stages, other = registry.runs / "stages", shop_chain[0].path
    (stages / "features" / other.name).symlink_to(other)
    for number in range(3):
        (stages / "bundle" / f"a{number}").mkdir()
        said = {"version": "another", "inputs": {"inputs": {"days": other.name}}}
        write_json(stages / "bundle" / f"a{number}" / "manifest.json", said)
    assert ensure_users(store, registry, record.version) == shop_chain[4].table("users").height


def test_the_commands_publish_lost_users_again(registry, version, capsys):
    where = ["--runs", str(registry.runs)]
    assert run(["bundle", "activate", version, *where, "--reason", "the newer one is slow"]) == 0
    assert f"{version}: the store had lost its users, and has them again" in capsys.readouterr().err
    (line,) = registry.activations.read()
    assert (line.version, line.why) == (version, "the newer one is slow")


def test_a_store_that_is_down_refuses_an_activation_and_lets_a_rollback_through(
    registry, version, tmp_path, capsys
):
    config = tmp_path / "c.toml"
    task = '[[task]]\nname = "click"\nfeedback = "click"\nhead = "binary"\nwindow = "1h"\n'
    config.write_text(f'{task}[store]\nurl = "redis://127.0.0.1:1/0"\n')
    where = ["--runs", str(registry.runs), "--config", str(config)]
    assert run(["bundle", "activate", version, *where]) == StoreError.exit_code
    assert registry.current() is None
    for entry in (
        Activation(version=version, previous=None, at=0.0),
        Activation(version="b", previous=version, at=0.0),
    ):
        registry.folder.mkdir(parents=True, exist_ok=True)
        registry.activations.append(entry)
    (registry.folder / "CURRENT").write_text("b\n")
    assert run(["bundle", "rollback", *where]) == 0
    captured = capsys.readouterr()
    assert f"whether the store has the users of {version} cannot be told" in captured.err
    assert f"{version} is live again (before: b)" in captured.out


@pytest.mark.parametrize("command", [["rollback"], ["unpin", "v1"]])
def test_a_folder_that_is_not_there_is_named_and_not_made(tmp_path, capsys, command):
    assert run(["bundle", *command, "--runs", str(tmp_path / "no")]) == RegistryError.exit_code
    assert f"there is no folder {tmp_path / 'no'}" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_a_rollback_does_not_wait_for_torch_nor_polars(store, registry, version):
    """Importing them was most of a rollback's time."""
    ensure_users(store, registry, version)
    registry.activate(version)
    registry.activations.append(Activation(version="b", previous=version, at=1.0))
    (registry.folder / "CURRENT").write_text("b\n")
    code = (
        "import sys; from recsys.cli import run; "
        f"code = run(['bundle', 'rollback', '--runs', {str(registry.runs)!r}]); "
        "print(code, {'torch', 'polars', 'dataframely', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{version} is live again (before: b)\n0 set()\n"
