"""External ids <-> numbers. Append-only; number 0 is "unknown", then hash buckets, then own numbers.

Numbers never change: tables, histories and the index use them as addresses. Rare ids share
`hash_buckets` numbers (1 … hash_buckets); an id seen at least `min_count` times gets its own number once,
and keeps its bucket's number, so that a warm start can copy the bucket's row.

Users' ids are hashed with a key before anything else is done with them: what is listed, ordered and put into
buckets are the hashes.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from zlib import crc32

import numpy as np
import polars as pl

from recsys.errors import BundleError
from recsys.id_table import MISSING, IdTable
from recsys.stages import write_json
from recsys.user_key import UserKey, find_user_key

FindKey = Callable[[Path, str], UserKey]
"""The file of a vocabulary and the name of its key -> the key: `find_user_key`, or one like it."""
UNKNOWN = 0
_MAX_DICT = 50_000
"""Of more ids, one is looked up in an `IdTable`: 5 us instead of .1."""
_FEW = 1_000
"""So many ids are looked up one by one: joining them with a vocabulary takes longer."""
_BUCKETS = "hash_buckets.json"
_KEY = "user_key.json"


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """A frozen set of ids with numbers. `ids[i]` has the number `num_reserved + i`."""

    ids: tuple[str, ...] | IdTable
    """A table is mapped by processes that share it."""
    hash_buckets: int
    key: UserKey | None = None
    """What ids are hashed with; None: they are listed as they are."""

    def keyed(self, key: UserKey) -> "Vocabulary":
        """Give the same numbers to the hashes of the ids; ids without a number go into other buckets.

        Raises: BundleError when they are hashes of another key already.
        """
        if self.key is None:
            return replace(self, ids=tuple(key.hash_all(self.ids)), key=key)
        if self.key.name != key.name:
            raise BundleError(
                f"a vocabulary has users hashed with the key {self.key.name}, and the runs folder has the "
                f"key {key.name}; restore the former, or run the night in a new runs folder"
            )
        return self

    @property
    def num_reserved(self) -> int:
        """Count the reserved numbers: unknown and the buckets."""
        return 1 + self.hash_buckets

    @property
    def size(self) -> int:
        """Count all numbers in use; every encoded number is below this."""
        return self.num_reserved + len(self.ids)

    def grow(self, counts: pl.DataFrame, min_count: int) -> "Vocabulary":
        """Append ids (columns id, count) seen at least min_count times, ties in id order."""
        known = self._frame.select("id")
        fresh = (
            counts.with_columns(self._listed(counts["id"]))
            .filter(pl.col("count") >= min_count, pl.col("id").is_not_null())
            .join(known, on="id", how="anti")
            .sort(["count", "id"], descending=[True, False])["id"]
            .to_list()
        )
        return replace(self, ids=(*self.ids, *fresh)) if fresh else self

    def encode(self, ids: pl.Series) -> np.ndarray:
        """Map ids [N] to numbers [N] int64; null -> 0, unlisted -> its hash bucket (0 if there are none)."""
        column = ids.cast(pl.String).alias("id")
        if column.len() <= _FEW:
            if self.is_small:
                values = column.to_list()
                numbers = {value: self.encode_one(value) for value in set(values)}
                return np.array([numbers[value] for value in values], np.int64)
            return np.where(column.is_null(), UNKNOWN, self.encode_few(column.fill_null("").to_list()))
        column = self._listed(column)
        found = column.to_frame().join(self._frame, on="id", how="left", maintain_order="left")["num"]
        codes: np.ndarray = found.fill_null(-1).to_numpy().copy()
        missing = np.flatnonzero(codes < 0)
        if missing.size:
            codes[missing] = self._buckets(column.gather(missing))
        return codes

    def _buckets(self, ids: pl.Series) -> np.ndarray:
        """Give the buckets of ids [N] without a number; each distinct one is hashed once."""
        distinct = ids.drop_nulls().unique()
        found = pl.Series([self._bucket(value) for value in distinct.to_list()], dtype=pl.Int64)
        known = pl.DataFrame({"id": distinct, "bucket": found})
        buckets: np.ndarray = (
            ids.to_frame()
            .join(known, on="id", how="left", maintain_order="left")["bucket"]
            .fill_null(UNKNOWN)
            .to_numpy()
        )
        return buckets

    def encode_one(self, value: str | None) -> int:
        """Map one id to its number without building a frame (the serving path)."""
        if value is None:
            return UNKNOWN
        if self.key is not None:
            value = self.key.hash_one(value)
        return self._number(value)

    def _number(self, value: str) -> int:
        """Map what an id is listed as to its number."""
        place = self._places.get(value, MISSING) if self.is_small else self._table.row_of(value)
        return self._bucket(value) if place == MISSING else self.num_reserved + place

    def encode_few(self, values: Sequence[str]) -> np.ndarray:
        """Map some ids to numbers int64 [N], as `encode_one` does."""
        if self.key is not None:
            values = self.key.hash_all(values)
        if self.is_small:
            return np.array([self._number(value) for value in values], np.int64)
        places = self._table.rows_of(values)
        numbers = places + self.num_reserved
        for at in np.flatnonzero(places == MISSING).tolist():
            numbers[at] = self._bucket(values[at])
        return numbers

    @property
    def is_small(self) -> bool:
        """Tell whether ids are looked up in a dict; those of a large one are looked up in a table."""
        return len(self.ids) <= _MAX_DICT

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.ids)}

    @cached_property
    def _table(self) -> IdTable:
        """Stand in for a dict of very many ids, in a fifth of its memory."""
        return self.ids if isinstance(self.ids, IdTable) else IdTable.of(self._frame["id"])

    @cached_property
    def _frame(self) -> pl.DataFrame:
        num = np.arange(self.num_reserved, self.size, dtype=np.int64)
        return pl.DataFrame({"id": pl.Series(list(self.ids), dtype=pl.String), "num": num})

    def _listed(self, ids: pl.Series) -> pl.Series:
        """Give what ids [N] are listed as."""
        return ids if self.key is None else self.key.hashed(ids)

    def _bucket(self, value: str | None) -> int:
        if value is None or self.hash_buckets == 0:
            return UNKNOWN
        return 1 + crc32(value.encode()) % self.hash_buckets

    def bucket_of(self, number: int) -> int:
        """Return the bucket (or unknown) whose row initialises the row of a newly numbered id."""
        return self._bucket(self.ids[number - self.num_reserved])

    def digest(self) -> str:
        """Hash ids, buckets and the key's name: equal digests mean equal numbers."""
        hasher = hashlib.sha256(str(self.hash_buckets).encode())
        if self.key is not None:
            hasher.update(self.key.name.encode())
        for name in self.ids:
            hasher.update(len(name.encode()).to_bytes(4, "little") + name.encode())
        return hasher.hexdigest()

    def save(self, path: Path) -> None:
        """Write as Parquet: ids in the order of their numbers, buckets and the key's name as metadata."""
        frame = pl.DataFrame({"id": pl.Series(list(self.ids), dtype=pl.String)})
        temporary = path.with_name(f".{path.name}.tmp")
        said = {"hash_buckets": self.hash_buckets} | ({"user_key": self.key.name} if self.key else {})
        frame.write_parquet(temporary, metadata={"recsys": json.dumps(said)})
        os.replace(temporary, path)

    def write_table(self, folder: Path) -> None:
        """Write the ids as a table that `map` opens."""
        self._table.write(folder)
        write_json(folder / _BUCKETS, self.hash_buckets)
        if self.key is not None:
            write_json(folder / _KEY, self.key.name)

    @classmethod
    def map(cls, folder: Path, find_key: FindKey = find_user_key) -> "Vocabulary":
        """Map what `write_table` wrote; the caller has made sure that nobody else could change it.

        Raises: OSError when a file is not there; BundleError when the key is not.
        """
        key = folder / _KEY
        return cls(
            ids=IdTable.map(folder),
            hash_buckets=json.loads((folder / _BUCKETS).read_text()),
            key=find_key(folder, json.loads(key.read_text())) if key.is_file() else None,
        )

    @staticmethod
    def name_of_key(path: Path) -> str | None:
        """Give the name of the key that a saved one needs; None: it needs none, or is damaged."""
        try:
            name = json.loads(pl.read_parquet_metadata(path)["recsys"]).get("user_key")
        except (OSError, KeyError, ValueError, pl.exceptions.PolarsError):
            return None
        return None if name is None else str(name)

    @classmethod
    def load(cls, path: Path, find_key: FindKey = find_user_key) -> "Vocabulary":
        """Read what `save` wrote.

        Raises: BundleError when the file is not a vocabulary, or its key is missing.
        """
        try:
            said = json.loads(pl.read_parquet_metadata(path)["recsys"])
            ids, buckets, key = tuple(pl.read_parquet(path)["id"].to_list()), said["hash_buckets"], None
            if "user_key" in said:
                key = find_key(path, said["user_key"])
            return cls(ids=ids, hash_buckets=buckets, key=key)
        except (OSError, KeyError, ValueError, pl.exceptions.PolarsError) as error:
            raise BundleError(
                f"{path} is not a vocabulary ({error}); restore the bundle or rebuild it"
            ) from error
