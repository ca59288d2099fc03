"""SQLite: one read-only file per version for the base, one WAL file for the delta. One host.

Pointer and collection are guarded by a lock on a file, so that several processes of the host may publish.
"""

import errno
import fcntl
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import uuid4

from features.store import Event, StoredUser
from recsys.config import StoreConfig
from recsys.errors import MissingUsersError, StoreError, StoreMovedError

_STEPS = 1_000
_EVENT = ", ".join(Event._fields)


class SQLiteStore:
    """Base and delta in one folder."""

    def __init__(self, folder: Path, config: StoreConfig) -> None:
        """Open, or make, the store's folder."""
        self.folder, self._config = folder, config
        self._local = threading.local()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with closing(self._writer()) as connection, connection:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS events (feedback_id TEXT NOT NULL, user_id TEXT NOT NULL, "
                    "item_id TEXT NOT NULL, kind TEXT NOT NULL, value REAL, received_at_ms INTEGER NOT NULL, "
                    "PRIMARY KEY (user_id, feedback_id)) WITHOUT ROWID"
                )
                connection.execute("CREATE INDEX IF NOT EXISTS by_user ON events (user_id, received_at_ms)")
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"cannot open the store {folder}: {error}; check the path and its rights"
            ) from error

    @classmethod
    def from_config(cls, config: StoreConfig, folder: Path) -> "SQLiteStore":
        """Open the store that a config names, in a folder."""
        return cls(folder, config)

    def get_many(
        self, version: str, user_ids: Sequence[str], within_s: float | None = None
    ) -> list[StoredUser]:
        """Read base and delta of users, in order.

        Raises: StoreError when the version is not there, or was not read in time.
        """
        # A request asks for one user: without the list the read takes half the time.
        one = len(user_ids) == 1
        theirs = "user_id = ?" if one else "user_id IN (SELECT value FROM json_each(?))"
        asked = (user_ids[0] if one else json.dumps(user_ids),)
        try:
            delta, base = self._delta(within_s), self._base(version)
            found = dict(base.execute(f"SELECT user_id, value FROM base WHERE {theirs}", asked))
            rows = delta.execute(
                f"SELECT {_EVENT} FROM events WHERE {theirs} ORDER BY received_at_ms, feedback_id", asked
            )
            events: dict[str, list[Event]] = {}
            for row in rows:
                events.setdefault(row[1], []).append(Event._make(row))
        except sqlite3.Error as error:
            raise StoreError(f"cannot read {self.folder} version {version}: {error}") from error
        newest = self._config.events_per_user
        return [StoredUser(found.get(u), tuple(events.get(u, ())[-newest:])) for u in user_ids]

    def append(self, events: Iterable[Event], within_s: float | None = None) -> int:
        """Add events to the delta, a feedback_id of a user once. Give how many were new."""
        timeout_ms = self._config.write_timeout_ms
        if within_s is not None:
            timeout_ms = min(timeout_ms, max(0, int(1000 * within_s)))
        rows = [(e.feedback_id, e.user_id, e.item_id, e.kind, e.value, e.received_at_ms) for e in events]
        try:
            with closing(self._connect(timeout_ms)) as connection, connection:
                before = connection.total_changes
                connection.executemany(f"INSERT OR IGNORE INTO events ({_EVENT}) VALUES (?,?,?,?,?,?)", rows)
                return connection.total_changes - before
        except sqlite3.Error as error:
            raise StoreError(f"cannot write {self.folder / 'delta.sqlite'}: {error}") from error

    def publish(
        self, version: str, values: Iterable[tuple[str, bytes]], meta: Mapping[str, str], expected: int
    ) -> int:
        """Write a version's base, verify it, and count its users. Publishing it again does nothing."""
        target = self._base_path(version)
        if target.is_file():
            return self._count(target)
        temporary = self.folder / f"base-{version}.{uuid4().hex[:8]}.tmp"
        try:
            with temporary.open("wb") as held:
                fcntl.flock(held, fcntl.LOCK_EX)  # held while the file is being written
                count = _write_base(temporary, values, meta)
                os.replace(temporary, target)
            return count
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"cannot publish {target}: {error}; free the disk and run again") from error
        finally:
            temporary.unlink(missing_ok=True)

    def publish_same(self, version: str, other: str) -> bool:
        """Link the base of another version; give False when that is not there."""
        source, target = self._base_path(other), self._base_path(version)
        try:
            with self._locked():
                if not target.is_file():
                    if not source.is_file():
                        return False
                    os.link(source, target)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
                raise StoreError(f"cannot publish {target}: {error}; free the disk and run again") from error
            return False  # a file system without links
        return True

    def activate(self, version: str, expect: str | None) -> None:
        """Point the store at a version, if it still points at `expect` (or already at that version)."""
        with self._locked():
            if not self._base_path(version).is_file():
                raise StoreError(f"{self._base_path(version)} is not there: publish version {version} first")
            live = self.current()
            if live not in (expect, version):
                raise StoreMovedError(
                    f"the store points at {live!r}, not at {expect!r}: another publisher was first; "
                    "look at what is live and run again"
                )
            temporary = self.folder / ".CURRENT.tmp"
            try:
                temporary.write_text(f"{version}\n")
                os.replace(temporary, self.folder / "CURRENT")
            except OSError as error:
                raise StoreError(f"cannot write {temporary}: {error}; free the disk and run again") from error

    def current(self) -> str | None:
        """Give the version the store points at."""
        try:
            return (self.folder / "CURRENT").read_text().strip() or None
        except FileNotFoundError:
            return None

    def gc(self, keep: Iterable[str], delta_before_ms: int) -> list[str]:
        """Remove all other versions, what killed publishers left, and older events; give the versions."""
        try:
            with self._locked():
                kept = {self._base_path(version) for version in (*keep, self.current() or "")}
                removed = [path for path in self.folder.glob("base-*.sqlite") if path not in kept]
                left = [path for path in self.folder.glob("base-*.tmp") if _is_left(path)]
                left += [*self.folder.glob(".CURRENT.tmp")]  # who writes it holds the lock
                for path in (*removed, *left):
                    path.unlink(missing_ok=True)
            with closing(self._writer()) as connection, connection:
                connection.execute("DELETE FROM events WHERE received_at_ms < ?", (delta_before_ms,))
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"cannot clean {self.folder}: {error}; run again") from error
        return sorted(path.stem.removeprefix("base-") for path in removed)

    def health(self) -> dict[str, str]:
        """Say how the store is; never raises."""
        try:
            self._delta().execute("SELECT 1").fetchone()
            current = self.current() or ""
        except (sqlite3.Error, OSError) as error:
            return {"status": "down", "error": str(error)}
        return {"status": "ok", "current": current}

    def close(self) -> None:
        """Close this thread's connections; other threads' go with them."""
        for held in (
            self._local.__dict__.pop("delta", (0, None))[1],
            self._local.__dict__.pop("base", ("", None))[1],
        ):
            if held is not None:
                held.close()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the store's lock; what is done under it takes milliseconds, so others simply wait."""
        try:
            stream = (self.folder / ".lock").open("wb")
        except OSError as error:
            raise StoreError(f"cannot lock {self.folder}: {error}; check the path and its rights") from error
        with stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _count(self, base: Path) -> int:
        try:
            with closing(_open_base(base)) as connection:
                return int(connection.execute("SELECT count(*) FROM base").fetchone()[0])
        except sqlite3.Error as error:
            raise StoreError(
                f"{base} is not a published base ({error}); remove it and publish again"
            ) from error

    def _base_path(self, version: str) -> Path:
        return self.folder / f"base-{version}.sqlite"

    def _base(self, version: str) -> sqlite3.Connection:
        """Give this thread's connection to a version; the file never changes, so no lock is ever taken."""
        held: tuple[str, sqlite3.Connection] | None = getattr(self._local, "base", None)
        if held is None or held[0] != version:
            path = self._base_path(version)
            if not path.is_file():
                raise MissingUsersError(
                    f"{path} is not there: version {version} was never published or was collected"
                )
            if held is not None:
                held[1].close()
            held = self._local.base = (version, self._stopping(_open_base(path)))
        return held[1]

    def _delta(self, within_s: float | None = None) -> sqlite3.Connection:
        """Give this thread's connection for one read, which waits for locks and goes on so long at most."""
        limit_ms = self._config.read_timeout_ms
        if within_s is not None:
            limit_ms = min(limit_ms, max(1, int(1000 * within_s)))
        self._local.until = time.monotonic() + limit_ms / 1000
        held: tuple[int, sqlite3.Connection] | None = getattr(self._local, "delta", None)
        if held is None:
            held = self._local.delta = (limit_ms, self._stopping(self._connect(limit_ms)))
        elif held[0] != limit_ms:
            held[1].execute(f"PRAGMA busy_timeout={limit_ms}")
            held = self._local.delta = (limit_ms, held[1])
        return held[1]

    def _stopping(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        """Let a read stop when its time is over; asked again after so many steps of SQLite's machine."""
        connection.set_progress_handler(lambda: time.monotonic() > self._local.until, _STEPS)
        return connection

    def _writer(self) -> sqlite3.Connection:
        return self._connect(self._config.write_timeout_ms)

    def _connect(self, timeout_ms: int) -> sqlite3.Connection:
        connection = sqlite3.connect(self.folder / "delta.sqlite", timeout=timeout_ms / 1000)
        # The journal is the durable copy; this one is rebuilt from it.
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection


def _is_left(path: Path) -> bool:
    """Tell whether a temporary file is abandoned: its lock ends with its process."""
    with path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _open_base(path: Path) -> sqlite3.Connection:
    """Open a base that never changes; as_uri quotes what a path may hold (spaces, ?, %)."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)


def _write_base(path: Path, values: Iterable[tuple[str, bytes]], meta: Mapping[str, str]) -> int:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA page_size=16384")  # a user of 1 kB shares its page
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        with connection:
            connection.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
            connection.executemany("INSERT INTO meta VALUES (?, ?)", sorted(meta.items()))
            connection.execute(
                "CREATE TABLE base (user_id TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
            )
            written = connection.executemany("INSERT INTO base VALUES (?, ?)", values).rowcount
        count = int(connection.execute("SELECT count(*) FROM base").fetchone()[0])
        if count != max(written, 0) or connection.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
            raise StoreError(
                f"{path} does not read back what was written ({count} of {written} users); check the disk"
            )
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
    return count
