"""Arrays in files: pieces at the end or at their places, ranges of rows back."""

import numpy as np

from training.data.array_files import ArrayReader, ArrayWriter


def test_what_is_written_in_pieces_is_read_in_ranges(tmp_path):
    rows = np.arange(60, dtype=np.float32).reshape(20, 3)
    writer = ArrayWriter(tmp_path)
    writer.append("appended", rows[:7])
    writer.append("appended", rows[7:])
    writer.place("placed", rows[1::2], np.arange(1, 20, 2), 20)
    writer.place("placed", rows[::2], np.arange(0, 20, 2), 20)
    writer.place("narrow", np.zeros((20, 0), np.int32), slice(0, 20), 20)
    writer.append("none", np.zeros((0, 2)))
    writer.close({"day": "2026-01-05"})
    reader = ArrayReader(tmp_path)
    assert reader.said["day"] == "2026-01-05"
    bounds = np.array([[0, 2], [5, 6], [18, 20]])
    for name in ("appended", "placed"):
        np.testing.assert_array_equal(reader.read(name, bounds), rows[[0, 1, 5, 18, 19]])
        np.testing.assert_array_equal(reader.mapped(name), rows)
    assert reader.read("narrow", bounds).shape == (5, 0)
    assert reader.mapped("none").shape == (0, 2)


def test_a_placed_array_has_its_space_on_the_disk_from_the_start(tmp_path):
    """A mapped write to a full disk kills the process; reserving the space is an error with a reason."""
    ArrayWriter(tmp_path).place("one", np.ones(1), slice(0, 1), 1_000_000)
    status = (tmp_path / "one.bin").stat()
    assert status.st_blocks * 512 >= status.st_size == 8_000_000
