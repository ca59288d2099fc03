"""Content-addressed stages: a directory named by the hash of its inputs, its manifest written last.

A stage whose manifest exists is done and is skipped; anything else is a temporary folder that the next run
removes. Nothing is ever half-written under its final name, whatever kills the process. What a stage needs to
go on after it was killed lies beside the temporary folder (`unfinished`), until the stage is done.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recsys.errors import DataError

MANIFEST = "manifest.json"
TEMPORARY, UNFINISHED = ".tmp", ".unfinished"


@dataclass(frozen=True, slots=True)
class Stages:
    """All stages of one RUNS folder."""

    root: Path

    def run(self, name: str, inputs: dict[str, Any], build: Callable[[Path], dict[str, Any]]) -> Path:
        """Give the stage's directory, building it unless a finished one has the same inputs.

        Args: inputs: JSON values that determine the output; build: fills the folder it is given and returns
        what the manifest should say about it.
        Raises: whatever build raises, after removing what it wrote; DataError when the disk is full.
        """
        target = self.root / name / digest(inputs)
        temporary = target.with_name(f".{target.name}{TEMPORARY}")
        if (target / MANIFEST).is_file():
            shutil.rmtree(unfinished(temporary), ignore_errors=True)
            return target
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
            said = build(temporary)
            write_json(temporary / MANIFEST, {"stage": name, "inputs": inputs, **said})
            os.replace(temporary, target)
            shutil.rmtree(unfinished(temporary), ignore_errors=True)
        except (OSError, pl.exceptions.PolarsError) as error:
            reason = disk_failure(error)
            if reason is None:
                raise
            raise DataError(
                f"stage {name}: cannot write {temporary}: {reason}; free the disk or repair the path, and "
                "run the same command again: nothing was published"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return target


def unfinished(folder: Path) -> Path:
    """Give the place beside the folder that a stage is built in; it stays until the stage is done."""
    return folder.with_suffix(UNFINISHED)


def final_name(folder: Path) -> str:
    """Give the name that a stage's folder has when it is done: the hash of its inputs."""
    return folder.name.removeprefix(".").removesuffix(TEMPORARY)


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

    def __init__(self, kept: Path) -> None:
        self._kept = kept
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
        if now != self._known:
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
