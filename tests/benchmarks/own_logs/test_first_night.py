"""A first night on each kind of log that people have, with the defaults that `convert` writes."""

import pytest

from benchmarks.own_logs.made import write_log
from features.sources.to_log import convert_own
from recsys.bundle import load_bundle
from recsys.calibration import is_fitted
from recsys.config import load_config
from recsys.log import InteractionLog
from recsys.records import Verdict
from training.night.night import Night
from training.night.run import run_night

SIZES = {
    "purchases": {"customers": 50, "items": 100, "weeks": 8},
    "ratings": {"users": 110, "items": 60, "days": 7},
    "clicks": {"users": 160, "items": 80, "days": 7},
    "funnel": {"users": 200, "items": 80, "days": 7},
}


# A funnel has clicks of its own; alone they are tried where time does not matter.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "clicks" else name for name in SIZES]
)
def test_a_first_night_with_the_defaults_goes_live_calibrated_and_without_warnings(name, tmp_path) -> None:
    mapping = write_log(name, tmp_path / "src", **SIZES[name])
    made = convert_own("csv", tmp_path / "src", tmp_path / "log", mapping, name="csv", force=False)
    config = load_config(made.config)
    log = InteractionLog(tmp_path / "log")
    result = run_night(Night(config=config, log=log, runs=tmp_path / "runs", date=made.night))
    checks = {check.name: check.detail for check in result.decision.checks}
    assert result.verdict is Verdict.PROMOTE, checks
    assert not [said for said in checks.values() if "not evaluated" in said]
    assert len(result.validation.lines) <= 2, result.validation.lines
    bundle = load_bundle(tmp_path / "runs" / "bundles" / result.evaluated)
    assert all(is_fitted(calibrator) for calibrator in bundle.manifest.calibration.values())
    expected = {"purchases": "learn", "ratings": "exclude", "clicks": "allow", "funnel": "exclude"}
    assert config.policy.repeat == expected[name]
