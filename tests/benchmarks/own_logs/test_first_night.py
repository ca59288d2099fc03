"""A first night on each kind of log that people have, with the defaults that `convert` writes."""

import pytest

from benchmarks.own_logs.first_night import first_night
from benchmarks.own_logs.made import write_log

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
    # The server of the check after a night starts for one of them: it takes as long as the night.
    found = first_night(name, mapping, tmp_path, post_check=name == "purchases")
    assert found.verdict == "PROMOTE", found.checks
    assert not [check for check, said in found.checks.items() if said or "calibration" in check]
    assert not [check for check in found.checks if check.endswith(" rows")], "a head was not evaluated"
    assert len(found.warnings) <= 2
    heads = [line.split('"')[1] for line in found.config.splitlines() if line.startswith("name = ")]
    assert all(any(name.startswith(f"{head} ") for name in found.beside) for head in heads), found.beside
    expected = {"purchases": "learn", "ratings": "exclude", "clicks": "allow", "funnel": "exclude"}
    assert f'repeat = "{expected[name]}"' in found.config
