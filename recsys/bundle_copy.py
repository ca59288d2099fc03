"""Copies a bundle and verifies the copy, reading each byte once: what was hashed is what was written.

A server uses only such a copy, in a folder of its own. The bundle's folder may be rewritten while it is read.
"""

import hashlib
import os
import stat
from pathlib import Path

from recsys.errors import BundleError
from recsys.manifest import FileEntry, Manifest, plain_file, read_manifest, require_known_files

_CHUNK = 2 << 20
"""A huge page: what is written by whole ones, ext4 and XFS keep in memory in them, and map so. A search reads
thousands of vectors at random, each from a page that the processor would have to look up."""


def copy_verified(source: Path, target: Path) -> Manifest:
    """Copy a bundle into a folder that does not exist yet, and give its manifest.

    Raises: BundleError naming the first file that is missing, unknown, a link, or different; OSError when the
    copy cannot be written. The folder is then to be removed.
    """
    manifest = read_manifest(source)
    require_known_files(source, manifest)
    target.mkdir(mode=0o700, parents=True)
    (target / "manifest.json").write_text(manifest.model_dump_json(indent=1) + "\n")
    for name, entry in manifest.files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        _copy(plain_file(source, name), target / name, entry)
    return manifest


def _copy(source: Path, target: Path, entry: FileEntry) -> None:
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise BundleError(f"{source} cannot be read ({error.strerror}); restore the bundle") from error
    hasher, size = hashlib.sha256(), 0
    with open(descriptor, "rb", buffering=0) as read, target.open("xb", buffering=0) as written:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BundleError(f"{source} is not a plain file; restore the bundle")
        while size <= entry.size and (chunk := read.read(_CHUNK)):
            size += len(chunk)
            hasher.update(chunk)
            _write(written.fileno(), chunk)
    if size != entry.size or hasher.hexdigest() != entry.sha256:
        raise BundleError(f"{source} differs from its manifest (size or SHA-256); restore the bundle")


def _write(descriptor: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]
