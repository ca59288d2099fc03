"""What the machine refuses a night is a sentence, and what is a bug stays one."""

import dataclasses
import errno
import os
import signal
import time
from datetime import date

import polars as pl
import pytest
import torch

from recsys.cli import INTERRUPTED, run
from recsys.errors import BundleError, DataError, RegistryError, StoreError
from recsys.log import InteractionLog
from recsys.scratch import scratch_folder
from training.night import nights
from training.night.failures import told
from training.night.litter import collect_litter
from training.night.night import Night
from training.night.run import run_night

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/runs/registry/records/v1.json")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FULL, "stage record: /runs/registry/records/v1.json: No space left on device; free the disk"),
        (pl.exceptions.ComputeError("disk (os error 28)"), r"stage record:.*os error 28.*free the disk"),
        (MemoryError(), "stage record: there is not enough memory; lower .training. batch_size"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "there is not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "there is not enough memory"),
    ],
)
def test_what_the_machine_refuses_is_named_with_its_stage(error, said):
    with pytest.raises(DataError, match=said) as caught, told("record"):
        raise error
    assert str(caught.value).endswith("run the same command again: it goes on from there")


@pytest.mark.parametrize(
    "error", [StoreError("down"), RuntimeError("bug"), KeyError("x"), pl.exceptions.ColumnNotFoundError("b")]
)
def test_all_else_stays_what_it_is(error):
    with pytest.raises(type(error)) as caught, told("record"):
        raise error
    assert caught.value is error


def test_sigterm_ends_a_night_as_ctrl_c_does_and_only_a_night(monkeypatch, tmp_path, capsys):
    before = signal.getsignal(signal.SIGTERM)

    def ended(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)
        yield from ()

    monkeypatch.setattr(nights, "run_nights", ended)
    where = ["--log", str(tmp_path), "--runs", str(tmp_path), "--date", "2026-01-29"]
    assert run(["nightly", *where]) == INTERRUPTED
    assert "recsys nightly: interrupted; nothing half-written stays, run it again" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.fixture
def toy(make_config, tmp_path):
    """Give a night whose log has a day."""
    log = InteractionLog(tmp_path / "log")
    (tmp_path / "log" / "impressions" / "date=2026-01-29").mkdir(parents=True)
    return Night(config=make_config(), log=log, runs=tmp_path / "runs", date=date(2026, 1, 29))


def test_a_store_that_is_down_stops_a_night_before_it_works(toy, make_config):
    store = {"url": "redis://127.0.0.1:1", "connect_timeout_ms": 100}
    down = dataclasses.replace(toy, config=make_config(store=store))
    with pytest.raises(StoreError):
        run_night(down)
    assert not (toy.runs / "stages").exists()


def test_a_version_without_its_record_stops_a_night_with_the_file_and_the_remedy(toy):
    version = "2026-01-28-0123456789ab"
    toy.registry.path(version).mkdir(parents=True)
    (toy.registry.path(version) / "manifest.json").write_text("{}")
    toy.registry.folder.mkdir()
    (toy.registry.folder / "CURRENT").write_text(f"{version}\n")
    with pytest.raises(RegistryError, match=r"28-0123456789ab.json is missing: .*restore the file"):
        toy.registry.require_record(version)
    with pytest.raises(BundleError, match="writes a damaged bundle again from its stages"):
        run_night(toy)


@pytest.mark.parametrize("moved_s", [-86_400.0, 86_400.0])
def test_a_clock_that_moved_changes_nothing_of_what_leases_and_litter_protect(toy, monkeypatch, moved_s):
    registry = toy.registry
    registry.write_lease("server", "v1")
    scratch = toy.runs / "stages" / "train"
    scratch.mkdir(parents=True)
    with scratch_folder(scratch, "tmp") as own:
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + moved_s)
        collect_litter(toy.runs)
        assert own.is_dir(), "a process that lives holds its lock, whatever the time"
        assert registry.leased() == ({"v1"} if moved_s < 0 else set())
        registry.write_lease("server", "v1")
        file = registry.folder / "leases" / "server.json"
        os.utime(file, (real() + moved_s, real() + moved_s))
        assert registry.leased() == {"v1"}
