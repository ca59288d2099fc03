"""Which versions stay in a runs folder, and why; the others a night may remove.

What is live, what a rollback goes to, what servers have loaded, what somebody pinned, anchors, the newest
nights and the newest promoted ones stay; and of each of these what it came from: the version that was
evaluated, and of an update the one that it went on from.
"""

from collections.abc import Iterable
from datetime import date
from pathlib import Path

from recsys.errors import RegistryError
from recsys.files import write_whole
from recsys.records import NightRecord, Verdict
from recsys.registry import Registry

PINS = "pins"


def why_kept(registry: Registry, nights: int, anchors: Iterable[str] = ()) -> dict[str, str]:
    """Give the versions that stay, each with the reason.

    Args: nights: so many of the newest, and so many of the newest promoted ones; anchors: what nights compare
    with beside the live version, now and when these are too old.
    Raises: RegistryError for a lease or record that cannot be read: nothing is removed on a guess.
    """
    there = registry.versions()
    records = {version: registry.record(version) for version in there}
    found: dict[str, str] = {}

    def keep(version: str | None, why: str) -> None:
        if version in records:
            found.setdefault(str(version), why)

    live = registry.current()
    keep(live, "live")
    keep(registry.activations.before(live), "a rollback goes to it")
    for version in anchors:
        keep(version, "the anchor, or one to come")
    for version, reason in pins(registry).items():
        keep(version, f"pinned: {reason}")
    for version in registry.leased():
        keep(version, "a server has loaded it")
    promoted = {_night(v, r) for v, r in records.items() if r is not None and r.verdict is Verdict.PROMOTE}
    newest = _newest({_night(v, r) for v, r in records.items()}, nights) | _newest(promoted, nights)
    for version, record in records.items():
        if _night(version, record) in newest:
            keep(version, f"of one of the newest {nights} nights")
    waiting = list(found)
    while waiting:  # what came from something needs that something
        version = waiting.pop()
        for origin in _origins(records[version]):
            if origin in records and origin not in found:
                found[origin] = f"{version} came from it"
                waiting.append(origin)
    return found


def pins(registry: Registry) -> dict[str, str]:
    """Give the pinned versions, each with the reason."""
    return {file.name: file.read_text(encoding="utf-8").strip() for file in _files(registry)}


def pin(registry: Registry, version: str, reason: str) -> None:
    """Keep a version until it is unpinned.

    Raises: RegistryError for an unknown version.
    """
    with registry.locked("activate"):  # a night removes nothing meanwhile
        registry.require(version)
        folder = registry.folder / PINS
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / version, f"{reason}\n")


def unpin(registry: Registry, version: str) -> None:
    """Let a version go when no other reason keeps it.

    Raises: RegistryError when it is not pinned, listing what is.
    """
    known = pins(registry)
    if version not in known:
        raise RegistryError(f"{version} is not pinned; pinned are: {', '.join(sorted(known)) or 'none'}")
    (registry.folder / PINS / version).unlink(missing_ok=True)


def _files(registry: Registry) -> list[Path]:
    return sorted((registry.folder / PINS).glob("[!.]*"))


def _night(version: str, record: NightRecord | None) -> date:
    """Give a version's night; of one without a record, its day."""
    return date.fromisoformat(version[:10]) if record is None else record.night


def _newest(nights: Iterable[date], count: int) -> set[date]:
    return set(sorted(nights, reverse=True)[:count])


def _origins(record: NightRecord | None) -> list[str]:
    if record is None:
        return []
    made_by_day = record.known_until is not None and record.champion is not None
    return [record.evaluated, *([str(record.champion)] if made_by_day else [])]
