"""Is there room for a night before it starts? It needs about what the newest night of the folder wrote."""

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from recsys.errors import DataError
from recsys.log import InteractionLog
from recsys.records import NightRecord
from recsys.schema import TABLES
from recsys.stages import FILES, MANIFEST, read_manifest
from training.night.night import Night

PER_LOG_BYTE = 3.0
"""A first night writes about so many bytes for one of the log: snapshots, weights in three stages, users."""
_GB = 1e9


def require_room(night: Night) -> None:
    """Refuse a night for which the disk has no room; one that has been run before needs next to none.

    Raises: DataError with what it needs, what there is, and the config's keys that change it.
    """
    records = night.registry.records()
    if any(record.night == night.date for record in records):
        return
    needs, because = _needs(night, max(records, key=lambda record: record.night, default=None))
    settings = night.config.retention
    needs = round(needs * settings.headroom)
    has = shutil.disk_usage(_existing(night.runs)).free
    if has < needs:
        raise DataError(
            f"the disk of {night.runs} has {_said(has)} free and a night needs about {_said(needs)} "
            f"({because}, times [retention] headroom = {settings.headroom:g}); free it, or keep less: "
            f"[retention] nights = {settings.nights}, [store] keep = {night.config.store.keep}"
        )


def _needs(night: Night, last: NightRecord | None) -> tuple[int, str]:
    """Give the bytes that a night will write, and where the number is from."""
    written = 0 if last is None else _written(night, last)
    if last is None or not written:
        size = _size(_log_files(night.log))
        return round(PER_LOG_BYTE * size), f"the log has {_said(size)}, and this is the first night"
    return written, f"the night of {last.night} wrote {_said(written)}"


def _written(night: Night, last: NightRecord) -> int:
    """Count the bytes of a night's bundles, users in a local store, and stages with one day of features."""
    registry = night.registry
    versions = {last.version, last.evaluated}
    total = _size(file for version in versions for file in registry.path(version).rglob("*"))
    total += _size(night.runs / "store" / f"base-{version}.sqlite" for version in versions)
    stages = {f.parent: _said_by(f.parent) for f in night.stages.root.glob(f"[!.]*/[!.]*/{MANIFEST}")}
    made_of = {
        days
        for folder, (days, said) in stages.items()
        if days is not None and said.get("version") in versions and folder.parent.name != "features"
    }
    for folder, (days, said) in stages.items():
        if folder.name in made_of or days in made_of:
            total += sum(int(entry[0]) for entry in said.get(FILES, {}).values())
    return total


def _said_by(stage: Path) -> tuple[str | None, dict[str, Any]]:
    """Read the days that a stage is made of, and its manifest; what cannot be read weighs nothing here."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        said = read_manifest(stage)
        return said["inputs"].get("inputs", {}).get("days"), said
    return None, {}


def _log_files(log: InteractionLog) -> Iterable[Path]:
    return (file for table in TABLES for day in log.days(table) for file in log.files(table, day))


def _size(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.is_file())


def _existing(folder: Path) -> Path:
    """Give the folder, or the one above that is there."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _said(num_bytes: int) -> str:
    return f"{num_bytes / _GB:.2f} GB" if num_bytes >= _GB / 100 else f"{num_bytes / 1e6:.2f} MB"
