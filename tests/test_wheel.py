"""The wheel holds what the packages read at run time, and the environment holds what they need."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = ("recsys", "features", "training", "serving", "protos")
NOT_READ = {"protos/buf.yaml"}
"""For the generator of the stubs alone."""


def test_templates_and_tables_are_in_the_wheel():
    """setuptools leaves out, in silence, every file that no pattern of package-data names."""
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    packed = {
        path
        for room in ROOMS
        for key in (room, "*")
        for pattern in patterns.get(key, ())
        for path in (ROOT / room).glob(pattern)
    }
    files = {f for room in ROOMS for f in (ROOT / room).rglob("*") if f.is_file()}
    data = {f for f in files if f.suffix not in (".py", ".pyc")}
    missing = {f.relative_to(ROOT).as_posix() for f in data - packed} - NOT_READ
    assert not missing
    assert (ROOT / "recsys" / "shop.toml") in packed


@pytest.mark.parametrize("extra", ["", "dev", "bench"])
def test_the_lock_has_what_the_project_declares(extra):
    lock = (ROOT / "requirements" / "lock.txt").read_text()
    locked = {_plain(line.split("==")[0]) for line in lock.splitlines() if "==" in line and line[0] != "#"}
    project = PROJECT["project"]
    declared = project["optional-dependencies"][extra] if extra else project["dependencies"]
    names = {_plain(re.match(r"[\w.-]+", line)[0]) for line in declared}
    assert names - locked <= {"torch"}, "torch comes from requirements/cpu.txt or cuda.txt's step"


def _plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()
