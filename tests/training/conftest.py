"""Read-only, for all of `training`: a bundle as a predictor; ranks that start without importing anything."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.bundle import load_bundle
from training.predict import BundlePredictor
from training.processes import launch

STARTER = Path(__file__).with_name("rank_starter.py")


@pytest.fixture(scope="session")
def predictor(bundle_folder):
    return BundlePredictor(load_bundle(bundle_folder))


@pytest.fixture(scope="session")
def rank_starter():
    """Give what starts ranks as copies of one process, in the place of torchrun's launcher."""
    with contextlib.ExitStack() as stack:
        started = []

        def run(arguments, processes, logs):
            if not started:
                started.append(stack.enter_context(_starter()))
            order = {"arguments": list(arguments), "processes": processes, "logs": str(logs)}
            order |= {"folder": os.getcwd(), "environment": dict(os.environ)}
            print(json.dumps(order), file=started[0].stdin, flush=True)
            failed = json.loads(started[0].stdout.readline())
            return launch._Ended(dict(failed)) if failed else None

        yield run


@contextlib.contextmanager
def _starter():
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, str(STARTER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    ) as process:
        yield process
        process.kill()


@pytest.fixture
def quick_ranks(rank_starter, monkeypatch):
    """Start this test's ranks so; torchrun's launcher is tested in test_processes.py."""
    monkeypatch.setattr(launch, "_run", rank_starter)
