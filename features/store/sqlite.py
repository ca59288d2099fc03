"""SQLite: one read-only file per version for the base, one WAL file for the delta. One host."""

import os
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from features.store import Event, StoredUser
from recsys.errors import StoreError

TIMEOUT_S = 0.05
"""How long a read may wait for a lock before the answer is degraded."""
WRITE_TIMEOUT_S = 5.0
_EVENT = "feedback_id, user_id, item_id, kind, value, received_at_ms"


class SQLiteStore:
    """Base and delta in one folder."""

    def __init__(self, folder: Path) -> None:
        """Open, or make, the store's folder."""
        self.folder = folder
        self._local = threading.local()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with closing(self._delta_connection(WRITE_TIMEOUT_S)) as connection, connection:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS events (feedback_id TEXT PRIMARY KEY, user_id TEXT NOT NULL, "
                    "item_id TEXT NOT NULL, kind TEXT NOT NULL, value REAL, received_at_ms INTEGER NOT NULL) "
                    "WITHOUT ROWID"
                )
                connection.execute("CREATE INDEX IF NOT EXISTS by_user ON events (user_id, received_at_ms)")
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"cannot open the store {folder}: {error}; check the path and its rights"
            ) from error

    def get_many(self, version: str, user_ids: Sequence[str]) -> list[StoredUser]:
        """Read base and delta of users, in order. Raises: StoreError when the version is not there."""
        marks = ",".join("?" * len(user_ids))
        try:
            found = dict(
                self._base(version).execute(
                    f"SELECT user_id, value FROM base WHERE user_id IN ({marks})", user_ids
                )
            )
            rows = self._delta().execute(
                f"SELECT {_EVENT} FROM events WHERE user_id IN ({marks}) "
                "ORDER BY received_at_ms, feedback_id",
                user_ids,
            )
            events: dict[str, list[Event]] = {}
            for row in rows:
                events.setdefault(row[1], []).append(_event(row))
        except sqlite3.Error as error:
            raise StoreError(f"cannot read {self.folder} version {version}: {error}") from error
        return [StoredUser(found.get(u), tuple(events.get(u, ()))) for u in user_ids]

    def append(self, events: Iterable[Event]) -> int:
        """Add events to the delta; a feedback_id already there is left alone. Give how many were new."""
        rows = [(e.feedback_id, e.user_id, e.item_id, e.kind, e.value, e.received_at_ms) for e in events]
        try:
            with closing(self._delta_connection(WRITE_TIMEOUT_S)) as connection, connection:
                before = connection.total_changes
                connection.executemany(f"INSERT OR IGNORE INTO events ({_EVENT}) VALUES (?,?,?,?,?,?)", rows)
                return connection.total_changes - before
        except sqlite3.Error as error:
            raise StoreError(f"cannot write {self.folder / 'delta.sqlite'}: {error}") from error

    def publish(self, version: str, values: Iterable[tuple[str, bytes]], meta: Mapping[str, str]) -> int:
        """Write a version's base, verify it, and count its users. Publishing it again does nothing."""
        target = self._base_path(version)
        if target.is_file():
            return self._count(target)
        temporary = target.with_suffix(f".{os.getpid()}.tmp")
        temporary.unlink(missing_ok=True)
        try:
            count = _write_base(temporary, values, meta)
            os.replace(temporary, target)
            return count
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"cannot publish {target}: {error}; free the disk and run again") from error
        finally:
            temporary.unlink(missing_ok=True)

    def activate(self, version: str, expect: str | None) -> None:
        """Point the store at a version, if it still points at `expect`."""
        if not self._base_path(version).is_file():
            raise StoreError(f"{self._base_path(version)} is not there: publish version {version} first")
        if self.current() not in (expect, version):
            raise StoreError(
                f"the store points at {self.current()!r}, not at {expect!r}: somebody else published"
            )
        temporary = self.folder / f".CURRENT.{os.getpid()}.tmp"
        temporary.write_text(f"{version}\n")
        os.replace(temporary, self.folder / "CURRENT")

    def current(self) -> str | None:
        """Give the version the store points at."""
        try:
            return (self.folder / "CURRENT").read_text().strip() or None
        except FileNotFoundError:
            return None

    def gc(self, keep: Iterable[str], delta_before_ms: int) -> list[str]:
        """Remove all other versions and older delta events; give the versions removed."""
        kept = {self._base_path(version) for version in keep}
        removed = [path for path in self.folder.glob("base-*.sqlite") if path not in kept]
        try:
            for path in removed:
                path.unlink()
            with closing(self._delta_connection(WRITE_TIMEOUT_S)) as connection, connection:
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
                raise StoreError(
                    f"{path} is not there: version {version} was never published or was collected"
                )
            connection = _open_base(path)
            held = self._local.base = (version, connection)
        return held[1]

    def _delta(self) -> sqlite3.Connection:
        held: sqlite3.Connection | None = getattr(self._local, "delta", None)
        if held is None:
            held = self._local.delta = self._delta_connection(TIMEOUT_S)
        return held

    def _delta_connection(self, timeout_s: float) -> sqlite3.Connection:
        connection = sqlite3.connect(self.folder / "delta.sqlite", timeout=timeout_s)
        connection.execute(
            "PRAGMA synchronous=NORMAL"
        )  # the journal is the durable copy; this one is rebuilt from it
        return connection


def _open_base(path: Path) -> sqlite3.Connection:
    """Open a base that never changes; as_uri quotes what a path may hold (spaces, ?, %)."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, timeout=TIMEOUT_S)


def _write_base(path: Path, values: Iterable[tuple[str, bytes]], meta: Mapping[str, str]) -> int:
    with closing(sqlite3.connect(path)) as connection:
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


def _event(row: tuple[str, str, str, str, float | None, int]) -> Event:
    feedback_id, user_id, item_id, kind, value, received_at_ms = row
    return Event(
        feedback_id=feedback_id,
        user_id=user_id,
        item_id=item_id,
        kind=kind,
        value=value,
        received_at_ms=received_at_ms,
    )
