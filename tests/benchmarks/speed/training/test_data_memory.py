"""The bench of the data path's memory fits on, encodes, streams and scores every row that it wrote."""

from benchmarks.speed.training import data_memory


def test_every_row_is_encoded_streamed_and_scored(tmp_path, monkeypatch):
    for name, size in {"USERS": 40, "ITEMS": 30, "WRITTEN_AT_ONCE": 200}.items():
        monkeypatch.setattr(data_memory, name, size)
    data_memory.write_days(tmp_path, 450)
    found = data_memory.stream_day(tmp_path)
    assert found["rows"] == 450
    scored = data_memory.score_day(tmp_path)
    assert scored["scored_bytes_per_row"] > 40, "the rows that were scored"
    peaks = [value for name, value in (found | scored).items() if name.endswith("_mb")]
    assert len(peaks) == 13
    assert min(peaks) > 1, "each peak was seen"
