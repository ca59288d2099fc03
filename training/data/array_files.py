"""Arrays in a folder: one raw file each, and a JSON file, written last, that says what they hold."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recsys.stages import write_json

DESCRIBED = "arrays.json"


class ArrayWriter:
    """Writes arrays piece by piece; no more of them is in memory than the piece."""

    def __init__(self, folder: Path) -> None:
        """Write into an existing folder."""
        self._folder = folder
        self._arrays: dict[str, tuple[str, list[int]]] = {}
        self.appended_bytes = 0

    def append(self, name: str, rows: np.ndarray) -> None:
        """Add rows at the end of an array, which is made by the first of them."""
        dtype, shape = self._arrays.setdefault(name, (rows.dtype.str, [0, *rows.shape[1:]]))
        shape[0] += rows.shape[0]
        self.appended_bytes += rows.nbytes
        with _path(self._folder, name).open("ab") as stream:
            stream.write(np.ascontiguousarray(rows, dtype).data)

    def num_rows(self, name: str) -> int:
        """Count the rows that an array has so far."""
        return self._arrays[name][1][0] if name in self._arrays else 0

    def place(self, name: str, rows: np.ndarray, at: np.ndarray | slice, num_rows: int) -> None:
        """Put rows at their places in an array of `num_rows` rows."""
        shape = (num_rows, *rows.shape[1:])
        path = _path(self._folder, name)
        if name not in self._arrays:
            self._arrays[name] = (rows.dtype.str, list(shape))
            _reserve(path, int(np.prod(shape)) * rows.itemsize)
        if rows.size:
            # Mapped for this piece alone: what is written does not count as memory of the process.
            np.memmap(path, rows.dtype, "r+", shape=shape)[at] = rows

    def close(self, said: Mapping[str, Any]) -> None:
        """Describe the arrays, and say what else a reader must know."""
        write_json(self._folder / DESCRIBED, {"arrays": self._arrays, **said})


class ArrayReader:
    """Reads what `ArrayWriter` wrote."""

    def __init__(self, folder: Path) -> None:
        """Read the description."""
        self._folder = folder
        self.said: dict[str, Any] = json.loads((folder / DESCRIBED).read_text())

    def mapped(self, name: str) -> np.ndarray:
        """Map an array: its pages are the file's, and the system drops them when memory is short."""
        dtype, shape = self.said["arrays"][name]
        if not np.prod(shape):
            return np.zeros(shape, dtype)
        return np.memmap(_path(self._folder, name), dtype, "r", shape=tuple(shape)).view(np.ndarray)

    def read(self, name: str, bounds: np.ndarray) -> np.ndarray:
        """Read some ranges [K, 2] of an array's rows into memory."""
        dtype, (_, *rest) = self.said["arrays"][name]
        width = int(np.prod(rest))
        pieces = [np.zeros(0, dtype)]
        with _path(self._folder, name).open("rb", buffering=0) as stream:
            for start, stop in bounds.tolist():
                stream.seek(start * width * np.dtype(dtype).itemsize)
                pieces.append(np.fromfile(stream, dtype, (stop - start) * width))
        num_rows = int((bounds[:, 1] - bounds[:, 0]).sum())
        return np.concatenate(pieces).reshape(num_rows, *rest)


def _reserve(path: Path, size: int) -> None:
    """Make a file of `size` bytes.

    Raises: OSError on a full disk; without the space, writing to the mapped file would kill the process.
    """
    with path.open("wb") as stream:
        stream.truncate(size)
        if size and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(stream.fileno(), 0, size)


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.bin"
