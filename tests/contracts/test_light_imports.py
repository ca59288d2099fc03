"""Model, losses and fit need torch and numpy alone: a bare machine with a GPU can train them."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_a_step_needs_torch_and_numpy_alone():
    paths = [str(HERE.parent / "bare_machine"), str(HERE.parents[1])]
    found = subprocess.run(
        [sys.executable, str(HERE / "bare_step.py")],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert found.stdout.strip() == "one step made", found.stderr
