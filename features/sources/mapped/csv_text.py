"""The bytes of a CSV file, before Polars reads them: packing, encoding, quotes, why they cannot be read.

A stray quote makes Polars take many lines for one field, without a word where no one asked for that column.
"""

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import dropwhile
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from features.sources.mapped.mapping import Files
from recsys.errors import DataError

HEAD: Final = 1 << 16
_CHUNK: Final = 1 << 23
_LONGEST: Final = 1 << 26
"""Bytes of the longest row: a text of more is a quote that was never closed."""
_BOMS: Final = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_OTHER_FORMS: Final = {
    b"PK\x03\x04": "a zip archive or an Excel sheet: export it as CSV",
    b"PAR1": "Parquet: use `recsys convert parquet`",
    b"\xd0\xcf\x11\xe0": "an Excel sheet: export it as CSV",
}
_UTF8: Final = "utf-8"
# What decompression of a damaged file raises.
READ_ERRORS: Final = (OSError, EOFError, zlib.error, UnicodeError, csv.Error)


class Prepared(NamedTuple):
    """A file that Polars reads as it is meant."""

    path: Path
    """The file itself, or a copy in UTF-8."""
    before: int
    """Lines before the header, or before the first row where there is none."""


def prepare(path: Path, section: Files, scratch: Path) -> Prepared:
    """Check a file's bytes; what is not written in UTF-8 is copied.

    Raises: DataError naming the file, the row and the remedy.
    """
    with closing(_open(path)) as stream:
        head = stream.read(HEAD)
    for magic, form in _OTHER_FORMS.items():
        if head.startswith(magic):
            raise DataError(f"{path} is no CSV but {form}")
    encoding = section.encoding
    if encoding == _UTF8:
        _require_utf8(path, head)
    original, old_mac = path, b"\r" in head and b"\n" not in head
    if encoding != _UTF8 or old_mac:
        path = _rewrite(path, encoding, scratch)
    names, before = header_of(path, section)
    if not section.columns:
        require_distinct(names, original)
    columns = len(names) if len(section.columns) in (0, len(names)) else None
    with closing(_open(path)) as stream:
        long = _has_long_rows(stream, section, original, before + (0 if section.columns else 1), columns)
    if long:
        # Polars says nothing of them where only some columns are read: values would move to the next column.
        said = _ragged(path, section, encoding=_UTF8, filled=True)
        if said:
            raise DataError(f"{original} cannot be read as csv: {said}")
    return Prepared(path, before)


def header_of(path: Path, section: Files) -> tuple[list[str], int]:
    """Read the names of the columns, and how many lines stand before them: empty ones, and Excel's `sep=`."""
    with closing(_open(path)) as stream:
        lines = stream.read(HEAD).decode(_UTF8, errors="replace").removeprefix("\ufeff").split("\n")
    blank = _says_nothing(section)
    before = next((n for n, line in enumerate(lines) if not blank.fullmatch(line)), 0)
    return next(_records(lines[before:], section), []), before


def _says_nothing(section: Files) -> re.Pattern[str]:
    return re.compile(rf'(sep=.)?[\s"{re.escape(section.separator)}]*')


def require_distinct(names: Sequence[str], path: Path) -> None:
    """Check that no two columns share a name.

    Raises: DataError naming the name and the columns.
    """
    for name in dict.fromkeys(names):
        places = [str(n) for n, other in enumerate(names, start=1) if other == name]
        if name and len(places) > 1:
            raise DataError(
                f"{path}: {len(places)} columns are called {name!r} (columns {', '.join(places)}); "
                "give each a name of its own in the header"
            )


def explain_failure(path: Path, section: Files) -> str | None:
    """Say in which row a file stops being CSV: text in another encoding, or more fields than columns."""
    try:
        return _undecodable(path, section.encoding) or _ragged(path, section, section.encoding)
    except READ_ERRORS as error:
        return f"it is damaged or cut off ({error})"


def _open(path: Path) -> io.BufferedIOBase:
    """Open a file, unpacked."""
    with path.open("rb") as stream:
        magic = stream.read(4)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.open(path, "rb")
    if magic == b"\x28\xb5\x2f\xfd":
        return io.BufferedReader(_Zstandard(path))
    return path.open("rb")


