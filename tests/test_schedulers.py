"""The schedulers' examples: each is read by its own rules, and calls the one command."""

import configparser
import os
import re
import shutil
import subprocess
import sys
from inspect import signature
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import yaml  # type: ignore[import-untyped]

from recsys.cli import parser_of
from recsys.errors import BundleError, ConfigError, DataError, RegistryError, StoreError
from recsys.records import Verdict
from training.night.tries import HELD_IN_ROW_CODE

FOLDER = Path(__file__).parents[1] / "examples" / "schedulers"
NIGHT = FOLDER / "night.sh"
HELD = {Verdict.HOLD.exit_code, Verdict.HOLD_UNDERPOWERED.exit_code}
TO_LOOK_AT = {error.exit_code for error in (ConfigError, DataError, BundleError)} | {HELD_IN_ROW_CODE, 15}
"""And the third held night in a row, and CHECK_FAILED."""
TRY_AGAIN = 75


@pytest.fixture
def run_night(tmp_path):
    """Give what runs night.sh with a `recsys` that ends with a code and writes down its arguments."""
    fake = tmp_path / "recsys"
    fake.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/said\nexit $CODE\n')
    fake.chmod(0o755)

    def run(code, *arguments):
        folders = {"RECSYS_CONFIG": "shop.toml", "RECSYS_LOG": "the-log", "RECSYS_RUNS": "the-runs"}
        env = {**folders, "CODE": str(code), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = subprocess.run([NIGHT, *arguments], env=env, capture_output=True, text=True, check=False)
        return done, (tmp_path / "said").read_text().split()

    return run


def test_the_script_calls_the_one_command_with_options_that_it_has(run_night):
    done, said = run_night(0, "2026-01-30")
    assert (done.returncode, done.stderr) == (0, "")
    assert said == [
        *("nightly", "--config", "shop.toml", "--log", "the-log", "--runs", "the-runs"),
        *("--date", "2026-01-30"),
    ]
    known = {option for parameter in parser_of("nightly").params for option in parameter.opts}
    assert {word for word in said if word.startswith("--")} <= known
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", run_night(0)[1][-1])


@pytest.mark.parametrize(
    "code", sorted({*HELD, *TO_LOOK_AT, RegistryError.exit_code, StoreError.exit_code, 1, 13, 130})
)
def test_exit_codes_become_what_a_scheduler_understands(run_night, code):
    done, _ = run_night(code, "2026-01-30")
    expected = 0 if code in HELD else code if code in TO_LOOK_AT else TRY_AGAIN
    assert done.returncode == expected
    assert done.stderr.startswith("night of 2026-01-30: ")


def test_cron():
    lines = [line for line in (FOLDER / "crontab").read_text().splitlines() if line and line[0] != "#"]
    jobs = [line for line in lines if not re.match(r"[A-Z_]+=", line)]
    (job,) = jobs
    *when, command = job.split(maxsplit=5)
    assert all(re.fullmatch(r"\*|\d+(,\d+)*", field) for field in when)
    assert command.endswith("examples/schedulers/night.sh")
    assert {"RECSYS_CONFIG", "RECSYS_LOG", "RECSYS_RUNS"} <= {line.split("=")[0] for line in lines}


def unit(name):
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((FOLDER / name).read_text())
    return parser


def test_systemd(tmp_path):
    service, timer = unit("recsys-night.service")["Service"], unit("recsys-night.timer")["Timer"]
    assert service["ExecStart"].endswith("examples/schedulers/night.sh")
    assert {int(code) for code in service["RestartPreventExitStatus"].split()} == TO_LOOK_AT
    assert (service["Restart"], timer["Persistent"]) == ("on-failure", "true")
    if shutil.which("systemd-analyze") is not None:
        found = subprocess.run(
            ["systemd-analyze", "calendar", timer["OnCalendar"]], capture_output=True, text=True, check=False
        )
        assert found.returncode == 0, found.stderr


def test_kubernetes():
    job = yaml.safe_load((FOLDER / "kubernetes.yaml").read_text())
    assert (job["apiVersion"], job["kind"], job["spec"]["concurrencyPolicy"]) == (
        "batch/v1",
        "CronJob",
        "Forbid",
    )
    spec = job["spec"]["jobTemplate"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert container["command"][0].endswith("examples/schedulers/night.sh")
    assert {entry["name"] for entry in container["env"]} == {"RECSYS_CONFIG", "RECSYS_LOG", "RECSYS_RUNS"}
    (codes,) = [rule["onExitCodes"] for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert (set(codes["values"]), codes["containerName"]) == (TO_LOOK_AT, container["name"])
    assert spec["template"]["spec"]["restartPolicy"] == "Never", "podFailurePolicy needs it"
    volumes = {volume["name"] for volume in spec["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


class FailedError(Exception):
    """Airflow's: the task is not tried again."""


@pytest.mark.parametrize(("code", "raised"), [(0, None), (TRY_AGAIN, RuntimeError), (15, FailedError)])
def test_airflow(monkeypatch, tmp_path, code, raised):
    tasks = []
    decorators = ModuleType("airflow.decorators")
    decorators.dag = lambda **said: lambda made: lambda: (tasks.append(said), made())  # type: ignore[attr-defined]
    decorators.task = lambda made: lambda: tasks.append(made)  # type: ignore[attr-defined]
    for name, module in {
        "airflow": ModuleType("airflow"),
        "airflow.decorators": decorators,
        "airflow.exceptions": SimpleNamespace(AirflowFailException=FailedError),
        "airflow.timetables": ModuleType("airflow.timetables"),
        "airflow.timetables.interval": SimpleNamespace(
            CronDataIntervalTimetable=lambda *said, **more: (said, more)
        ),
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    script = tmp_path / "night.sh"
    script.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/said\nexit {code}\n')
    script.chmod(0o755)
    text = (FOLDER / "airflow_dag.py").read_text()
    assert '"/opt/recsys/examples/schedulers/night.sh"' in text
    exec(compile(text.replace("/opt/recsys/examples/schedulers/night.sh", str(script)), "dag", "exec"), {})
    settings, night = tasks
    assert (settings["max_active_runs"], settings["catchup"]) == (1, True)
    assert settings["schedule"] == (("30 2 * * *",), {"timezone": "UTC"}), "runs are of the day that is over"
    assert signature(night).parameters["ds"].default is None, "Airflow refuses any other"
    if raised is None:
        night("2026-01-30")
    else:
        with pytest.raises(raised, match="2026-01-30"):
            night("2026-01-30")
    assert (tmp_path / "said").read_text() == "2026-01-30\n"
