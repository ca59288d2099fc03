"""Stages: done once, never half-written, honest about a full disk."""

import errno
import hashlib
import json
import os
import shutil

import polars as pl
import pytest

from recsys.errors import DamagedStageError, DataError
from recsys.stages import (
    MANIFEST,
    SCRATCH,
    FileDigests,
    NotBuiltError,
    Reuse,
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
    said = read_manifest(path)
    (size, digest_, _, _) = said.pop("files")["table"]
    assert (size, digest_) == (4, hashlib.sha256(b"rows").hexdigest())
    assert said == {"stage": "features", "inputs": {"day": "2026-01-05"}, "rows": 1}
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
    for folder in (target, target.with_name(f".{SCRATCH}-killed")):
        folder.mkdir(parents=True)
        (folder / "half").write_text("")
    (target.with_name(f".{SCRATCH}-killed") / ".lock").touch()
    path = stages.run("features", {}, _fill)
    assert sorted(p.name for p in path.iterdir()) == ["manifest.json", "table"]
    assert list(target.parent.iterdir()) == [target]


def _cut(file):
    file.write_text("row")


def _edited(file):
    """As a disk may: same size, same times."""
    state = file.stat()
    with file.open("r+") as stream:
        stream.write("x")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


def _lost(file):
    file.unlink()


def _no_manifest(file):
    (file.parent / MANIFEST).write_text("[]")


@pytest.mark.parametrize(
    ("damage", "said", "reuse"),
    [
        (_cut, "is not what was written", {}),
        (_lost, "cannot be read", {}),
        (_no_manifest, "is no manifest", {}),
        (_edited, "is not what was written", {"verify": True}),
    ],
)
def test_a_damaged_stage_is_built_again(stages, damage, said, reuse):
    path = stages.run("features", {}, _fill)
    damage(path / "table")
    told = []
    again = Stages(stages.root, Reuse(say=told.append, **reuse)).run("features", {}, _fill)
    assert (again, (path / "table").read_text()) == (path, "rows")
    (sentence,) = told
    assert "stage features is built again: " in sentence
    assert said in sentence
    assert list(path.parent.iterdir()) == [path]


def test_what_is_read_is_read_whole_and_what_was_not_written_so_is_forgotten(stages):
    path = stages.run("features", {}, _fill)
    _edited(path / "table")
    later = Stages(stages.root)
    assert later.run("features", {}, _fill) == path, "size, time and inode do not tell"
    with pytest.raises(DamagedStageError, match=r"table is not what was written.*run the same command again"):
        later.require([path])
    assert later.run("features", {}, _fill) == path
    assert (path / "table").read_text() == "rows"
    _edited(path / "table")
    later.require([path])  # once a run is enough
    with pytest.raises(DamagedStageError):
        Stages(stages.root).require([path])


def test_a_copied_folder_is_read_once_and_used(stages, tmp_path, monkeypatch):
    path = stages.run("features", {}, _fill)
    copy = Stages(shutil.copytree(stages.root, tmp_path / "copy"))
    assert copy.run("features", {}, None) == copy.root / path.relative_to(stages.root)
    monkeypatch.setattr(hashlib, "file_digest", None)
    copy.run("features", {}, None)


def test_a_stage_of_a_release_without_hashes_is_used_until_all_is_read(stages):
    path = stages.run("features", {}, _fill)
    said = read_manifest(path)
    del said["files"]
    write_json(path / MANIFEST, said)
    later = Stages(stages.root)
    later.require([later.run("features", {}, None)])
    assert Stages(stages.root, Reuse(verify=True)).run("features", {}, _fill) == path
    assert "files" in read_manifest(path)


def test_all_is_on_the_disk_before_it_gets_its_name(stages, monkeypatch):
    done = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: (done.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))), sync(fd))
    )
    monkeypatch.setattr(
        os, "replace", lambda a, b: (done.append(f"rename {os.path.basename(b)}"), replace(a, b))
    )
    path = stages.run("features", {}, _fill)
    named = done.index(f"rename {path.name}")
    assert {"table", MANIFEST, path.name} <= set(done[:named])
    assert done[named + 1 :] == ["features"], "and then the name"


def test_two_that_build_one_stage_leave_each_other_alone(stages):
    """A report during a night needs the same day: neither removes the other's half, and the first wins."""

    def slow(folder):
        (folder / "table").write_text("slow")
        other = Stages(stages.root).run("features", {}, _fill)
        assert (folder / "table").read_text() == "slow"
        return {"other": str(other)}

    path = stages.run("features", {}, slow)
    assert (path / "table").read_text() == "rows"
    assert list(path.parent.iterdir()) == [path]


def test_a_forced_stage_is_built_once_more_a_run(stages):
    built = []

    def build(folder):
        built.append(folder)
        return _fill(folder)

    path = stages.run("train", {}, build)
    forced = Stages(stages.root, Reuse(force=frozenset({"train"})))
    assert [forced.run("train", {}, build) for _ in range(2)] == [path, path]
    assert len(built) == 2


def test_a_stage_that_has_to_be_there_is_not_built(stages):
    later = Stages(stages.root, Reuse(ready=frozenset({"train"})))
    with pytest.raises(DataError, match="stage train would have to run: there is no result of these inputs"):
        later.run("train", {}, _fill)
    path = stages.run("train", {}, _fill)
    assert later.run("train", {}, None) == path


def test_a_run_that_looks_says_why_and_writes_nothing(stages):
    path = stages.run("train", {"seed": 1}, _fill)
    kept = path.with_name(f".{path.name}.unfinished")
    kept.mkdir()
    before = {p: p.stat().st_mtime_ns for p in stages.root.rglob("*")}
    looking = Stages(stages.root, Reuse(look=True))
    assert looking.run("train", {"seed": 1}, None) == path
    with pytest.raises(NotBuiltError, match="train: there is no result of these inputs"):
        looking.run("train", {"seed": 2}, None)
    with pytest.raises(NotBuiltError, match="it was removed"):
        looking.forget(path, "it was removed")
    with looking.digests() as digests:
        digests.of([path / "table"])
    assert {p: p.stat().st_mtime_ns for p in stages.root.rglob("*")} == before


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
