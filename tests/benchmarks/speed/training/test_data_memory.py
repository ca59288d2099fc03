"""The bench of the data path's memory encodes and streams every row that it wrote."""

from benchmarks.speed.training import data_memory


def test_every_row_is_encoded_and_streamed(tmp_path, monkeypatch):
    for name, size in {"USERS": 40, "ITEMS": 30, "WRITTEN_AT_ONCE": 200}.items():
        monkeypatch.setattr(data_memory, name, size)
    data_memory.write_days(tmp_path, 450)
    found = data_memory.stream_day(tmp_path)
    assert found["rows"] == 450
    peaks = [value for name, value in found.items() if name.endswith("_mb")]
    assert len(peaks) == 5
    assert min(peaks) > 1, "each peak was seen"
