"""Which days made a bundle: trained, calibrated, chose its settings, or let it go live."""

import json
import shutil
from datetime import UTC, date, datetime

import pytest

from recsys.bundle import CONFIG_KEYS
from recsys.cli import run
from recsys.config import parse_config
from recsys.config_view import values, view
from recsys.records import NightRecord
from recsys.registry import Registry
from training.evaluation.evaluate import evaluate, evaluated_periods
from training.evaluation.leaks import LeakCheck

NIGHT = date(2026, 1, 28)


@pytest.mark.parametrize(
    ("refitted", "day", "training", "calibration"),
    [
        (False, 26, True, False),
        (False, 27, False, True),
        (False, 28, False, False),
        (True, 28, True, False),
        (True, 29, False, False),
    ],
)
def test_a_bundle_knows_the_days_it_has_seen(predictor, config, refitted, day, training, calibration):
    manifest = predictor.bundle.manifest.model_copy(update={"date": str(NIGHT), "refitted": refitted})
    scored = date(2026, 1, day)
    check = LeakCheck.of(manifest, config, {"click": [scored]})
    assert bool(check.overlaps_training) == training
    assert bool(check.overlaps_calibration) == calibration
    assert check.clean == (not training and not calibration)
    assert any("overlaps training" in warning for warning in check.warnings()) == training


def test_a_head_with_a_lag_is_flattered_by_days_that_other_heads_trained(predictor, config):
    """Rating waits a day: it was trained up to the 25th, click up to the 26th."""
    manifest = predictor.bundle.manifest.model_copy(update={"date": str(NIGHT), "refitted": False})
    check = LeakCheck.of(manifest, config, {"rating": [date(2026, 1, 26)]})
    assert (check.overlaps_training, check.overlaps_shared) == ((), (date(2026, 1, 26),))
    nightly = LeakCheck.of(manifest, config, {"click": [NIGHT], "rating": [date(2026, 1, 27)]})
    assert nightly.clean


def test_weekly_periods_leak_by_the_week(predictor, make_config):
    manifest = predictor.bundle.manifest.model_copy(update={"date": "2026-01-28", "refitted": False})
    weekly = make_config(
        period="P1W", task=[{"name": "click", "feedback": "click", "head": "binary", "window": "1h"}]
    )
    check = LeakCheck.of(manifest, weekly, {"click": [date(2026, 1, 18), date(2026, 1, 25)]})
    assert check.trained_until == date(2026, 1, 18)
    assert check.overlaps_training == (date(2026, 1, 18),)
    assert check.overlaps_calibration == (date(2026, 1, 25),)


def _record(verdict="PROMOTE", **fields):
    known = {
        "version": "v", "night": NIGHT, "champion": None, "evaluated": "v", "cold_since": NIGHT,
        "start": "cold", "trained_until": {}, "lags": {"click": 0, "rating": 1}, "checks": (),
        "findings": {}, "accepted": (), "seconds": 1.0,
    }  # fmt: skip
    return NightRecord(**known | {"verdict": verdict} | fields)


@pytest.mark.parametrize(
    ("record", "days"),
    [
        (_record(gated={"click": date(2026, 1, 28), "rating": date(2026, 1, 26)}), [26, 28]),
        (_record(), [27, 28]),
        (_record(gated={"click": NIGHT}, compared_until=datetime(2026, 1, 30, tzinfo=UTC)), [28, 29]),
        (_record("HOLD", gated={"click": NIGHT}), []),
        (None, []),
    ],
    ids=["recorded", "an earlier release", "an update", "held", "the gate itself"],
)
def test_a_bundle_knows_the_days_on_which_a_gate_promoted_it(predictor, config, record, days):
    scored = {"click": [date(2026, 1, day) for day in range(26, 31)]}
    check = LeakCheck.of(predictor.bundle.manifest, config, scored, record)
    assert [day.day for day in check.promoted] == days
    warned = [w for w in check.warnings() if w.startswith("the gate's day: the bundle went live")]
    assert len(warned) == bool(days)
    assert all(f"score days after 2026-01-{days[-1]}" in w for w in warned)


def test_an_update_has_learned_of_the_day_up_to_its_instant(predictor, config):
    manifest = predictor.bundle.manifest.model_copy(update={"date": str(NIGHT), "refitted": True})
    scored = {"click": [date(2026, 1, 29), date(2026, 1, 30)]}
    update = _record(known_until=datetime(2026, 1, 29, 6, tzinfo=UTC))
    assert LeakCheck.of(manifest, config, scored, _record()).overlaps_training == ()
    assert LeakCheck.of(manifest, config, scored, update).overlaps_training == (date(2026, 1, 29),)


def test_a_bundle_knows_the_days_that_chose_its_settings(predictor, make_config):
    """`[chosen]` of the config travels in the manifest."""
    config = make_config(chosen={"model_days": ["2026-01-27"], "fusion_days": ["2026-01-29", "2026-01-30"]})
    assert parse_config(values(view(config, "a bundle", CONFIG_KEYS)), "x").chosen == config.chosen
    manifest = predictor.bundle.manifest.model_copy(update={"date": "2026-01-20"})
    check = LeakCheck.of(manifest, config, {"click": [date(2026, 1, day) for day in (26, 27, 29, 31)]})
    assert check.chose == {"settings": (date(2026, 1, 27),), "the score's weights": (date(2026, 1, 29),)}
    assert [w.split(":")[0] for w in check.warnings()] == ["chose settings", "chose the score's weights"]
    assert not check.clean
    assert LeakCheck.of(manifest, config, {"click": [date(2026, 1, 31)]}).clean


def test_the_warning_is_in_the_report(predictor, shop_chain, config):
    evaluated = evaluated_periods(shop_chain, config.tasks, shop_chain[2].day, shop_chain[2].day)
    report = evaluate(predictor, shop_chain, evaluated, max_users=2)
    assert report.leaks.overlaps_training == (shop_chain[2].day,)
    assert report.warnings[0].startswith("overlaps training")


def test_the_command_knows_the_gate_of_the_night(bundle_folder, shop_log, tmp_path):
    runs, version, day = tmp_path / "runs", bundle_folder.name, "2026-01-30"
    shutil.copytree(bundle_folder.parent.parent, runs)
    night = date.fromisoformat(day)
    record = _record(version=version, night=night, evaluated=version, gated={"click": night})
    Registry(runs).write_record(record)
    where = ["--runs", str(runs), "--log", str(shop_log.root), "--json", str(tmp_path / "e.json")]
    span = ["--bundle", version, "--from", day, "--to", day, "--users", "5", "--no-baselines"]
    assert run(["evaluate", *where, *span]) == 0
    said = json.loads((tmp_path / "e.json").read_text())
    assert said["leaks"]["promoted"] == [day]
    assert any("went live because of its figures on 2026-01-30" in w for w in said["warnings"])
