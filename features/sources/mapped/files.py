"""Find a user's files and scan them lazily; every missing piece is named with what is there instead."""

import difflib
import glob
import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from features.sources.mapped.csv_text import READ_ERRORS, explain_failure, prepare
from features.sources.mapped.mapping import Files
from features.sources.mapped.panics import quiet_panics
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
    section: Files
    form: str


def scan_section(
    src: Path, section: Files, form: str, where: str, needed: Collection[str], scratch: Path
) -> list[ScannedFile]:
    """Scan the files of one section of the mapping and check that the columns are there.

    Args: where: the section's name in messages, such as "[events]"; scratch: for files that are rewritten.
    Raises: DataError naming the folder, the pattern, the file or the column, and what is there instead.
    """
    scanned = [_scan(path, section, form, scratch) for path in find_files(src, section.files, form, where)]
    for file in scanned:
        _require(file, needed, where)
    return scanned


@contextmanager
def reading(files: Sequence[ScannedFile]) -> Iterator[None]:
    """Turn what Polars says while it reads some files into a sentence.

    Raises: DataError naming the first file at fault, the row where it can be told, and the remedy.
    """
    with _sentences(lambda error: _blame(files, error)):
        yield


def _blame(files: Sequence[ScannedFile], error: BaseException) -> str:
    for file in files if files[0].form == "csv" else ():
        found = explain_failure(file.path, file.section)
        if found is not None:
            return f"{file.path} cannot be read as csv: {found}"
    return unreadable(", ".join(str(f.path) for f in files[:5]), files[0].form, error)


@contextmanager
def _sentences(say: Callable[[BaseException], str]) -> Iterator[None]:
    try:
        with quiet_panics():
            yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, *READ_ERRORS) as error:
        raise DataError(say(error)) from error


def find_files(src: Path, pattern: str | None, form: str, where: str) -> list[Path]:
    """List a section's files, sorted by name.

    Raises: DataError when there is none.
    """
    suffixes = SUFFIXES[form]
    if not src.exists() and not glob.has_magic(str(src)):
        others = [p.name for p in src.parent.iterdir()] if src.parent.is_dir() else []
        raise DataError(
            f"SRC {src}: not found in {src.parent}{closest(src.name, others)}; {_listing(src.parent)}"
        )
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
    names = sorted(p.name + ("/" if p.is_dir() else "") for p in root.iterdir())
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return f"it has {shown}" if names else "it has no files"


def _scan(path: Path, section: Files, form: str, scratch: Path) -> ScannedFile:
    def say(error: BaseException) -> str:
        found = explain_failure(path, section) if form == "csv" else None
        return f"{path} cannot be read as csv: {found}" if found else unreadable(path, form, error)

    _know_intervals()
    with _sentences(say):
        frame = _scan_csv(path, section, scratch) if form == "csv" else pl.scan_parquet(
            path, hive_partitioning=False, row_index_name=ROW, row_index_offset=1, glob=False
        )  # fmt: skip
        schema = frame.collect_schema()
    return ScannedFile(path, frame, schema, section, form)


def _know_intervals() -> None:
    """Let Polars read the other columns of a file with intervals, as DuckDB and Spark write them."""
    os.environ.setdefault("POLARS_IMPORT_INTERVAL_AS_STRUCT", "1")
    reload = getattr(pl.Config, "reload_env_vars", None)  # older versions read the variable each time
    if reload is not None:
        reload()


def unreadable(path: Path | str, form: str, error: BaseException) -> str:
    """Say why a file cannot be read and what to do."""
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, pl.exceptions.PanicException):
        said = "it is damaged, or of a kind that Polars does not know"
    remedy = "restore it, or leave it out with `files`"
    if form == "csv":
        remedy = "check `separator`, `quote` and `encoding`; one line a row"
    return f"{path} cannot be read as {form} ({said}); {remedy}"


def _scan_csv(path: Path, section: Files, scratch: Path) -> pl.LazyFrame:
    named = bool(section.columns)
    text = prepare(path, section, scratch)
    frame = pl.scan_csv(
        text.path,
        has_header=not named,
        separator=section.separator,
        quote_char=section.quote or None,
        skip_lines=text.before,
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
    headless = file.form == "csv" and not file.section.columns and not {*needed} & {*found} and len(found) > 1
    for name in needed:
        if name not in found:
            raise DataError(
                f"{file.path}: no column {name!r}, which {where} of the mapping names{closest(name, found)} "
                f"(it has {', '.join(map(repr, found))}){_separator_hint(file, found)}"
                + ("; if its first line is a row, name the columns with `columns`" if headless else "")
            )


def _separator_hint(file: ScannedFile, found: Sequence[str]) -> str:
    """Guess the separator of a file that seems to have one column."""
    others = [mark for mark in ";\t|," if len(found) == 1 and mark in found[0]]
    return f"; say separator = {json.dumps(others[0])}" if others and file.form == "csv" else ""
