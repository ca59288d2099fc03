"""Read a published file, packed or not; a missing one is named."""

import gzip
import lzma
from collections.abc import Callable, Mapping
from pathlib import Path

from recsys.errors import DataError

UNPACK: Mapping[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.decompress, ".xz": lzma.decompress}


def published(path: Path) -> Path:
    """Give a published file's path.

    Raises: DataError when it is missing.
    """
    if not path.exists():
        raise DataError(f"{path} is missing; --data is the folder of the set's published files")
    return path


def found(path: Path) -> Path | None:
    """Give the path of a file or of its packed form; None where there is neither."""
    packed = (path.with_name(path.name + suffix) for suffix in UNPACK)
    return next((one for one in packed if one.exists()), None)


def unpacked(path: Path) -> bytes:
    """Read a file, or its packed form.

    Raises: DataError when both are missing.
    """
    there = found(path)
    if there is None:
        raise DataError(
            f"{path} is missing (also as .gz and .xz); --data is the folder of the set's published files"
        )
    return UNPACK.get(there.suffix, bytes)(there.read_bytes())
