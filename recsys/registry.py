"""Versions and which one is live. `CURRENT` is the truth: one line, replaced atomically, compared first.

RUNS/bundles/<version>/             immutable bundles
RUNS/registry/CURRENT               the live version
RUNS/registry/activations.jsonl     every activation, oldest first
RUNS/registry/records/<version>.json  verdict, metrics, timings of the night that made it
RUNS/registry/indexes/<version>.json  what building and searching its index took
RUNS/registry/leases/<server>.json  what each server answers with; gc keeps those versions
RUNS/registry/leases/<server>~<version>.json  the others that it holds or loads
"""

import getpass
import glob
import os
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from recsys.activations import Activations
from recsys.errors import BundleError, ConfigError, MovedError, RegistryError
from recsys.files import sync_folder
from recsys.manifest import read_manifest, verify_files
from recsys.process_lock import process_lock
from recsys.records import Activation, IndexRecord, Lease, NightRecord, Record, Verdict
from recsys.scratch import age_s
from recsys.stages import write_json

LEASE_S = 60.0
"""A lease not renewed for this long belongs to a dead server, by a clock that is right."""
SKEW_S = 300.0
"""So far apart may the clocks of the server's host and of the reader's be."""
_FORGOTTEN_S = 86_400.0
_Kept = TypeVar("_Kept", bound=Record)


