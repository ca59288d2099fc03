"""The journal's record format: what a server appends as it answers, and what ingest reads back.

    file    = MAGIC record*
    record  = SYNC length:u32 crc:u32 payload            (little-endian; crc = CRC-32 of length and payload)
    payload = {"at": ms, "rows": [{"table", "same": {column: value}, "each": {column: [value, ...]}}]}  JSON

A record is one atomic thing: an answer with its impressions, a batch of feedback, a batch of items. SYNC
holds a byte that UTF-8 never contains, so a payload cannot look like the start of a record and a reader
finds its way again behind damage. A file whose last record is cut off was being written when its server
died: that tail is no damage, only not there.

`<stem>.open` is being written; `<stem>.journal` is sealed. Stems sort by time: instant, server, number of
the file.
"""

import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from recsys.errors import DataError

MAGIC = b"RECSYSJ1"
SYNC = b"\xf5JR\n"
OPEN_SUFFIX = ".open"
SEALED_SUFFIX = ".journal"
FOLDER = "journal"
MAX_PAYLOAD = 64 * 1024 * 1024
_HEADER = struct.Struct("<4sII")

_Found = TypeVar("_Found")
Value = str | int | float | bool | None | Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of one canonical table, by column; instants are milliseconds. Without `each` there is one row."""

    table: str
    same: Mapping[str, Value] = field(default_factory=dict)
    """Columns with one value for all rows."""
    each: Mapping[str, Sequence[Value]] = field(default_factory=dict)
    """Columns with a value per row; all equally long."""

    @property
    def num_rows(self) -> int:
        """Count the rows."""
        return len(next(iter(self.each.values()))) if self.each else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One atomic entry."""

    at_ms: int
    rows: tuple[Rows, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a journal file holds."""

    records: tuple[Record, ...]
    num_bytes: int
    """Length of what was read."""
    torn_bytes: int
    """Length of a cut-off tail: a server was killed while, or right before, it wrote."""
    damaged: tuple[tuple[int, int], ...]
    """(offset, length) of spans that are followed by good records and are none themselves: corruption."""


def encode(at_ms: int, rows: Sequence[Rows]) -> bytes:
    """Frame one record."""
    body = {"at": at_ms, "rows": [{"table": r.table, "same": r.same, "each": r.each} for r in rows]}
    payload = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    assert len(payload) <= MAX_PAYLOAD, len(payload)
    return _HEADER.pack(SYNC, len(payload), _checksum(payload)) + payload


def read(path: Path) -> Contents:
    """Read a journal file, sealed or still growing.

    Raises: DataError when the file cannot be read or is no journal of this format.
    """
    return decode(_read_bytes(path))


def decode(data: bytes) -> Contents:
    """Split a file's bytes into records, a torn tail, and damaged spans."""
    records: list[Record] = []
    damaged: list[tuple[int, int]] = []
    end = min(len(MAGIC), len(data))
    for position, payload in _payloads(data):
        if position > end:
            damaged.append((end, position - end))
        records.append(_parse(payload))
        end = position + _HEADER.size + len(payload)
    return Contents(
        records=tuple(records), num_bytes=len(data), torn_bytes=len(data) - end, damaged=tuple(damaged)
    )


def files(folder: Path) -> list[Path]:
    """List the journal files of a folder, open and sealed, in the order of their stems."""
    if not folder.is_dir():
        return []
    found = [p for p in folder.iterdir() if p.suffix in (OPEN_SUFFIX, SEALED_SUFFIX)]
    return sorted(found, key=lambda path: path.stem)


def replay(folder: Path, tables: frozenset[str]) -> Iterator[tuple[int, Rows]]:
    """Yield (at_ms, rows) of some tables from all files, oldest first; unreadable files are skipped."""
    marks = [f'"table":"{table}"'.encode() for table in tables]
    for path in files(folder):
        try:
            data = _read_bytes(path)
        except DataError:
            continue
        for _, payload in _payloads(data):
            if any(
                mark in payload for mark in marks
            ):  # parsing is the slow part, and most records are answers
                record = _parse(payload)
                yield from ((record.at_ms, rows) for rows in record.rows if rows.table in tables)


def stem(started_ms: int, server_id: str, number: int) -> str:
    """Name a file so that names sort by time."""
    instant = datetime.fromtimestamp(started_ms / 1000, UTC)
    return f"{instant:%Y%m%dT%H%M%S}{instant.microsecond // 1000:03d}Z-{server_id}-{number:05d}"


def size(path: Path) -> int:
    """Give a journal file's length, also when its server has sealed it since it was listed.

    Raises: DataError when there is no such file.
    """
    try:
        return _either_name(path, lambda p: p.stat().st_size)
    except OSError as error:
        raise DataError(f"the journal {path} cannot be read: {error.strerror}") from error


def _either_name(path: Path, look: Callable[[Path], _Found]) -> _Found:
    """Look at a file; a living server may rename it, once, between the listing and the look."""
    try:
        return look(path)
    except FileNotFoundError:
        if path.suffix != OPEN_SUFFIX:
            raise
        return look(path.with_suffix(SEALED_SUFFIX))


def _read_bytes(path: Path) -> bytes:
    try:
        data = _either_name(path, Path.read_bytes)
    except OSError as error:
        raise DataError(f"the journal {path} cannot be read: {error.strerror}") from error
    if not data.startswith(MAGIC[: len(data)]):
        raise DataError(
            f"{path} is not a journal of this format: it starts with {data[:8]!r}, expected {MAGIC!r}; "
            "read it with the recsys that wrote it, or move it out of the folder"
        )
    return data


def _payloads(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (position, payload) of every whole, unharmed record; damage is stepped over."""
    position = len(MAGIC)
    while position < len(data):
        payload = _payload_at(data, position)
        if payload is None:
            following = data.find(SYNC, position + 1)
            if following < 0:
                return
            position = following
            continue
        yield position, payload
        position += _HEADER.size + len(payload)


def _payload_at(data: bytes, position: int) -> bytes | None:
    """Give the payload of the record that starts here; None when there is no whole, unharmed one."""
    if len(data) - position < _HEADER.size:
        return None
    sync, length, checksum = _HEADER.unpack_from(data, position)
    start = position + _HEADER.size
    if sync != SYNC or length > len(data) - start:
        return None
    payload = data[start : start + length]
    return payload if _checksum(payload) == checksum else None


def _parse(payload: bytes) -> Record:
    body = json.loads(payload)
    return Record(at_ms=body["at"], rows=tuple(Rows(**rows) for rows in body["rows"]))


def _checksum(payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(len(payload).to_bytes(4, "little")))
