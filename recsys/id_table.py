"""Ids -> rows without a Python object an id: one blob of text, offsets, and sorted 64-bit hashes.

A million ids of eight characters take 36 to 40 MB here; a dict of them takes 170 MB. The arrays are the same
in every process, so that several may share them.

A hash is found by its first bits: `firsts` has a place for each value of them, about as many as there are
ids. A binary search would read a dozen lines of memory that no cache holds, this reads two.

Legend: I ids in the table, N ids asked for.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import polars as pl

from recsys.mapped_tensors import map_array

# A polynomial hash, Horner's rule modulo 2^64, multiplied once more: ids that differ in their last character
# alone differ in their first bits. Equal hashes of different ids are told apart by their bytes.
_FACTOR = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1
_HASH_BITS = 64
_CHUNK = 65_536
MISSING = -1
_FEW = 8
"""So many ids are looked up sooner one by one than all at once."""


@dataclass(frozen=True, slots=True)
class IdTable:
    """Distinct ids, each with its row 0 .. I - 1."""

    blob: np.ndarray
    """uint8 [bytes], all ids as UTF-8, one after the other."""
    offsets: np.ndarray
    """int64 [I + 1]: where each id begins in the blob."""
    hashes: np.ndarray
    """uint64 [I], ascending."""
    rows: np.ndarray
    """int32 [I]: the row of each hash."""
    firsts: np.ndarray
    """int32 [2^b]: how many hashes begin with lower b bits than these."""

    @classmethod
    def of(cls, ids: pl.Series) -> "IdTable":
        """Build a table of distinct texts without nulls, in their order."""
        ids = ids.cast(pl.String)
        text = ids.str.join("").item() if ids.len() else ""
        blob = np.frombuffer((text or "").encode(), np.uint8)
        offsets = np.zeros(ids.len() + 1, np.int64)
        np.cumsum(ids.str.len_bytes().to_numpy(), out=offsets[1:])
        parts = [np.zeros(0, np.uint64)]
        for start in range(0, ids.len(), _CHUNK):
            ends = offsets[start : start + _CHUNK + 1]
            parts.append(_hashes(blob[ends[0] : ends[-1]], np.diff(ends)))
        hashes = np.concatenate(parts)
        rows = np.argsort(hashes, kind="stable")
        num_bits = max(1, hashes.size.bit_length())
        begins = np.arange(1 << num_bits, dtype=np.uint64) << np.uint64(_HASH_BITS - num_bits)
        firsts = np.searchsorted(hashes[rows], begins).astype(np.int32)
        return cls(blob, offsets, hashes[rows], rows.astype(np.int32), firsts)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays by name: `IdTable(**arrays)` is the same table."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def write(self, folder: Path) -> None:
        """Write the arrays into a folder; `map` opens them."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in self.arrays.items():
            np.save(folder / f"{name}.npy", array)

    @classmethod
    def map(cls, folder: Path) -> "IdTable":
        """Map what `write` wrote; the caller has made sure that nobody else could change it.

        Raises: OSError when a file is not there.
        """
        return cls(**{field.name: map_array(folder / f"{field.name}.npy") for field in fields(cls)})

    def __iter__(self) -> Iterator[str]:
        return (self[row] for row in range(len(self)))

    def __len__(self) -> int:
        return self.rows.size

    def __getitem__(self, row: int) -> str:
        """Return the id of a row."""
        return self.blob[self.offsets[row] : self.offsets[row + 1]].tobytes().decode()

    def row_of(self, item_id: str) -> int:
        """Return the row of an id; MISSING when the table does not have it."""
        text = item_id.encode()
        wanted = 0
        for byte in text:
            wanted = (wanted + byte + 1) * _FACTOR & _WORD
        at = int(self.firsts[wanted >> self._shift])
        while at < self.hashes.size and (here := int(self.hashes[at])) <= wanted:
            if here == wanted:
                row = int(self.rows[at])
                if self.blob[self.offsets[row] : self.offsets[row + 1]].tobytes() == text:
                    return row
            at += 1
        return MISSING

    def rows_of(self, item_ids: Iterable[str]) -> np.ndarray:
        """Return the rows int64 [N] of ids; MISSING where the table does not have one."""
        asked = list(item_ids)
        if len(asked) <= _FEW:
            return np.fromiter(map(self.row_of, asked), np.int64, len(asked))
        texts = [item_id.encode() for item_id in asked]
        rows = np.full(len(texts), MISSING, np.int64)
        if not len(self):
            return rows
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        blob = np.frombuffer(b"".join(texts), np.uint8)
        begins = np.cumsum(lengths) - lengths
        wanted = _hashes(blob, lengths)
        at = self.firsts[wanted >> np.uint64(self._shift)].astype(np.int64)
        open_ = np.arange(len(texts))  # not yet found, and not yet known to be missing
        while True:
            open_ = open_[at[open_] < self.hashes.size]
            here = self.hashes[at[open_]]
            reached = here <= wanted[open_]
            open_, met = open_[reached], (here == wanted[open_])[reached]
            if not open_.size:
                return rows
            places = open_[met]
            row = self.rows[at[places]].astype(np.int64)
            same = self._equal(row, blob, begins[places], lengths[places])
            rows[places[same]] = row[same]
            met[met] = same
            open_ = open_[~met]
            at[open_] += 1

    def ids_of(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """List the ids of rows [N]."""
        at = np.asarray(rows, np.int64)
        text = self.blob.data
        spans = zip(self.offsets[at].tolist(), self.offsets[at + 1].tolist(), strict=True)
        return [str(text[start:end], "utf-8") for start, end in spans]

    @property
    def _shift(self) -> int:
        """Return how many bits of a hash `firsts` does not look at."""
        return _HASH_BITS + 1 - self.firsts.size.bit_length()

    def _equal(
        self, rows: np.ndarray, blob: np.ndarray, begins: np.ndarray, lengths: np.ndarray
    ) -> np.ndarray:
        """Tell for each row [N] whether its id is the text that begins in a blob there."""
        starts = self.offsets[rows]
        same: np.ndarray = self.offsets[rows + 1] - starts == lengths
        compared = np.flatnonzero(same & (lengths > 0))
        if compared.size:
            num = lengths[compared]
            ends = np.cumsum(num)
            inside = np.arange(ends[-1]) - np.repeat(ends - num, num)
            own = self.blob[np.repeat(starts[compared], num) + inside]
            differs = own != blob[np.repeat(begins[compared], num) + inside]
            same[compared] = np.add.reduceat(differs, ends - num, dtype=np.int64) == 0
        return same


def _hashes(blob: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Hash texts [N] that lie one after the other in a blob: uint64 [N]; an empty text gives 0."""
    hashes = np.zeros(lengths.size, np.uint64)
    filled = np.flatnonzero(lengths)
    if not filled.size:
        return hashes
    ends = np.cumsum(lengths[filled])
    starts = ends - lengths[filled]
    from_end = np.repeat(ends, lengths[filled]) - np.arange(blob.size) - 1
    powers = np.multiply.accumulate(np.full(int(lengths.max()), _FACTOR, np.uint64))
    hashes[filled] = np.add.reduceat((blob.astype(np.uint64) + np.uint64(1)) * powers[from_end], starts)
    return hashes
