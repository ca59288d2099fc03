"""What a bundle's manifest says, and the checks of the files against it. Nothing else is read before."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.calibration import Calibrator
from recsys.errors import BundleError
from recsys.fusion import Fusion

SCHEMA_VERSION = 8
OLDEST_READ = 6
"""Bundles of this schema version and later ones are read."""
MAX_MANIFEST_BYTES = 16 << 20


class FileEntry(BaseModel):
    """One file of a bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    sha256: str


class Manifest(BaseModel):
    """What a bundle is; its canonical JSON without `version` is what the version's hash is made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int
    version: str
    date: str
    """Business date of the night, YYYY-MM-DD."""
    parent: str | None
    """Version whose weights this one continued."""
    refitted: bool
    """Whether it was refitted on the calibration and gate days after the verdict."""
    config: dict[str, Any]
    inputs: dict[str, Any]
    """Names and sizes of the ranker's inputs, in order: a warm start maps weights by them."""
    vocabularies: dict[str, str]
    """Vocabulary -> hash of its ids in order."""
    calibration: dict[str, Calibrator]
    fusion: Fusion
    """How a server turns predictions into a score."""
    index: dict[str, Any]
    """Its kind; of a compressed one also factor, and recall by share of the items that a filter passes."""
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    """Tensor of weights.safetensors -> dtype, shape."""
    snapshot_at_ms: int
    """Instant as of which the nightly values stand."""
    files: dict[str, FileEntry]


def read_manifest(path: Path) -> Manifest:
    """Read and check a bundle's manifest alone.

    Raises: BundleError when it is absent, unreadable, of another schema version, or not what its name says.
    """
    file = path / "manifest.json"
    try:
        if file.is_symlink() or file.stat().st_size > MAX_MANIFEST_BYTES:
            raise BundleError(f"{file} is a link or over {MAX_MANIFEST_BYTES} bytes; restore the bundle")
        data = json.loads(file.read_text())
        if not OLDEST_READ <= int(data["schema_version"]) <= SCHEMA_VERSION:
            raise BundleError(_other_schema(file, int(data["schema_version"])))
        manifest = Manifest.model_validate(data)
    except OSError as error:
        raise BundleError(f"{path} is not a bundle: {error.strerror}: {file}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        why = f"{key}: {first['msg'].removeprefix('Value error, ')}"
        raise BundleError(f"{file} is not a manifest ({why}); restore the bundle") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"{file} is not a manifest ({str(error).splitlines()[0]}); restore the bundle"
        ) from error
    if manifest.version != version_of(manifest):
        raise BundleError(
            f"{file} was changed: its content does not give {manifest.version}; restore the bundle"
        )
    return manifest


def _other_schema(file: Path, found: int) -> str:
    remedy = "upgrade recsys"
    if found < OLDEST_READ:
        remedy = (
            "run the night again, in a new runs folder, and serve from there, or go back to the release that "
            "wrote the bundle"
        )
    return f"{file} has schema version {found}, this code reads {OLDEST_READ} to {SCHEMA_VERSION}; {remedy}"


def verify_files(path: Path, manifest: Manifest) -> None:
    """Check that a bundle has exactly its files, unchanged.

    Raises: BundleError naming the first file that is missing, unknown, a link, or different.
    """
    require_known_files(path, manifest)
    for name, entry in manifest.files.items():
        file = plain_file(path, name)
        if file.stat().st_size != entry.size or sha256_of(file) != entry.sha256:
            raise BundleError(f"{file} differs from its manifest (size or SHA-256); restore the bundle")


def require_known_files(path: Path, manifest: Manifest) -> None:
    """Check that a bundle has no file, and no link, beside those that its manifest names.

    Raises: BundleError naming them.
    """
    present = {str(p.relative_to(path)) for p in path.rglob("*") if p.is_symlink() or not p.is_dir()}
    unknown = present - set(manifest.files) - {"manifest.json"}
    if unknown:
        raise BundleError(
            f"{path} has files its manifest does not name: {', '.join(sorted(unknown))}; remove them"
        )


def plain_file(path: Path, name: str) -> Path:
    """Give the path of a file that the manifest names.

    Raises: BundleError when it is missing, a link, or outside the bundle.
    """
    file = path / name
    if ".." in Path(name).parts or Path(name).is_absolute() or file.is_symlink() or not file.is_file():
        raise BundleError(f"{file} is missing or is not a plain file inside the bundle; restore the bundle")
    return file


def version_of(manifest: Manifest) -> str:
    """Give the version that a manifest's content makes."""
    content = manifest.model_dump(mode="json", exclude={"version"})
    return f"{manifest.date}-{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]}"


def sha256_of(path: Path) -> str:
    """Hash a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
