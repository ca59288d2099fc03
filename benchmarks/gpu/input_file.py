"""A file of named tensors and JSON values: `gpu-inputs` writes it, and the bench reads it with numpy alone.

Packing loses nothing: whole numbers take the narrowest type that holds them, and a matrix whose rows recur
(the values of the same item or user) is kept as its distinct rows.
"""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

FORMAT: Final = 1
_SAID: Final = "said"
_ROWS, _PLACES = ":rows", ":places"
_NARROW: Final = (np.uint8, np.int8, np.uint16, np.int16, np.int32)


class InputError(Exception):
    """Raised when a file is no file of inputs, or of another version."""


def write_tensors(path: Path, said: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a file; names may have slashes, and no colon."""
    packed: dict[str, np.ndarray] = {}
    types = {}
    for name, tensor in tensors.items():
        array = tensor.numpy()
        types[name] = array.dtype.str
        packed |= _packed(name, array)
    text = json.dumps({"format": FORMAT, "types": types, "values": said})
    arrays: Any = {_SAID: np.frombuffer(text.encode(), np.uint8), **packed}
    with path.open("wb") as stream:  # given a name, savez would end it in .npz
        np.savez_compressed(stream, **arrays)


def read_tensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a file that `write_tensors` wrote.

    Raises: InputError, saying how to make the file.
    """
    remedy = "make it with `recsys bench gpu-inputs FILE`, in this version of the code"
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            said = json.loads(arrays[_SAID].tobytes())
            if said["format"] != FORMAT:
                raise InputError(f"{path} has format {said['format']}, this code reads {FORMAT}; {remedy}")
            tensors = {
                name: torch.from_numpy(_unpacked(name, arrays).astype(np.dtype(dtype)))
                for name, dtype in said["types"].items()
            }
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no file of inputs: {error}; {remedy}") from error
    values: dict[str, Any] = said["values"]
    return values, tensors


def _packed(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    if array.ndim == 2 and array.size:
        rows, places = np.unique(array, axis=0, return_inverse=True)
        if 2 * rows.size < array.size:
            return {name + _ROWS: _narrow(rows), name + _PLACES: _narrow(places.reshape(-1))}
    return {name: _narrow(array)}


def _unpacked(name: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    return arrays[name] if name in arrays else arrays[name + _ROWS][arrays[name + _PLACES]]


def _narrow(array: np.ndarray) -> np.ndarray:
    """Give whole numbers in the narrowest type; everything else as it is."""
    if array.dtype.kind != "i" or not array.size:
        return array
    low, high = array.min(), array.max()
    for dtype in _NARROW:
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return array.astype(dtype)
    return array
