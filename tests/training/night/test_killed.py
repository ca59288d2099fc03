"""A night killed before any of its file operations: the next run gives what an undisturbed one gives."""

import json
import os
import subprocess
import sys
from pathlib import Path

from recsys.stages import write_json
from training.night.litter import collect_litter

PROGRAM = Path(__file__).with_name("killed_night.py")


def test_a_night_killed_anywhere_ends_as_an_undisturbed_one(tmp_path):
    """Equal files, one activation, nothing left over; a toy night, whose stages and pointers are real."""
    command = [sys.executable, str(PROGRAM), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] >= 50
    assert found["different"] == []
    assert found["double_activations"] == 0
    assert found["filled"] >= 14, "and so it is where the disk is full from there on: an error that says so"
    assert found["ended_badly"] == []


def _aged(path, age_s):
    os.utime(path, (0, path.stat().st_mtime - age_s))
    return path


def test_what_killed_processes_left_is_collected_and_what_is_in_use_is_not(tmp_path):
    made = {
        "stages/train/.tmp-killed": 0,
        "stages/train/.tmp-being-made": 0,
        "stages/train/.abc.unfinished": 8 * 86_400,
        "stages/train/.def.unfinished": 6 * 86_400,
        "stages/train/.ghi.tmp": 90,
        "bundles/.bundle.7.tmp": 90,
    }
    for name, age_s in made.items():
        (tmp_path / name / "x").mkdir(parents=True)
        if name.endswith("killed"):
            (tmp_path / name / ".lock").touch()
        _aged(tmp_path / name, age_s)
    for name, age_s in {
        "registry/records/.v1.json.7.tmp": 90,
        ".key.7.tmp": 90,
        "registry/.CURRENT.7.tmp": 5,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_json(tmp_path / name, {})
        _aged(tmp_path / name, age_s)
    collect_litter(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob(".*") if path.name != ".lock"}
    assert left == {"stages/train/.tmp-being-made", "stages/train/.def.unfinished", "registry/.CURRENT.7.tmp"}
