"""What Polars prints when it panics over a damaged file stays away from people; all else is passed on."""

import os

import polars as pl
import pytest

from features.sources.mapped.files import ScannedFile, reading
from features.sources.mapped.mapping import Files
from features.sources.mapped.panics import quiet_panics
from recsys.errors import DataError


def write_and_raise(error: BaseException) -> None:
    os.write(2, b"thread 'x' panicked at file.rs:1\n")
    raise error


def read(file: ScannedFile, error: BaseException) -> None:
    with reading([file]):
        write_and_raise(error)


def test_a_panic_is_a_sentence_and_its_backtrace_is_gone(tmp_path, capfd):
    file = ScannedFile(tmp_path / "x.parquet", pl.LazyFrame(), pl.Schema(), Files(), "parquet")
    with pytest.raises(DataError, match=r"x.parquet cannot be read as parquet .it is damaged.*; restore it"):
        read(file, pl.exceptions.PanicException("called `Result::unwrap()` on an `Err` value"))
    assert capfd.readouterr().err == ""


def test_other_output_comes_after_the_block(tmp_path, capfd):
    with quiet_panics():
        os.write(2, b"a warning\n")
        assert capfd.readouterr().err == ""
    assert capfd.readouterr().err == "a warning\n"
    file = ScannedFile(tmp_path / "x.parquet", pl.LazyFrame(), pl.Schema(), Files(), "parquet")
    with pytest.raises(ZeroDivisionError):
        read(file, ZeroDivisionError())
    assert "panicked" in capfd.readouterr().err
