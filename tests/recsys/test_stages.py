"""Stages: done once, never half-written, honest about a full disk."""

import errno
import json
import os

import polars as pl
import pytest

from recsys.errors import DataError
from recsys.stages import (
    FileDigests,
    Stages,
    digest,
    disk_failure,
    read_manifest,
    write_json,
)


@pytest.fixture
def stages(tmp_path):
    return Stages(tmp_path / "stages")


def _fill(folder):
    (folder / "table").write_text("rows")
    return {"rows": 1}


def _left(stages):
    return [p for p in stages.root.rglob("*") if p.is_file() or p.name.endswith(".tmp")]


def test_a_stage_is_built_once(stages):
    built = []

    def build(folder):
        built.append(folder)
        return _fill(folder)

    path = stages.run("features", {"day": "2026-01-05"}, build)
    assert stages.run("features", {"day": "2026-01-05"}, build) == path
    assert len(built) == 1
    assert (path / "table").read_text() == "rows"
    assert read_manifest(path) == {"stage": "features", "inputs": {"day": "2026-01-05"}, "rows": 1}
    assert stages.run("features", {"day": "2026-01-06"}, build) != path


@pytest.mark.parametrize(
    "error", [RuntimeError("bug"), KeyboardInterrupt(), SystemExit(1), DataError("bad row")]
)
def test_whatever_stops_a_stage_leaves_nothing(stages, error):
    def build(folder):
        _fill(folder)
        raise error

    with pytest.raises(type(error)):
        stages.run("features", {}, build)
    assert _left(stages) == []
    assert stages.run("features", {}, _fill).is_dir()


def test_the_final_name_appears_only_with_its_manifest(stages):
    target = stages.root / "features" / digest({})

    def build(folder):
        assert folder != target
        assert not target.exists()
        return _fill(folder)

    assert stages.run("features", {}, build) == target


def test_what_a_killed_run_left_is_built_again(stages):
    target = stages.root / "features" / digest({})
    for folder in (target, target.with_name(f".{target.name}.tmp")):
        folder.mkdir(parents=True)
        (folder / "half").write_text("")
    path = stages.run("features", {}, _fill)
    assert sorted(p.name for p in path.iterdir()) == ["manifest.json", "table"]
    assert list(target.parent.iterdir()) == [target]


def test_a_full_disk_is_a_data_error_and_leaves_nothing(stages):
    def build(folder):
        _fill(folder)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(
        DataError, match=r"stage features: cannot write .*No space left on device; free the disk"
    ):
        stages.run("features", {}, build)
    assert _left(stages) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is Linux's always full device")
def test_polars_own_error_on_a_full_disk_is_known(stages):
    """Polars raises a ComputeError, no OSError."""
    frame = pl.DataFrame({"n": range(100_000)})

    with pytest.raises(DataError, match=r"No space left.*free the disk"):
        stages.run("features", {}, lambda _: frame.write_parquet("/dev/full"))
    assert _left(stages) == []


def test_other_polars_errors_stay_what_they_are(stages):
    with pytest.raises(pl.exceptions.ColumnNotFoundError):
        stages.run("features", {}, lambda _: pl.DataFrame({"a": [1]}).select("b"))
    assert disk_failure(pl.exceptions.ColumnNotFoundError("b")) is None


def test_digests_depend_on_content_and_place(tmp_path):
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    files = [tmp_path / day / "part.parquet" for day in ("date=1", "date=2")]
    for file, content in zip(files, "xy", strict=True):
        file.parent.mkdir()
        file.write_text(content)

    def hashed(some):
        (tmp_path / "none.json").unlink(missing_ok=True)  # these files change within one tick of their times
        with FileDigests(tmp_path / "none.json") as digests:
            return digests.of(some)

    before = hashed(files)
    assert hashed(files) == before
    files[0].write_text("y"), files[1].write_text("x")
    swapped = hashed(files)
    assert swapped != before
    assert hashed(files[:1]) != hashed(files[1:])
    files[0].write_text("x")
    assert hashed(files[:1]) != hashed(files[1:]), "the same content under another day"


def test_a_file_as_it_was_is_not_read_again(tmp_path):
    """Proved with a content that changes behind an unchanged size and time."""
    file, kept = tmp_path / "date=1" / "part.parquet", tmp_path / "stages" / "files.json"
    file.parent.mkdir()
    file.write_text("one")

    def hashed():
        with FileDigests(kept) as digests:
            return digests.of([file])

    before, state = hashed(), file.stat()
    file.write_text("two")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert hashed() == before
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert hashed() != before
    kept.write_text("no JSON")
    assert hashed() != before, "a broken cache is no cache"


def test_json_is_replaced_whole(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"n": 1})

    class NoJson:
        def __str__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"n": NoJson()})
    assert json.loads(path.read_text()) == {"n": 1}
    assert list(tmp_path.iterdir()) == [path]