class _Zstandard(io.RawIOBase):
    """A zstd file as Polars unpacks it: Python has no such codec before 3.14."""

    def __init__(self, path: Path) -> None:
        lines = pl.scan_lines(path, glob=False).collect_batches()
        self._parts: Iterator[bytes] = (("\n".join(b["line"].to_list()) + "\n").encode() for b in lines)
        self._rest = b""

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the part at hand goes."""
        self._rest = self._rest or next(self._parts, b"")
        taken = self._rest[: len(buffer)]
        buffer[: len(taken)] = taken
        self._rest = self._rest[len(taken) :]
        return len(taken)


def _chunks(stream: io.BufferedIOBase) -> Iterator[bytes]:
    """Give a file in parts, the last one empty."""
    while chunk := stream.read(_CHUNK):
        yield chunk
    yield b""


def _require_utf8(path: Path, head: bytes) -> None:
    named = next((name for bom, name in _BOMS.items() if head.startswith(bom)), None)
    if named is None and len(head) >= 4 and head.count(0) > len(head) / 3:
        named = "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
    if named is not None:
        raise DataError(f'{path} is written in {named.upper()}, not UTF-8; say encoding = "{named}"')


def _rewrite(path: Path, encoding: str, scratch: Path) -> Path:
    """Write a file anew in UTF-8, with lines as everywhere."""
    scratch.mkdir(parents=True, exist_ok=True)
    target = scratch / f"{len(list(scratch.iterdir()))}-{path.name.split('.')[0]}.csv"
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder(encoding)(), translate=True)
    with closing(_open(path)) as stream, target.open("w", encoding=_UTF8, newline="\n") as out:
        try:
            for chunk in _chunks(stream):
                out.write(decoder.decode(chunk, final=not chunk))
        except UnicodeError as error:
            said = _undecodable(path, encoding) or str(error)
            raise DataError(f"{path} cannot be read: {said}") from error
    return target


def _undecodable(path: Path, encoding: str) -> str | None:
    """Say on which line a file is not in an encoding, and which one it may be in."""
    decoder = codecs.getincrementaldecoder(encoding)()
    lines, plain = 1, True
    with closing(_open(path)) as stream:
        for chunk in _chunks(stream):
            try:
                text = decoder.decode(chunk, final=not chunk)
                lines, plain = lines + text.count("\n"), plain and text.isascii()
            except UnicodeDecodeError as error:
                before, bad = error.object[: error.start], error.object[error.start]
                lines += before.count(b"\n")
                other = f"what comes before is {encoding.upper()}: right this line"
                if encoding == _UTF8 and plain and before.isascii():
                    other = f'in Latin-1 it is {chr(bad)!r}: say encoding = "latin-1" (or "windows-1252")'
                return f"line {lines:,} holds the byte 0x{bad:02x}, which is no {encoding.upper()}; {other}"
            except UnicodeError as error:
                return f"it is not written in {encoding.upper()} ({error})"
    return None


def _ragged(path: Path, section: Files, encoding: str, *, filled: bool = False) -> str | None:
    """Name the first row with more fields than columns. Args: filled: only where one of these holds text."""
    with closing(_open(path)) as stream:
        text = io.TextIOWrapper(io.BufferedReader(stream), encoding=encoding, newline="")
        blank = _says_nothing(section)
        records = _records(dropwhile(lambda line: bool(blank.fullmatch(line)), text), section)
        columns = len(section.columns) or len(next((r for r in records if r), []))
        for row, record in enumerate(records, start=1):
            if len(record) > columns and (not filled or any(record[columns:])):
                return (
                    f"row {row:,} has {len(record)} fields, and there are {columns} columns: "
                    f"{section.separator.join(record)[:80]!r}; is the separator in a field?"
                )
    return None


def _records(lines: Iterator[str] | Sequence[str] | io.TextIOBase, section: Files) -> Iterator[list[str]]:
    if not section.quote:
        return csv.reader(lines, delimiter=section.separator, quoting=csv.QUOTE_NONE)
    return csv.reader(lines, delimiter=section.separator, quotechar=section.quote)


def _has_long_rows(
    stream: io.BufferedIOBase, section: Files, path: Path, before: int, columns: int | None
) -> bool:
    """Tell whether a row has more separators outside quotes than the columns need, and check the quotes.

    In every row that spans lines they must open and close whole fields.

    Args: before: lines before the first row; columns: None: no row is too long.
    Raises: DataError naming the row where a quote is astray.
    """
    strict = _strict_row(section) if section.quote else None
    rows, rest, long = 0, b"", False
    for chunk in _chunks(stream):
        data = rest + (chunk or b"\n")
        quotes = _places(data, section.quote)
        ends, spanning = _row_ends(data, quotes)
        for start, end in spanning:
            if strict is not None and not strict.fullmatch(data, start, end):
                row = rows + int(np.searchsorted(ends, start + 1)) + 1 - before
                raise DataError(_astray(path, row, data[start:end], section))
        if columns is not None and not long:
            marks = _places(data, section.separator)
            marks = marks[np.searchsorted(quotes, marks) % 2 == 0]
            counts = np.diff(np.searchsorted(marks, ends), prepend=0)
            long = bool(counts.max(initial=0) >= columns)
        cut = int(ends[-1]) + 1 if ends.size else 0
        rows, rest = rows + ends.size, data[cut:]
        open_quote = np.count_nonzero(quotes >= cut) % 2
        if open_quote and (not chunk or len(rest) > _LONGEST):
            raise DataError(_astray(path, rows + 1 - before, rest, section))
    return long


def _places(data: bytes, mark: str) -> np.ndarray:
    """Find where a mark stands; nowhere, where it is empty."""
    values = np.frombuffer(data, np.uint8)
    return np.flatnonzero(values == (ord(mark) if mark else -1))


def _row_ends(data: bytes, quotes: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Find the line ends outside quotes, and the rows that have line ends inside quotes."""
    lines = _places(data, "\n")
    inside = np.searchsorted(quotes, lines) % 2 == 1
    ends = lines[~inside]
    numbers = np.unique(np.searchsorted(ends, lines[inside]))
    numbers = numbers[numbers < ends.size]  # the last row may go on in the next chunk
    return ends, [(int(ends[n - 1]) + 1 if n else 0, int(ends[n])) for n in numbers]


