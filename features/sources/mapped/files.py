"""Find a user's files and scan them lazily; every missing piece is named with what is there instead."""

import difflib
import glob
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from features.sources.mapped.mapping import Files
from recsys.errors import DataError

ROW: Final = "__row"
SUFFIXES: Final = {
    "csv": (".csv", ".csv.gz", ".csv.zst", ".tsv", ".tsv.gz", ".txt", ".txt.gz"),
    "parquet": (".parquet", ".pq"),
}


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """One file of a section: its rows are scanned, nothing is read yet; `ROW` numbers them from 1."""

    path: Path
    frame: pl.LazyFrame
    schema: pl.Schema


def scan_section(
    src: Path, section: Files, form: str, where: str, needed: Collection[str]
) -> list[ScannedFile]:
    """Scan the files of one section of the mapping and check that the columns are there.

    Args: where: the section's name in messages, such as "[events]".
    Raises: DataError naming the folder, the pattern, the file or the column, and what is there instead.
    """
    scanned = [_scan(path, section, form) for path in find_files(src, section.files, form, where)]
    for file in scanned:
        _require(file, needed, where)
    return scanned


def find_files(src: Path, pattern: str | None, form: str, where: str) -> list[Path]:
    """List a section's files, sorted by name.

    Raises: DataError when there is none.
    """
    suffixes = SUFFIXES[form]
    if pattern is not None:
        root = src if src.is_dir() else src.parent
        found = sorted(path for path in root.glob(pattern) if path.is_file())
        what = f"{where} files = {pattern!r}"
    elif src.is_dir():
        found = sorted(p for p in src.iterdir() if p.is_file() and p.name.endswith(suffixes))
        root, what = src, f"{where} names no files, and no file ending in {', '.join(suffixes)}"
    else:
        found = [src] if src.is_file() else sorted(Path(p) for p in glob.glob(str(src)) if Path(p).is_file())
        root, what = src.parent, f"{where}: SRC {src}"
    if not found:
        raise DataError(f"{what}: not found in {root}; {_listing(root)}")
    return found


def read_columns(file: ScannedFile) -> list[str]:
    """List a file's own columns."""
    return [name for name in file.schema if name != ROW]


def closest(name: str, known: Sequence[str]) -> str:
    """Say which known name is meant, if one is near."""
    lowered = {k.lower().strip(): k for k in known}
    match = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return f"; did you mean {lowered[match[0]]!r}?" if match else ""


def _listing(root: Path) -> str:
    if not root.is_dir():
        return f"{root} is not a folder"
    names = sorted(p.name for p in root.iterdir() if p.is_file())
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return f"it has {shown}" if names else "it has no files"


def _scan(path: Path, section: Files, form: str) -> ScannedFile:
    try:
        frame = _scan_csv(path, section) if form == "csv" else pl.scan_parquet(
            path, hive_partitioning=False, row_index_name=ROW, row_index_offset=1
        )  # fmt: skip
        schema = frame.collect_schema()
        if form == "csv":
            frame.head(5).collect()
    except (pl.exceptions.PolarsError, OSError, UnicodeError) as error:
        raise DataError(unreadable(path, form, error)) from error
    return ScannedFile(path, frame, schema)


def unreadable(path: Path | str, form: str, error: Exception) -> str:
    """Say why a file cannot be read and what to do."""
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    remedy = "restore it, or leave it out with `files`"
    if form == "csv":
        remedy = "check `separator` and quotes; text must be UTF-8 (iconv -f latin1 -t utf-8), one line a row"
    return f"{path} cannot be read as {form} ({said}); {remedy}"


def _scan_csv(path: Path, section: Files) -> pl.LazyFrame:
    named = bool(section.columns)
    frame = pl.scan_csv(
        path,
        has_header=not named,
        separator=section.separator,
        infer_schema=False,
        null_values=list(section.nulls),
        row_index_name=ROW,
        row_index_offset=1,
        glob=False,
    )
    if not named:
        return frame
    found = [name for name in frame.collect_schema() if name != ROW]
    if len(found) != len(section.columns):
        raise DataError(
            f"{path} has {len(found)} columns, and `columns` of the mapping names {len(section.columns)}: "
            f"{', '.join(section.columns)}; name them all, in order"
        )
    return frame.rename(dict(zip(found, section.columns, strict=True)))


def _require(file: ScannedFile, needed: Collection[str], where: str) -> None:
    found = read_columns(file)
    for name in needed:
        if name not in found:
            raise DataError(
                f"{file.path}: no column {name!r}, which {where} of the mapping names{closest(name, found)} "
                f"(it has {', '.join(map(repr, found))})"
            )
