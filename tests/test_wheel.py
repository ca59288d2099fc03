"""The wheel holds what the packages read at run time, and the environment holds what they need."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

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
    project = PROJECT["project"]
    declared = project["optional-dependencies"][extra] if extra else project["dependencies"]
    names = {_plain(re.match(r"[\w.-]+", line)[0]) for line in declared}
    assert names - _locked() <= {"torch"}, "torch comes from requirements/cpu.txt or cuda.txt's step"


@pytest.mark.parametrize("version", ["3.11.0", "3.11.9", "3.12.0", "3.13.0"])
def test_the_lock_is_complete_on_every_python(version):
    """`make setup` installs it with --no-deps, and redis needs one more package below 3.11.3 than above."""
    python = {"python_full_version": version, "python_version": version.rpartition(".")[0], "extra": ""}
    needed = {_plain(need.name) for name in _locked() for need in _needs(name, python)}
    assert needed - _locked() <= {"torch"}


def _needs(name, python):
    try:
        needs = [Requirement(line) for line in requires(name) or ()]
    except PackageNotFoundError:  # an environment of before the lock's last change
        return []
    return [need for need in needs if need.marker is None or need.marker.evaluate(python)]


def _locked():
    lock = (ROOT / "requirements" / "lock.txt").read_text()
    return {_plain(line.split("==")[0]) for line in lock.splitlines() if "==" in line and line[0] != "#"}


def _plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()
