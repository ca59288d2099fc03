"""Folders of temporary files: one of a killed process is removed by the next, one in use is left alone."""

import os
import signal
import subprocess
import sys

import pytest

from recsys.scratch import scratch_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from recsys.scratch import scratch_folder

with scratch_folder(Path(sys.argv[1]), "labels") as folder:
    (folder / "share").write_bytes(bytes(1000))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    child = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=os.environ, check=False)
    assert child.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".labels-")
    with scratch_folder(tmp_path, "day") as other:
        assert set(tmp_path.iterdir()) == {left, other}, "another name is another's"
    with scratch_folder(tmp_path, "labels") as folder:
        assert list(tmp_path.iterdir()) == [folder]
    assert not list(tmp_path.iterdir())


def test_one_in_use_is_left_alone_and_errors_leave_none(tmp_path):
    with scratch_folder(tmp_path, "labels") as first, scratch_folder(tmp_path, "labels") as second:
        assert {first, second} == set(tmp_path.iterdir())
    with pytest.raises(ValueError, match="x"), scratch_folder(tmp_path / "new", "labels"):
        raise ValueError("x")
    assert not list((tmp_path / "new").iterdir())
