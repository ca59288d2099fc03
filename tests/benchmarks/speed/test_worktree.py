"""An earlier commit is checked out for a while, and nothing of it stays."""

import os
import signal
import subprocess
import sys
import tempfile

import pytest

from benchmarks.commit import CHECKOUT
from benchmarks.speed.worktree import worktree
from recsys.errors import ConfigError


def test_an_earlier_commit_is_checked_out_for_a_while():
    with worktree("HEAD") as place:
        assert (place / "training" / "train.py").exists()
    assert not place.exists()
    with (
        pytest.raises(ConfigError, match=r"--before: git worktree add failed: .*no-such-commit"),
        worktree("no-such-commit"),
    ):
        pass


def test_a_bench_that_is_ended_leaves_no_worktree(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    script = (
        "import os, signal, sys\n"
        "from benchmarks.speed.worktree import worktree\n"
        "with worktree('HEAD') as place:\n"
        "    os.kill(os.getpid(), int(sys.argv[1]))\n"
    )

    def ended_by(number):
        command = [sys.executable, "-c", script, str(int(number))]
        return subprocess.run(command, env=os.environ | {"TMPDIR": str(tmp_path)}, check=False).returncode

    def known():
        asked = ["git", "-C", str(CHECKOUT), "worktree", "list", "--porcelain"]
        return str(tmp_path) in subprocess.run(asked, capture_output=True, text=True, check=True).stdout

    assert ended_by(signal.SIGTERM) == 128 + signal.SIGTERM
    assert not known()
    assert not list(tmp_path.iterdir())
    assert ended_by(signal.SIGKILL) == -signal.SIGKILL
    assert known()
    with worktree("HEAD"):
        assert len(list(tmp_path.iterdir())) == 1, "the next start removes what a kill left"
    assert not known()