@dataclass(frozen=True, slots=True)
class Registry:
    """The registry of one RUNS folder."""

    runs: Path

    @property
    def folder(self) -> Path:
        """Where pointers and records lie."""
        return self.runs / "registry"

    @property
    def bundles(self) -> Path:
        """Where bundles lie."""
        return self.runs / "bundles"

    def require_folder(self) -> None:
        """Check that there is a RUNS folder to read, before "nothing" is given for an answer.

        Raises: ConfigError where it is a file; RegistryError where it is not there, or holds no runs.
        """
        if self.runs.is_file():
            raise ConfigError(f"{self.runs} is a file, not a folder; --runs names a folder")
        if self.folder.is_dir() or self.bundles.is_dir():
            return
        if self.runs.is_dir():
            why = f"{self.runs} holds neither registry/ nor bundles/"
        else:
            why = f"there is no folder {self.runs}"
        raise RegistryError(f"{why}; --runs names the folder that `recsys nightly --runs` wrote")

    def path(self, version: str) -> Path:
        """Give a version's folder; it may not exist."""
        return self.bundles / version

    def current(self) -> str | None:
        """Read the live version; None before the first activation.

        Raises: RegistryError when the file is damaged.
        """
        path = self.folder / "CURRENT"
        try:
            return path.read_text().strip() or None
        except FileNotFoundError:
            return None
        except UnicodeDecodeError as error:
            raise RegistryError(f"{path} holds no text; remove it and activate a version") from error

    def versions(self) -> list[str]:
        """List the versions on disk, oldest date first."""
        if not self.bundles.is_dir():
            return []
        folders = (p for p in self.bundles.iterdir() if not p.name.startswith("."))  # .…: a killed write
        return sorted(p.name for p in folders if (p / "manifest.json").is_file())

    def knows(self, version: str) -> bool:
        """Say whether a version was ever made or activated here."""
        if self.path(version).is_dir() or self._record_file(version).is_file():
            return True
        return any(version in (entry.version, entry.previous) for entry in self.activations.read())

    def kept(self, count: int) -> set[str]:
        """List the versions whose users stay in the store.

        They are what is live, what a rollback goes to, what is loaded, and what the newest nights promoted.
        Versions made during the day share their night's users, and their names are in no order of time: all
        those of a night that is kept are kept, and none counts as a night.

        Args: count: nights, `[store] keep`.
        """
        nights, promoted = set[date](), set[str]()
        for version in reversed(self.versions()):
            record = self.record(version)
            if record is None or record.verdict is not Verdict.PROMOTE:
                continue
            nights.add(record.night)
            if len(nights) > count:
                break
            promoted.add(version)
        live = self.current()
        in_use = {live, self.activations.before(live)} - {None}
        return {*promoted, *self.leased(), *(version for version in in_use if version is not None)}

    def oldest_data_end_ms(self, count: int) -> int | None:
        """Return the earliest instant at which the data of a kept version ends; None without a version.

        Versions that this code cannot read are left out: they cannot go live either.
        """
        ends = []
        for version in self.kept(count):
            with suppress(BundleError):
                ends.append(read_manifest(self.path(version)).snapshot_at_ms)
        return min(ends, default=None)

    def require(self, version: str) -> Path:
        """Give a version's folder.

        Raises: RegistryError listing what there is.
        """
        if version not in self.versions():
            known = ", ".join(self.versions()[-5:]) or "none; run `recsys nightly` first"
            raise RegistryError(f"no bundle {version!r} in {self.bundles}; the newest are: {known}")
        return self.path(version)

    @property
    def activations(self) -> Activations:
        """Give the moves of the pointer."""
        return Activations(self.folder / "activations.jsonl")

    def activate(
        self,
        version: str,
        expect: str | type[Any] | None = Any,
        verified: Collection[str] = (),
        why: str = "by hand",
    ) -> None:
        """Make a version live.

        Args: expect: the version believed live; `Any` skips the comparison; verified: versions of which the
        caller has a verified copy: their files are not read again; why: for the record.
        Raises: RegistryError for an unknown version; MovedError when another one went live meanwhile;
        BundleError when the manifest does not verify.
        """
        self._verify(version, verified)
        with self.locked("activate"):
            self.require(version)  # a night may have removed it since
            live = self.current()
            if expect is not Any and live != expect:
                raise MovedError(f"{live!r} is live, not {expect!r}; look at what changed and activate again")
            if live == version:
                return
            self._append(version, live, why, rollback=False)
            _replace_text(self.folder / "CURRENT", f"{version}\n")

    def rollback(
        self,
        verified: Collection[str] = (),
        why: str = "by hand",
        check: Callable[[str], object] = lambda _: None,
        expect: str | None = None,
    ) -> str:
        """Make the version that was live before the live one live again; twice in a row goes back two.

        No night makes the one that was live go live again: somebody has to activate it.

        Args: verified, why: as in `activate`; check: may refuse the version that would go live, by an error;
        expect: the version believed live; None: whichever is.
        Raises: RegistryError when there is none; MovedError when another one went live meanwhile.
        """
        with self.locked("activate"):
            live = self.current()
            if expect is not None and live != expect:
                raise MovedError(f"{live!r} is live, not {expect!r}: it stays")
            previous = self.activations.before(live)
            if live is None:
                raise RegistryError(f"nothing to roll back to: no bundle is live in {self.folder}")
            if previous is None:
                raise RegistryError(f"nothing to roll back to: {live!r} is the first version that went live")
            self._verify(previous, verified)
            check(previous)
            self._append(previous, live, why, rollback=True)
            _replace_text(self.folder / "CURRENT", f"{previous}\n")
        return previous

    def _append(self, version: str, previous: str | None, why: str, *, rollback: bool) -> None:
        entry = Activation(
            version=version,
            previous=previous,
            at=time.time(),
            rollback=rollback,
            who=f"{_user()}@{socket.gethostname()}",
            why=why,
        )
        self.activations.append(entry)

    def _verify(self, version: str, verified: Collection[str]) -> None:
        path = self.require(version)
        manifest = read_manifest(path)
        if manifest.version != version:
            raise BundleError(f"{path} holds {manifest.version}; restore it from a copy, or remove it")
        if version not in verified:
            verify_files(path, manifest)

    def record(self, version: str) -> NightRecord | None:
        """Read the record of the night that made a version; None when there is none.

        Raises: RegistryError for a file that is torn or holds something else.
        """
        return _read(self._record_file(version), NightRecord)

    def records(self) -> list[NightRecord]:
        """Read all records, also of versions that are gone.

        Raises: RegistryError for a file that is torn or holds something else.
        """
        files = sorted((self.folder / "records").glob("[!.]*.json"))
        return [NightRecord.parse(file.read_text(errors="replace"), str(file)) for file in files]

    def require_record(self, version: str) -> NightRecord:
        """Read the record of the night that made a version.

        Raises: RegistryError when there is none.
        """
        record = self.record(version)
        if record is None:
            raise RegistryError(
                f"{self._record_file(version)} is missing: nothing says which days {version} was trained on; "
                "restore the file from a copy, or run the night in a new runs folder"
            )
        return record

    def write_record(self, record: NightRecord) -> None:
        """Write a version's record beside the bundle, never into it."""
        _write(self._record_file(record.version), record)

    def write_index(self, version: str, record: IndexRecord) -> None:
        """Write what a version's index costs."""
        _write(self._index_file(version), record)

    def index(self, version: str) -> IndexRecord | None:
        """Read what a version's index costs; None when nobody wrote it.

        Raises: RegistryError for a file that is torn or holds something else.
        """
        return _read(self._index_file(version), IndexRecord)

    def write_lease(self, server_id: str, version: str | None, loaded: Iterable[str] = ()) -> None:
        """Say what a server answers with and what else it holds or loads; renew it well within LEASE_S."""
        leases = self.folder / "leases"
        leases.mkdir(parents=True, exist_ok=True)
        for old in leases.glob("*.json"):  # each start of a server has a name of its own
            if age_s(old) > _FORGOTTEN_S:
                old.unlink(missing_ok=True)
        names = {f"{server_id}~{other}.json": other for other in loaded}
        for name, held in {**names, f"{server_id}.json": version}.items():  # what it answers with comes last
            write_json(leases / name, Lease(version=held, pid=os.getpid()).model_dump())
        for file in leases.glob(f"{glob.escape(server_id)}~*.json"):
            if file.name not in names:
                file.unlink(missing_ok=True)

    def answering(self) -> dict[str, tuple[str | None, float]]:
        """Give each server's lease: server -> the version it answers with, and when it said so (seconds).

        None: it has stopped, or has no bundle. A lease that cannot be read is left out.
        """
        found = {}
        for file in (self.folder / "leases").glob("*.json"):
            if "~" not in file.name:
                with suppress(FileNotFoundError, RegistryError):
                    lease = Lease.parse(file.read_text(errors="replace"), str(file))
                    found[file.stem] = (lease.version, file.stat().st_mtime)
        return found

    def holding(self, version: str) -> set[str]:
        """List the servers that hold a version beside the one that they answer with, or are loading it."""
        pattern = f"*~{glob.escape(version)}.json"
        return {file.name.split("~", 1)[0] for file in (self.folder / "leases").glob(pattern)}

    def leased(self) -> set[str]:
        """List the versions that living servers have loaded or are loading.

        Raises: RegistryError for a lease that is torn or holds something else: its version may be in use.
        """
        while True:
            files = set((self.folder / "leases").glob("*.json"))
            with suppress(FileNotFoundError):
                fresh = [file for file in files if age_s(file) < LEASE_S + SKEW_S]
                leases = [Lease.parse(file.read_text(errors="replace"), str(file)) for file in fresh]
                if files == set((self.folder / "leases").glob("*.json")):
                    return {lease.version for lease in leases if lease.version is not None}
            # A server swaps: a version is moving from one file to another.

    @contextmanager
    def locked(self, name: str, *, wait: bool = True) -> Iterator[None]:
        """Hold a file lock that dies with the process.

        Raises: RegistryError at once, naming the holder, when another process has it and `wait` is False.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with process_lock(self.folder / f"{name}.lock", wait=wait):
            yield

    def _index_file(self, version: str) -> Path:
        return self.folder / "indexes" / f"{version}.json"

    def _record_file(self, version: str) -> Path:
        return self.folder / "records" / f"{version}.json"


def what_is_live(version: str | None) -> str:
    """Say what servers answer with."""
    return (
        f"{version} is live" if version else "nothing is live (servers answer with the log's popular items)"
    )


def _user() -> str:
    """Name the user of this process; a container may have only a number for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _replace_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def _read(file: Path, kind: type[_Kept]) -> _Kept | None:
    """Read a record's file; None when there is none. Raises: RegistryError, as `Record.parse`."""
    try:
        return kind.parse(file.read_text(errors="replace"), str(file))
    except FileNotFoundError:
        return None


def _write(file: Path, record: Record) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, record.model_dump(mode="json"))
