"""What a night prints: remedies name config sections, which look like rich's markup."""

from types import SimpleNamespace

from recsys.records import Check, Verdict
from training.console import print_night


def test_a_remedy_keeps_the_section_that_it_names(capsys):
    check = Check(name="labels", outcome=Verdict.HOLD, detail="lower [gate] min_rows", numbers={})
    night = SimpleNamespace(
        decision=SimpleNamespace(checks=(check,), power=()), attempts=1, live=None, version=None,
        promoted="v2", ending=SimpleNamespace(reason="not within [publish] check_s"), date="2026-01-30",
        verdict=Verdict.HOLD, seconds=1.0, page=None,
    )  # fmt: skip
    print_night(night)
    said = capsys.readouterr().out
    assert "lower [gate] min_rows" in said
    assert "not within [publish] check_s" in said
