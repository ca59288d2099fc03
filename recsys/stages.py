"""Content-addressed stages: a directory named by the hash of its inputs, its manifest written last.

A stage whose manifest exists and whose files are as the manifest says is done and is skipped. Anything else
lies in a folder of the process that makes it, which the next one removes when that process is gone. Nothing
is ever half-written under its final name, whatever kills the process. What a stage needs to go on after it
was killed lies beside (`unfinished`), until the stage is done.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recsys.errors import DamagedStageError, DataError
from recsys.files import sync_folder
from recsys.scratch import scratch_folder
from recsys.stage_files import check, describe, sync_tree

MANIFEST = "manifest.json"
FILES = "files"
"""The manifest's key of the stage's files, as `recsys.stage_files` describes them."""
UNFINISHED = ".unfinished"
NO_RESULT = "there is no result of these inputs"
SCRATCH = "tmp"
"""Of the hidden folders that stages are built in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reuse:
    """What one run does with finished stages."""

    verify: bool = False
    """Read every file of what is found, not only of what something is made of."""
    force: frozenset[str] = frozenset()
    """Names of stages that are built once more."""
    ready: frozenset[str] = frozenset()
    """Names of stages that have to be there: they are not built."""
    look: bool = False
    """Build nothing: `NotBuiltError` says what would be built, and why."""
    say: Callable[[str], None] = lambda _: None
    """Told of a damaged stage that is built again."""
    trusted: set[Path] = field(default_factory=set)
    """Folders that this run has built, or read whole."""


class NotBuiltError(Exception):
    """Raised where a run that only looks would build a stage."""

    def __init__(self, name: str, inputs: dict[str, Any], why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name, self.inputs, self.why = name, inputs, why


@dataclass(frozen=True, slots=True)
class Stages:
    """All stages of one RUNS folder."""

    root: Path
    reuse: Reuse = field(default_factory=Reuse)

    def run(self, name: str, inputs: dict[str, Any], build: Callable[[Path], dict[str, Any]]) -> Path:
        """Give the stage's directory, building it unless a sound one has the same inputs.

        Args: inputs: JSON values that determine the output; build: fills the folder it is given and returns
        what the manifest should say about it.
        Raises: whatever build raises, after removing what it wrote; DataError when the disk is full, or the
        stage has to be there and is not.
        """
        target = self.root / name / digest(inputs)
        why = self._why(name, target)
        if why is None:
            if not self.reuse.look:
                shutil.rmtree(_unfinished(target), ignore_errors=True)
            return target
        if self.reuse.look:
            raise NotBuiltError(name, inputs, why)
        if name in self.reuse.ready:
            raise DataError(f"stage {name} would have to run: {why}; start at it, or at an earlier stage")
        try:
            with scratch_folder(target.parent, SCRATCH) as own:
                built = own / target.name
                built.mkdir()
                said = build(built)
                manifest = {"stage": name, "inputs": inputs, FILES: describe(built), **said}
                write_json(built / MANIFEST, manifest)
                sync_tree(built)
                self._put(name, built, target)
            shutil.rmtree(_unfinished(target), ignore_errors=True)
        except _writing_errors() as error:
            reason = disk_failure(error)
            if reason is None:
                raise
            raise DataError(
                f"stage {name}: cannot write {target}: {reason}; free the disk or repair the path, and "
                "run the same command again: nothing was published"
            ) from error
        self.reuse.trusted.add(target)
        return target

    def require(self, folders: Iterable[Path]) -> None:
        """Read stages whole, once a run, before something is made of them.

        Raises: DamagedStageError for the first one that is not what was written; it is forgotten.
        """
        for folder in folders:
            if folder in self.reuse.trusted:
                continue
            wrong = _problem(folder, full=True) if FILES in read_manifest(folder) else None
            if wrong is not None:
                self.forget(folder, wrong)
                raise DamagedStageError(
                    f"{wrong}; run the same command again: stage {folder.parent.name} is built anew"
                )
            self.reuse.trusted.add(folder)

    def digests(self) -> "FileDigests":
        """Give the hashes of the log's files; a run that only looks keeps none."""
        return FileDigests(self.root / "files.json", keep=not self.reuse.look)

    def forget(self, folder: Path, why: str) -> None:
        """Let a stage be built again the next time it is asked for.

        Raises: NotBuiltError where nothing is to be built.
        """
        if self.reuse.look:
            raise NotBuiltError(folder.parent.name, read_manifest(folder)["inputs"], why)
        self.reuse.say(f"stage {folder.parent.name} is built again: {why}")
        self.reuse.trusted.discard(folder)
        (folder / MANIFEST).unlink(missing_ok=True)

    def _why(self, name: str, target: Path) -> str | None:
        """Say why a stage has to be built; None: it is there, and sound."""
        if target in self.reuse.trusted and (target / MANIFEST).is_file():
            return None
        if not (target / MANIFEST).is_file():
            return NO_RESULT
        if name in self.reuse.force:
            return "it is forced"
        wrong = _problem(target, full=self.reuse.verify)
        if wrong is None:
            self.reuse.trusted.update({target} if self.reuse.verify else ())
        elif not self.reuse.look and name not in self.reuse.ready:
            self.forget(target, wrong)
        return wrong

    def _put(self, name: str, built: Path, target: Path) -> None:
        """Give a folder its final name, unless another process was first with a sound one."""
        if target.exists():
            made_meanwhile = (target / MANIFEST).is_file() and _problem(target, full=False) is None
            if made_meanwhile and name not in self.reuse.force:
                return
            os.replace(target, built.with_name("replaced"))
        os.replace(built, target)
        sync_folder(target.parent)


def _problem(folder: Path, *, full: bool) -> str | None:
    """Say what is wrong with a stage; None: it is as it was written. Files that were moved are noted anew.

    A stage of a release that wrote no hashes is taken as it is, unless all is to be read.
    """
    try:
        manifest = read_manifest(folder)
        files = manifest.get(FILES)
        if files is None:
            return "an earlier release wrote no hashes of its files" if full else None
        now = check(folder, files, full=full)
    except DataError as error:
        return str(error)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return f"{folder / MANIFEST} is no manifest ({error})"
    if now != files:
        with suppress(OSError):  # what cannot be noted is read again
            write_json(folder / MANIFEST, {**manifest, FILES: now})
    return None


def unfinished(folder: Path) -> Path:
    """Give the place beside a stage's folders where what it goes on from is kept until it is done.

    Args: folder: the one that the stage is being built in.
    """
    return _unfinished(folder.parent.parent / folder.name)


def _unfinished(target: Path) -> Path:
    return target.with_name(f".{target.name}{UNFINISHED}")


def final_name(folder: Path) -> str:
    """Give the name that a stage's folder has when it is done: the hash of its inputs."""
    return folder.name


def _writing_errors() -> tuple[type[Exception], ...]:
    """List what writing raises; asked for when something was: commands that need no Polars start sooner."""
    from polars.exceptions import PolarsError

    return OSError, PolarsError


def disk_failure(error: Exception) -> str | None:
    """Give the operating system's reason where writing failed; None for any other error.

    Polars reports a full disk as a ComputeError that ends in "(os error 28)".
    """
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) if "(os error " in str(error) else None


