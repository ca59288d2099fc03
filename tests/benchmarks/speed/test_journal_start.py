from benchmarks.speed import journal_start
from benchmarks.speed.journal_start import JournalShape, measure_journal


def test_a_small_journal_is_started_from_and_followed(monkeypatch):
    monkeypatch.setattr(journal_start, "READINGS", 20)
    monkeypatch.setattr(journal_start, "FILE_MS", 3_600_000)
    found = measure_journal(JournalShape(days=4, requests=96, servers=2))
    assert found.num_files == 4 * 24 * 2
    # Of the two requests of a file one has feedback; a start reads three of the four days.
    assert 3 * 24 * 2 <= found.num_events <= 3 * 24 * 2 + 2 * 3, "and what ended within an hour of them"
    assert 0 < found.start_cpu_s < 60
    assert 0 < found.idle_share < 0.05
    assert 0 < found.answer_us < 10_000
