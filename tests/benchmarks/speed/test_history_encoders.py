"""The cost of encoders is that of nights and servers: rows share sequences, every encoder has a line."""

from benchmarks.speed import history_encoders
from recsys.model.sequence import ENCODERS


def test_rows_of_an_instant_share_a_sequence(monkeypatch):
    monkeypatch.setattr(history_encoders, "USERS", 3)
    index = history_encoders.histories(5, sequences=True)
    assert index.item_E.numel() == 3 * 8 * 5
    assert index.sequences.count_C.tolist() == [5, 5] * 3, "at full length the second instant begins later"


def test_every_encoder_has_a_line_for_each_length(monkeypatch, capsys):
    for name, value in (("USERS", 2), ("ITEMS", 30), ("EVENTS", (3, 6))):
        monkeypatch.setattr(history_encoders, name, value)
    history_encoders.main(1, 1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"{events} events, {name}" for events in (3, 6) for name in ("attention", *ENCODERS)
    ]
