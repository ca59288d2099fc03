"""What the machine refuses a night is a sentence, and what is a bug stays one."""

import errno
import os
import signal

import polars as pl
import pytest
import torch

from recsys.cli import INTERRUPTED, run
from recsys.errors import DataError, StoreError
from training.night import nights
from training.night.failures import told

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
