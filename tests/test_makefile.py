"""`make clean`: it runs in any checkout, and leaves the environment alone."""

import subprocess
from pathlib import Path

MAKEFILE = Path(__file__).parents[1] / "Makefile"


def test_clean_removes_caches_and_nothing_else(tmp_path):
    checkout = tmp_path / "with space"
    kept = [".venv/lib/__pycache__/x.pyc", "recsys/cli.py", ".ci/with space/.venv/__pycache__/x.pyc"]
    removed = [
        "recsys/__pycache__/x.pyc",
        "a new folder/deep/__pycache__/x.pyc",
        ".mypy_cache/x",
        "dist/x.whl",
    ]
    for name in (*kept, *removed):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("")
    subprocess.run(["make", "-s", "-f", MAKEFILE, "clean"], cwd=checkout, check=True, capture_output=True)
    assert [name for name in (*kept, *removed) if (checkout / name).exists()] == kept
    subprocess.run(["make", "-s", "-f", MAKEFILE, "clean"], cwd=checkout, check=True, capture_output=True)
