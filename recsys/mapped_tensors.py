"""Arrays in files that several processes map: a host has them in memory once, however many read them.

The files must never change while they are mapped: a shorter one kills its readers (SIGBUS). Whoever maps
makes sure of that, as a server does with its private copy of a bundle.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

_HEADER_BYTES = 128
"""Of a .npy file; one of this size is of an empty array, which cannot be mapped."""
# bfloat16 is no type of numpy; a bundle has none.
_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def map_array(path: Path) -> np.ndarray:
    """Map a .npy file; an empty array is read.

    Writable, as torch asks of an array: what is written changes a copy of this process alone, never the file.
    Raises: OSError when the file is not there, ValueError when it is no array.
    """
    if path.stat().st_size <= _HEADER_BYTES:
        return np.asarray(np.load(path, allow_pickle=False))
    return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))


def map_tensors(path: Path) -> dict[str, np.ndarray]:
    """Map a safetensors file: name -> tensor, as `map_array` maps one.

    Raises: OSError when the file is not there, ValueError when it is no safetensors file or has another type.
    """
    content = np.memmap(path, mode="c")
    size = int.from_bytes(content[:8].tobytes(), "little")
    start = 8 + size
    if not 2 <= size <= content.size - 8:  # the least is {}
        raise ValueError(f"{path} is no safetensors file: its header has {size} bytes")
    header = json.loads(content[8:start].tobytes())
    header.pop("__metadata__", None)
    return {name: _tensor(path, name, said, content[start:]) for name, said in header.items()}


def _tensor(path: Path, name: str, said: dict[str, Any], content: np.ndarray) -> np.ndarray:
    dtype = _DTYPES.get(said["dtype"])
    if dtype is None:
        raise ValueError(f"{path}: {name} is of type {said['dtype']}; known: {', '.join(_DTYPES)}")
    begin, end = said["data_offsets"]
    return np.asarray(content[begin:end].view(dtype).reshape(said["shape"]))
