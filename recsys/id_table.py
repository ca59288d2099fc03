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
_AT_ONCE = 512
"""So many are looked up together at most: shorter ids take as much memory as the longest one."""
_FIRST_FEW = np.arange(4)


def id_hash(item_id: str) -> int:
    """Return 64 bits of an id: the same in every process and version of the table."""
    found = 0
    for byte in item_id.encode():
        found = (found + byte + 1) * _FACTOR & _WORD
    return found


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
        text, wanted = item_id.encode(), id_hash(item_id)
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
        if len(asked) <= _FEW or not self.blob.size:
            return np.fromiter(map(self.row_of, asked), np.int64, len(asked))
        parts = [self._rows_of(asked[start : start + _AT_ONCE]) for start in range(0, len(asked), _AT_ONCE)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def ids_of(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """List the ids of rows [N]."""
        at = np.asarray(rows, np.int64)
        text = self.blob.data
        spans = zip(self.offsets[at].tolist(), self.offsets[at + 1].tolist(), strict=True)
        return [str(text[start:end], "utf-8") for start, end in spans]

    def hashes_of(self, rows: np.ndarray) -> np.ndarray:
        """Return `id_hash` of the ids of rows [N], uint64."""
        starts, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        if not lengths.size or not lengths.any():
            return np.zeros(lengths.size, np.uint64)
        inside_L = np.arange(lengths.max())
        return _hashes_of(self.blob[np.minimum(starts[:, None] + inside_L, self.blob.size - 1)], lengths)

    @property
    def _shift(self) -> int:
        """Return how many bits of a hash `firsts` does not look at."""
        return _HASH_BITS + 1 - self.firsts.size.bit_length()

    def _rows_of(self, item_ids: Sequence[str]) -> np.ndarray:
        """Return the rows of some ids [N]; in few calls of numpy, as each costs more than its work."""
        texts = [item_id.encode() for item_id in item_ids]
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        letters_NL = _letters(texts)
        wanted = _hashes_of(letters_NL, lengths)
        # Of the hashes that begin alike, an id's is among the first few.
        begins = self.firsts[wanted >> np.uint64(self._shift)].astype(np.int64)
        near = np.minimum(begins[:, None] + _FIRST_FEW, self.hashes.size - 1)
        here = self.hashes[near]
        met, each = here == wanted[:, None], np.arange(len(texts))
        place = met.argmax(axis=1)
        found = met[each, place]
        rows: np.ndarray = self.rows[near[each, place]].astype(np.int64)
        same = found & self._equal(rows, letters_NL, lengths)
        if same.all():
            return rows
        rows[~same] = MISSING
        # All but where another id has the hash, or where it may lie behind those few.
        for at in np.flatnonzero(~same & (found | (here[:, -1] < wanted))).tolist():
            rows[at] = self.row_of(item_ids[at])
        return rows

    def _equal(self, rows: np.ndarray, letters_NL: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Tell for each row [N] whether its id has these letters."""
        starts, inside_L = self.offsets[rows], np.arange(letters_NL.shape[1])
        own_NL = self.blob[np.minimum(starts[:, None] + inside_L, self.blob.size - 1)]
        differs_NL = (own_NL != letters_NL) & (inside_L < lengths[:, None])
        same: np.ndarray = (self.offsets[rows + 1] - starts == lengths) & ~differs_NL.any(axis=1)
        return same


def _letters(texts: Sequence[bytes]) -> np.ndarray:
    """Lay the bytes of texts [N] side by side, uint8 [N, L], zeros behind shorter ones."""
    longest = max(map(len, texts))
    padded = np.array(texts, f"S{max(1, longest)}").view(np.uint8).reshape(len(texts), -1)
    return padded[:, :longest]


def _hashes_of(letters_NL: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Hash texts as `_hashes` does: uint64 [N]."""
    from_end_NL = lengths[:, None] - np.arange(1, letters_NL.shape[1] + 1)
    powers = np.multiply.accumulate(np.full(max(1, letters_NL.shape[1]), _FACTOR, np.uint64))
    terms_NL = (letters_NL.astype(np.uint64) + np.uint64(1)) * powers[np.maximum(from_end_NL, 0)]
    hashes: np.ndarray = np.where(from_end_NL >= 0, terms_NL, np.uint64(0)).sum(axis=1, dtype=np.uint64)
    return hashes


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