def read_manifest(stage: Path) -> dict[str, Any]:
    """Read what a finished stage says of itself."""
    manifest: dict[str, Any] = json.loads((stage / MANIFEST).read_text())
    return manifest


def digest(value: Any) -> str:
    """Hash a JSON value; equal values give equal names on every machine."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:20]


class FileDigests:
    """Hashes of files by folder, name and content; what has size and time as before is not read again.

    A night looks at every partition of the log, and should read only its own: the hashes are kept beside the
    stages and written back at the end.
    """

    def __init__(self, kept: Path, *, keep: bool = True) -> None:
        self._kept, self._keep = kept, keep
        self._known: dict[str, list[Any]] = {}
        self._used: dict[str, list[Any]] = {}

    def __enter__(self) -> "FileDigests":
        try:
            self._known = json.loads(self._kept.read_text())
        except (OSError, ValueError):
            self._known = {}  # it is a cache: whatever is wrong with it, the files themselves are there
        return self

    def __exit__(self, *_: object) -> None:
        now = {**self._known, **self._used}
        if self._keep and now != self._known:
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._kept, now)

    def of(self, paths: Iterable[Path]) -> str:
        """Hash files in the order given."""
        hasher = hashlib.sha256()
        for path in paths:
            hasher.update(f"{path.parent.name}/{path.name}\0".encode() + bytes.fromhex(self._one(path)))
        return hasher.hexdigest()[:20]

    def _one(self, path: Path) -> str:
        name, state = str(path.absolute()), path.stat()
        stamp = [state.st_size, state.st_mtime_ns, state.st_ino]
        found = self._known.get(name)
        if found is None or found[1:] != stamp:
            with path.open("rb") as stream:
                found = [hashlib.file_digest(stream, "sha256").hexdigest(), *stamp]
        self._used[name] = found
        return str(found[0])


def write_json(path: Path, value: Any, *, allow_nan: bool = True) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a part.

    Raises: ValueError on NaN or infinity, which are no JSON, unless they are allowed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            json.dump(value, stream, indent=1, sort_keys=True, default=str, allow_nan=allow_nan)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
