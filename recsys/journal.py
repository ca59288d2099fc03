"""The journal's record format, which servers write and ingest reads.

    file    = MAGIC record*
    record  = SYNC length:u32 crc:u32 payload            (little-endian; crc = CRC-32 of length and payload)
    payload = {"at": ms, "rows": [{"table", "same": {column: value}, "each": {column: [value, ...]}}]}  JSON

A record is atomic: an answer with its impressions, a batch of feedback, or a batch of items. SYNC contains a
byte that UTF-8 never contains, so no payload contains the start of a record, and a reader finds the next
record after a damaged one. When a server is killed while it writes, the last record of its file is cut off.
Readers ignore this torn tail; it does not count as damage.

`<stem>.open` is being written; `<stem>.journal` is sealed. Stems sort by time: instant, server, number of
the file.
"""

import json
import os
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
_TAIL_BYTES = 64 * 1024
# Threads write records in about the order of their instants; after a step of the clock it is another.
_DISORDER_MS = 3_600_000
_HEADER = struct.Struct("<4sII")

_Found = TypeVar("_Found")
Value = str | int | float | bool | None | Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of one canonical table, by column; instants are milliseconds. Without `each` it is one row."""

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
    """The contents of a journal file."""

    records: tuple[Record, ...]
    num_bytes: int
    """Number of bytes read."""
    torn_bytes: int
    """Length of the torn tail: a record cut off because its server was killed."""
    damaged: tuple[tuple[int, int], ...]
    """(offset, length) of corrupt spans: no records themselves, but followed by records."""


def encode(at_ms: int, rows: Sequence[Rows]) -> bytes:
    """Encode one record."""
    body = {"at": at_ms, "rows": [{"table": r.table, "same": r.same, "each": r.each} for r in rows]}
    payload = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    assert len(payload) <= MAX_PAYLOAD, len(payload)
    return _HEADER.pack(SYNC, len(payload), _checksum(payload)) + payload


def read(path: Path) -> Contents:
    """Read a journal file, sealed or still growing.

    Raises: DataError when the file cannot be read or is not a journal of this format.
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


def records_of(data: bytes, tables: frozenset[str], start: int = len(MAGIC)) -> tuple[list[Record], int]:
    """Read the records that have rows of some tables from a file's bytes, from the start of a record on.

    Return them, without their other rows, and where the last whole record of any table ends.
    """
    marks = [f'"table":"{table}"'.encode() for table in tables]
    found: list[Record] = []
    end = start
    for position, payload in _payloads(data, start):
        end = position + _HEADER.size + len(payload)
        if any(mark in payload for mark in marks):  # parsing is slow, and most records are answers
            record = _parse(payload)
            rows = tuple(rows for rows in record.rows if rows.table in tables)
            if rows:
                found.append(Record(at_ms=record.at_ms, rows=rows))
    return found, end


def ended_before(path: Path, since_ms: int) -> bool:
    """Tell whether a file's last record is older; False when its end shows no record.

    Raises: DataError when there is no such file.
    """
    if path.stem >= stem(max(0, since_ms), "", 0):
        return False
    try:
        tail = _either_name(path, _read_tail)
    except OSError as error:
        raise DataError(f"the journal {path} cannot be read: {error.strerror}") from error
    last = _last_payload(tail)
    return last is not None and _parse(last).at_ms + _DISORDER_MS < since_ms


def _last_payload(tail: bytes) -> bytes | None:
    position = tail.rfind(SYNC)
    while position >= 0:
        payload = _payload_at(tail, position)
        if payload is not None:
            return payload
        position = tail.rfind(SYNC, 0, position)
    return None


def _read_tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-min(_TAIL_BYTES, os.fstat(file.fileno()).st_size), os.SEEK_END)
        return file.read()


def stem(started_ms: int, server_id: str, number: int) -> str:
    """Return a file's stem; stems sort by time."""
    instant = datetime.fromtimestamp(started_ms / 1000, UTC)
    return f"{instant:%Y%m%dT%H%M%S}{instant.microsecond // 1000:03d}Z-{server_id}-{number:05d}"


def server_of(file_stem: str) -> str:
    """Return the server that writes a file of this stem; empty for a name of another form."""
    return file_stem.partition("-")[2].rpartition("-")[0]


def size(path: Path) -> int:
    """Return a journal file's length, even when its server has renamed it since it was listed.

    Raises: DataError when there is no such file.
    """
    try:
        return _either_name(path, lambda p: p.stat().st_size)
    except OSError as error:
        raise DataError(f"the journal {path} cannot be read: {error.strerror}") from error


def _either_name(path: Path, look: Callable[[Path], _Found]) -> _Found:
    """Read from a file, which its server may have renamed (sealed) once since it was listed."""
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
    check_magic(path, data)
    return data


def check_magic(path: Path, data: bytes) -> None:
    """Check how a file begins.

    Raises: DataError for another format.
    """
    if not data.startswith(MAGIC[: len(data)]):
        raise DataError(
            f"{path} is not a journal of this format: it starts with {data[:8]!r}, expected {MAGIC!r}; "
            "read it with the recsys that wrote it, or move it out of the folder"
        )


def _payloads(data: bytes, start: int = len(MAGIC)) -> Iterator[tuple[int, bytes]]:
    """Yield (position, payload) of every whole, undamaged record; damaged ones are skipped."""
    position = start
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
    """Return the payload of the record at a position; None without a whole, undamaged one."""
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
