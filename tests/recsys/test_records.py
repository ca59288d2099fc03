"""A night's record: verdicts are added, the newest one counts."""

from datetime import UTC, date, datetime

import pytest

from recsys.records import NightRecord, Ruling, Verdict

PROMOTE, HOLD = Verdict.PROMOTE, Verdict.HOLD


@pytest.fixture
def record():
    return NightRecord(
        version="v1",
        night=date(2026, 1, 29),
        verdict=PROMOTE,
        champion=None,
        evaluated="v1",
        cold_since=date(2026, 1, 29),
        start="cold: nothing was live",
        trained_until={},
        lags={},
        checks=(),
        findings={},
        accepted=(),
        seconds=1.0,
    )


def ruling(by, verdict, *reasons, minute=0):
    at = datetime(2026, 1, 30, 3, minute, tzinfo=UTC)
    return Ruling(at=at, by=by, verdict=verdict, reasons=reasons)


def test_a_night_run_again_adds_nothing(record):
    once = record.ruled(ruling("gate", PROMOTE)).ruled(ruling("activation", PROMOTE))
    again = once.ruled(ruling("gate", PROMOTE, minute=9)).ruled(ruling("activation", PROMOTE, minute=9))
    assert again == once
    assert [r.by for r in once.rulings] == ["gate", "activation"]


@pytest.mark.parametrize(
    ("rulings", "verdict"),
    [
        ([("gate", PROMOTE)], PROMOTE),
        ([("gate", HOLD)], HOLD),
        ([("gate", PROMOTE), ("activation", HOLD)], HOLD),
        ([("gate", PROMOTE), ("activation", HOLD), ("gate", PROMOTE)], HOLD),
        ([("gate", PROMOTE), ("activation", HOLD), ("activation", PROMOTE)], PROMOTE),
        ([("gate", PROMOTE), ("activation", PROMOTE), ("gate", HOLD)], HOLD),
        ([("gate", HOLD), ("gate", PROMOTE)], PROMOTE),
    ],
)
def test_the_newest_verdict_counts_and_activation_has_the_last_word(record, rulings, verdict):
    for by, found in rulings:
        record = record.ruled(ruling(by, found))
    assert record.verdict is verdict
    assert NightRecord.parse(record.model_dump_json(), "here") == record


def test_other_reasons_are_news(record):
    held = record.ruled(ruling("gate", HOLD, "click")).ruled(ruling("gate", HOLD, "rating"))
    assert [r.reasons for r in held.rulings] == [("click",), ("rating",)]
