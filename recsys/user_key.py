"""The key by which vocabularies hash users' ids, so that a bundle names no user: RUNS/user_ids.key.

Who has a bundle alone cannot try ids out, however short they are. The key is made once for a runs folder, and
is in no bundle: a host that has a copy of a bundle needs the key beside it.
"""

import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import polars as pl

from recsys.errors import ConfigError, UserKeyError
from recsys.files import make_folder, sync_folder

FILE = "user_ids.key"
PUBLIC = bytes(32)
"""Of users who are simulated, or published: with one key, runs are the same in every digit."""
_BYTES = 32
_HASH_BYTES = 12
"""Two of a billion users share a hash with a chance of 1e-11."""
_USER, _NAME = b"user id", b"name of the key"
"""What keeps the hashes of ids apart from the name."""
_OTHERS = 0o007
"""A night may run as another user than its servers: a group of both may read the key. What gives volumes to a
group, such as `fsGroup` of Kubernetes, lets the group write in every file, too."""
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)
"""What `os.link` fails with where a file system has no links."""


@dataclass(frozen=True)
class UserKey:
    """A key, or its name alone where no id is hashed."""

    name: str
    """A hash of the key; it tells keys apart and is no secret."""
    secret: bytes | None = field(repr=False)

    @classmethod
    def of(cls, secret: bytes) -> "UserKey":
        """Name a key."""
        return cls(blake2b(key=secret, digest_size=8, person=_NAME).hexdigest(), secret)

    def hash_one(self, user_id: str) -> str:
        """Hash an id: 24 hexadecimal digits."""
        hasher = self._empty.copy()  # half the time of a new one
        hasher.update(user_id.encode())
        return hasher.hexdigest()

    def hash_all(self, user_ids: Iterable[str]) -> list[str]:
        """Hash ids [N]."""
        copy, found = self._empty.copy, []
        for user_id in user_ids:
            hasher = copy()
            hasher.update(user_id.encode())
            found.append(hasher.hexdigest())
        return found

    def hashed(self, column: pl.Series) -> pl.Series:
        """Hash a column of texts [N], each distinct one once; null stays null."""
        distinct = column.drop_nulls().unique(maintain_order=True)
        hashes = pl.Series("hash", self.hash_all(distinct.to_list()), dtype=pl.String)
        if distinct.len() == column.len():
            return hashes.alias(column.name)
        known = pl.DataFrame({"id": distinct, "hash": hashes})
        rows = column.alias("id").to_frame().join(known, on="id", how="left", maintain_order="left")
        return rows["hash"].alias(column.name)

    @cached_property
    def _empty(self) -> blake2b:
        assert self.secret is not None, "ids are hashed where the key was read"
        return blake2b(key=self.secret, digest_size=_HASH_BYTES, person=_USER)


def user_key_of(runs: Path) -> UserKey | None:
    """Read the key of a runs folder; None where it has none.

    Raises: ConfigError when the file holds no key, cannot be read, or can be read by everyone.
    """
    file = runs / FILE
    try:
        secret, mode = bytes.fromhex(file.read_text().strip()), stat.S_IMODE(file.stat().st_mode)
    except FileNotFoundError:
        return None
    except ValueError:
        secret, mode = b"", 0
    except OSError as error:
        raise ConfigError(
            f"{file}, the key of the users' hashes, cannot be read: {error.strerror}; give nights and "
            "servers a group of their own, and let it read the file (chgrp, chmod 640)"
        ) from error
    if len(secret) != _BYTES:
        raise ConfigError(
            f"{file} is no key of {_BYTES} bytes in hexadecimal digits; restore it from a copy. Without "
            "it no user of the bundles in this folder is known"
        )
    if mode & _OTHERS:
        raise ConfigError(
            f"{file}, the key of the users' hashes, has mode {mode:o}: users beside its owner and its group "
            "have access; chmod it to 600 or 640, or on a file system without modes mount it so (fmask=0117, "
            "file_mode=0660)"
        )
    return UserKey.of(secret)


def draw_secret() -> bytes:
    """Draw a key."""
    return os.urandom(_BYTES)


def make_user_key(runs: Path) -> UserKey:
    """Read the key of a runs folder, or make one where it has none.

    Raises: as `user_key_of`; OSError.
    """
    if (known := user_key_of(runs)) is None:
        write_user_key(runs, draw_secret())
        known = user_key_of(runs)
        assert known is not None
    return known


def write_user_key(runs: Path, secret: bytes) -> None:
    """Give a runs folder a key [32 bytes], whole and on the disk; one that is there stays.

    Raises: OSError.
    """
    make_folder(runs)
    # The name is drawn: processes of two containers may have one number. The mode is 600.
    descriptor, name = tempfile.mkstemp(prefix=f".{FILE}.", suffix=".tmp", dir=runs)
    try:
        os.write(descriptor, secret.hex().encode() + b"\n")
        os.fsync(descriptor)
        _put_if_absent(Path(name), runs / FILE)
    finally:
        os.close(descriptor)
        Path(name).unlink(missing_ok=True)
    sync_folder(runs)


def _put_if_absent(temporary: Path, target: Path) -> None:
    """Give a file its name, unless another has it."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if not target.exists():  # nights, which make keys, exclude each other
            os.rename(temporary, target)


def find_user_key(vocabulary: Path, name: str) -> UserKey:
    """Find the key of a vocabulary's file, or of a bundle: in a folder that it lies in, the nearest first.

    Raises: UserKeyError naming the file that is missing, or is another key; ConfigError as `user_key_of`.
    """
    # RUNS may have links: bundles on another disk, or a folder of links in which a version is tried.
    above = vocabulary.resolve().parents
    others = []
    for folder in dict.fromkeys((*vocabulary.absolute().parents, *above)):
        found = user_key_of(folder)
        if found is not None and found.name == name:
            return found
        others += [f"{folder / FILE} is the key {found.name}"] if found is not None else []
    runs = next((p.parent for p in above if p.name in ("bundles", "stages")), above[0])
    raise UserKeyError(
        f"{vocabulary} has users hashed with the key {name}, and "
        f"{' and '.join(others) or f'{runs / FILE} is not there'}; copy {FILE} there from the runs folder "
        "that the bundle was written in, with mode 600. If it is lost, run the night in a new runs folder"
    )


def key_of_copy(source: Path) -> Callable[[Path, str], UserKey]:
    """Give what finds the key of a copy of a bundle: where it was copied from, errors as `find_user_key`."""
    return lambda _vocabulary, name: find_user_key(source, name)


def name_alone(vocabulary: Path, name: str) -> UserKey:
    """Do without the key where no id is looked up, as `find_user_key`."""
    del vocabulary
    return UserKey(name, None)
