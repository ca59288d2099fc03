"""Rows taken from a frame in files are those of the frame itself, types and nulls included."""

import math
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from safetensors.numpy import save_file

from recsys.mapped_frame import FrameInMemory, MappedFrame, write_frame
from recsys.mapped_tensors import map_array, map_tensors

FRAME = pl.DataFrame(
    {
        "text": ["a", None, "äö", ""],
        "no_text": pl.Series([None] * 4, dtype=pl.String),
        "whole": [1, None, 3, 4],
        "small": pl.Series([1, 2, 3, 4], dtype=pl.UInt8),
        "number": [0.5, 1.5, None, math.nan],
        "flag": [True, None, False, True],
        "at": pl.Series([datetime(2026, 1, 1, tzinfo=UTC), None, None, None], dtype=pl.Datetime("ms", "UTC")),
        "day": [date(2026, 1, 1)] * 4,
        "texts": [["a"], None, [], ["b", "c"]],
        "nothing": [None] * 4,
    }
)


@pytest.mark.parametrize("frame", [FRAME, FRAME.clear()], ids=["four rows", "no row"])
def test_rows_are_the_frames_own(frame, tmp_path: Path) -> None:
    write_frame(frame, tmp_path)
    mapped, plain = MappedFrame.open(tmp_path), FrameInMemory(frame)
    assert (mapped.columns, mapped.height) == (plain.columns, plain.height)
    for rows in ([0, None, 3, 2, 1, 0], [None], []) if frame.height else ([None], []):
        assert_frame_equal(mapped.rows(rows), plain.rows(rows))
        assert_frame_equal(mapped.rows(rows, ["whole", "text"]), plain.rows(rows, ["whole", "text"]))
    for row in range(frame.height):
        assert mapped.text("text", row) == plain.text("text", row) == frame["text"][row]
        assert mapped.text("no_text", row) is None


def test_tensors_are_mapped_and_what_is_written_stays_in_this_process(tmp_path: Path) -> None:
    tensors = {
        "floats": np.arange(6, dtype=np.float32).reshape(2, 3),
        "whole": np.arange(3),
        "none": np.zeros((0, 4), np.float32),
    }
    file = tmp_path / "x.safetensors"
    save_file(tensors, file)
    mapped = map_tensors(file)
    assert mapped.keys() == tensors.keys()
    for name, values in tensors.items():
        np.testing.assert_array_equal(mapped[name], values, strict=True)
    mapped["floats"][0, 0] = 9
    assert map_tensors(file)["floats"][0, 0] == 0
    np.save(tmp_path / "x.npy", tensors["floats"])
    np.testing.assert_array_equal(map_array(tmp_path / "x.npy"), tensors["floats"])


def test_another_file_is_no_safetensors_file(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match="no safetensors file: its header has"):
        map_tensors(file)
    header = b'{"x":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}'
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"0")
    with pytest.raises(ValueError, match="x is of type F8_E4M3; known: F64"):
        map_tensors(file)
