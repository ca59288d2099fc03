"""Read sequences: `<name>.txt`, a user and their items in order a line, and the items' attributes beside it.

Numbers or names, between blanks. `<name>_item2attributes.json` maps an item to the list of its attributes and
may be missing; items that no user has are passed over. Both may be packed (.gz, .xz).

Shapes: U users, N events, I items, A attributes.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.quality.readers.published_files import UNPACK, found, unpacked
from recsys.errors import DataError

ATTRIBUTES = "_item2attributes.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """All events of a set, by user and in order."""

    name: str
    users: np.ndarray
    """int64 [N], rising from 0."""
    items: np.ndarray
    """int64 [N], rows of the catalogue, which is all items of the file."""
    num_users: int
    num_items: int
    attributes: Any
    """Sparse [I, A], 1 where an item has one; None: the set has no such file."""


def read_sequences(folder: Path) -> Sequences:
    """Read the one set in a folder.

    Raises: DataError when there is none or more than one, or a file is not of the form.
    """
    path = _only_set(folder)
    words = [line.split() for line in _text(path).splitlines()]
    lines = [(number, line) for number, line in enumerate(words, 1) if line]
    seen: dict[str, int] = {}
    for number, line in lines:
        if len(line) < 2:
            raise DataError(f"{path} line {number} has only {line[0]!r}; a line is a user and their items")
        if line[0] in seen:
            raise DataError(
                f"{path} line {number}: user {line[0]} has line {seen[line[0]]} too; put all items of a user "
                "on one line, oldest first (a file of one pair a line is not of this form)"
            )
        seen[line[0]] = number
    if not lines:
        raise DataError(f"{path} is empty; give a user and their items a line, oldest first")
    names = pl.Series([item for _, line in lines for item in line[1:]])
    catalogue = _in_order(names.unique())
    rows = pl.DataFrame({"item": catalogue}).with_row_index("row")
    items = names.to_frame("item").join(rows, on="item", how="left", maintain_order="left")["row"]
    return Sequences(
        name=path.name.removesuffix(
            "".join(path.suffixes[-2:] if path.suffix in UNPACK else path.suffixes[-1:])
        ),
        users=np.repeat(np.arange(len(lines)), [len(line) - 1 for _, line in lines]),
        items=items.to_numpy().astype(np.int64),
        num_users=len(lines),
        num_items=catalogue.len(),
        attributes=_attributes(path, catalogue),
    )


def _only_set(folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; --data is the folder of <name>.txt")
    sets = sorted(p for p in folder.iterdir() if p.name.endswith(tuple(f".txt{packed}" for packed in UNPACK)))
    if len(sets) != 1:
        there = ", ".join(path.name for path in sets) if sets else "none"
        raise DataError(f"{folder} needs one file <name>.txt (or .gz, .xz) and has: {there}")
    return sets[0]


def _text(path: Path) -> str:
    try:
        return UNPACK.get(path.suffix, bytes)(path.read_bytes()).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8: {error}") from error
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be unpacked: {error}; download it again") from error


def _in_order(names: pl.Series) -> pl.Series:
    """Sort by number where all are numbers, else by name."""
    numbers = names.cast(pl.Int64, strict=False)
    return names.sort() if numbers.null_count() else names.gather(numbers.arg_sort())


def _attributes(path: Path, catalogue: pl.Series) -> Any:
    from scipy import sparse

    file = path.with_name(path.name.split(".txt")[0] + ATTRIBUTES)
    if found(file) is None:
        return None
    try:
        table = json.loads(unpacked(file))
    except ValueError as error:
        raise DataError(f"{file} is no JSON: {error}") from error
    if not isinstance(table, dict) or not all(isinstance(of, list) for of in table.values()):
        raise DataError(f"{file} must be one object of lists: item -> its attributes")
    row_of = {name: row for row, name in enumerate(catalogue)}
    pairs = [
        (row_of[item], str(one)) for item, of in table.items() if item in row_of for one in set(map(str, of))
    ]
    columns = {name: column for column, name in enumerate(sorted({name for _, name in pairs}))}
    cells = ([row for row, _ in pairs], [columns[name] for _, name in pairs])
    ones = np.ones(len(pairs), np.float32)
    return sparse.csr_matrix((ones, cells), (catalogue.len(), len(columns))) if pairs else None
