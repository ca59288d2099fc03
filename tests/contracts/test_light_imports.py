"""Model, losses and fit need torch and numpy alone: a bare machine with a GPU can train them."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_a_step_needs_torch_and_numpy_alone():
    command = [sys.executable, str(HERE.parent / "bare_machine.py"), str(HERE / "bare_step.py")]
    found = subprocess.run(command, check=False, capture_output=True, text=True)
    assert found.stdout.strip() == "one step made", found.stderr