def _strict_row(section: Files) -> re.Pattern[bytes]:
    """Give what a row that spans lines looks like: a field is quoted as a whole, or has no line end.

    A quoted text that begins and ends like the rest of a row is what lies between two lone quotes.
    """
    q, s = (re.escape(mark.encode()) for mark in (section.quote, section.separator))
    inner = b"(?:[^" + q + b"]|" + q + q + b")"
    ends = (
        b"(?=[" + s + rb"\r\n])" + inner + b"*?(?<=" + s + b")",
        b"(?=" + s + b")" + inner + rb"*?(?<=\n)",
    )
    lone = q + b"(?:" + b"|".join(ends) + b")" + q + b"(?!" + q + b")"
    quoted = b"(?!" + lone + b")" + q + inner + b"*+" + q
    plain = b"[^" + q + s + rb"\r\n][^" + s + rb"\r\n]*+"
    field = b"(?:" + quoted + b"|" + plain + b"|)"
    return re.compile(field + b"(?:" + s + field + rb")*\r?")


def _astray(path: Path, row: int, data: bytes, section: Files) -> str:
    line = next((part for part in data.split(b"\n") if part.count(section.quote.encode()) % 2), data)
    shown = line[:80].decode(_UTF8, errors="replace").strip()
    where = "the header" if row < 1 else f"row {row:,}"
    return (
        f"{path}: {where} has a {section.quote} that opens no field or closes none: {shown!r}; where quotes "
        f'are letters like any other, say quote = ""; else write a field with quotes as {section.quote}5'
        f"{section.quote}{section.quote} pipe{section.quote} (rows are counted from 1, without the header)"
    )
