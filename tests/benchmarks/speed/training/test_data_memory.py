"""The bench of the data path fits on, encodes, streams and scores every row; no Python runs per row."""

import sys

import numpy as np
import pytest

from benchmarks.speed.training import data_memory


@pytest.fixture
def small(monkeypatch):
    for name, size in {"USERS": 40, "ITEMS": 30, "WRITTEN_AT_ONCE": 200}.items():
        monkeypatch.setattr(data_memory, name, size)


def test_every_row_is_encoded_streamed_and_scored(small, tmp_path):
    data_memory.write_days(tmp_path, 450)
    found = data_memory.stream_day(tmp_path)
    assert found["rows"] == 450
    scored = data_memory.score_day(tmp_path)
    assert scored["scored_bytes_per_row"] > 40, "the rows that were scored"
    peaks = [value for name, value in (found | scored).items() if name.endswith("_mb")]
    assert len(peaks) == 13
    assert min(peaks) > 1, "each peak was seen"


def test_fitting_encoding_and_streaming_call_no_function_per_row(small, tmp_path):
    """Ten times the rows in as many pieces and batches: a loop over rows would call ten times as much."""
    calls = {}
    for rows in (200, 200, 2000):  # first calls import and cache
        folder = tmp_path / f"{rows}-{len(list(tmp_path.iterdir()))}"
        data_memory.write_days(folder, rows)
        calls[rows] = _calls(lambda folder=folder: data_memory.stream_day(folder))
    assert calls[2000] < 1.2 * calls[200]


def _calls(work):
    """Count the functions of Python and of C that this thread calls."""
    count = np.zeros(1, np.int64)

    def see(_frame, event, _arg):
        count[0] += event in ("call", "c_call")

    sys.setprofile(see)
    try:
        work()
    finally:
        sys.setprofile(None)
    return int(count[0])
