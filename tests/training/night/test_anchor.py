"""The anchor of a night, its attempts, and holds in a row: read from records."""

import shutil
from datetime import date, timedelta

import numpy as np
import pytest

from recsys.records import Activation, NightRecord, Ruling, Verdict
from recsys.registry import Registry
from recsys.retention import why_kept
from training.gate import Decision
from training.night.anchor import anchor_before, anchors_to_come
from training.night.night import NightResult
from training.night.tries import attempts, holds_in_row

LAST = date(2026, 1, 30)


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path)


def night(registry, ago, value=None, verdict=Verdict.PROMOTE, version=None, refit=None, **more):
    """Leave the records, and an empty bundle, of the night some days ago."""
    day = LAST - timedelta(days=ago)
    version = version or f"{day}-evaluated"
    for name in (version, *((refit,) if refit else ())):
        folder = registry.path(name)
        folder.mkdir(parents=True)
        (folder / "manifest.json").touch()
        record = NightRecord(
            version=name, night=day, verdict=verdict, champion=None, evaluated=version, cold_since=day,
            start="cold", trained_until={}, lags={}, checks=(), findings={}, accepted=(), seconds=0.0,
            list_value=value, **more,
        )  # fmt: skip
        registry.write_record(record)
    return version


def test_the_anchor_is_the_promoted_night_with_the_best_lists_of_the_days_before(registry):
    night(registry, 40, 0.9)
    best = night(registry, 20, 0.5, refit="2026-01-10-refit")
    night(registry, 10, 0.6, verdict=Verdict.HOLD)
    night(registry, 5, None)
    night(registry, 2, 0.7, known_until="2026-01-28T12:00:00Z")
    champion = night(registry, 1, 0.4)
    night(registry, 0, 0.8)
    assert anchor_before(registry, LAST, champion, 28) == best
    assert anchor_before(registry, LAST, best, 28) is None, "it is the champion"
    assert anchor_before(registry, LAST, champion, 60) == "2025-12-21-evaluated"


def test_what_was_rolled_back_or_is_gone_is_no_anchor(registry):
    night(registry, 20, 0.5, refit="2026-01-10-refit")
    gone = night(registry, 15, 0.45)
    third = night(registry, 12, 0.3)
    rolled = Activation(version="x", previous="2026-01-10-refit", at=0.0, rollback=True)
    registry.activations.append(rolled)
    (registry.path(gone) / "manifest.json").unlink()
    assert anchor_before(registry, LAST, "champion", 28) == third


def test_what_a_night_keeps_is_the_anchor_of_every_night_to_come(registry, tmp_path):
    """Nights of random value, of which all but three newest and the anchors go: as if all had been kept."""
    values = np.random.default_rng(4).normal(size=60)
    whole, anchors, kept = Registry(tmp_path / "whole"), set(), []
    for ago, value in zip(range(59, -1, -1), values, strict=True):
        today = LAST - timedelta(days=ago)
        expected = anchor_before(whole, today, None, 28)
        assert anchor_before(registry, today, None, 28) == expected
        anchors.add(expected)
        for each in (whole, registry):
            night(each, ago, value, refit=f"{today}-refit")
        held = why_kept(registry, 3, anchors_to_come(registry, 28))
        for version in set(registry.versions()) - set(held):
            shutil.rmtree(registry.path(version))
        kept.append(len(registry.versions()))
    assert len(anchors) > 4
    assert max(kept) < 3 * 2 + 12


def test_attempts_are_the_bundles_evaluated_on_a_nights_labels(registry):
    night(registry, 0, refit="r")
    night(registry, 0, version="second", verdict=Verdict.HOLD)
    night(registry, 0, version="at-noon", known_until="2026-01-30T12:00:00Z")
    assert (attempts(registry, LAST), attempts(registry, LAST - timedelta(days=1))) == (2, 0)


def test_holds_in_a_row_end_at_a_night_that_went_live(registry):
    for ago in (5, 4):
        night(registry, ago, verdict=Verdict.HOLD)
    night(registry, 3, refit="live")
    night(registry, 2, verdict=Verdict.HOLD_UNDERPOWERED)
    night(registry, 2, version="again", verdict=Verdict.HOLD)
    version = night(registry, 1, refit="2026-01-29-a")
    night(registry, 0, verdict=Verdict.HOLD)
    assert holds_in_row(registry, LAST) == 1
    held = Ruling(at="2026-01-29T05:00:00Z", by="activation", verdict=Verdict.HOLD)
    registry.write_record(registry.record("2026-01-29-a").ruled(held))
    assert registry.record(version).verdict is Verdict.PROMOTE
    assert holds_in_row(registry, LAST) == 3
    assert holds_in_row(registry, LAST - timedelta(days=4)) == 2
    assert holds_in_row(registry, LAST - timedelta(days=3)) == 0


@pytest.mark.parametrize(
    ("verdict", "holds", "code"),
    [
        (Verdict.PROMOTE, 0, 0),
        (Verdict.HOLD, 2, 10),
        (Verdict.HOLD_UNDERPOWERED, 3, 14),
        (Verdict.HOLD, 4, 14),
        (Verdict.CHECK_FAILED, 3, 15),
    ],
)
def test_three_holds_in_a_row_have_an_exit_code_of_their_own(verdict, holds, code):
    made = NightResult.__new__(NightResult)
    values = {"decision": Decision(verdict=verdict, champion=None, challenger="v", checks=()), "ending": None}
    for name, value in {**values, "holds_in_row": holds}.items():
        object.__setattr__(made, name, value)
    assert made.exit_code == code
