"""The nights of a RUNS folder as their records tell them: listed, shown, compared."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from recsys.errors import BundleError, RegistryError
from recsys.manifest import read_manifest
from recsys.records import Activation, NightRecord
from recsys.registry import Registry
from training.differences import differences

_NO_NEWS = {"version", "seconds", "rulings", "index", "lineage.seconds", "lineage.host"}
"""What differs between any two nights and says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRun:
    """One night, or one update during the day."""

    record: NightRecord
    """Of the version that was to go live; of a night that held, of the evaluated one."""
    live: bool

    @property
    def kind(self) -> str:
        """Say whether a night made it, and from what, or an update."""
        if self.record.known_until is not None:
            return "update"
        return "warm" if self.record.start.startswith("warm") else "cold"

    def to_json(self) -> dict[str, Any]:
        """Give one line of the list."""
        record = self.record
        return {
            "night": str(record.night),
            "version": record.version,
            "evaluated": record.evaluated,
            "kind": self.kind,
            "verdict": str(record.verdict),
            "live": self.live,
            "champion": record.champion,
            "seconds": record.seconds,
            "reasons": list(record.rulings[-1].reasons) if record.rulings else [],
        }


def list_runs(registry: Registry) -> list[KeptRun]:
    """List all nights and updates, oldest first.

    Raises: RegistryError naming a record that is torn.
    """
    records = registry.records()
    refitted = {r.evaluated for r in records if r.version != r.evaluated and r.known_until is None}
    live = registry.current()
    shown = [r for r in records if r.version not in refitted or r.version == live]
    return [KeptRun(record=r, live=r.version == live) for r in sorted(shown, key=_order)]


def find_run(registry: Registry, name: str) -> KeptRun:
    """Find a run by its version, or the last one of a night by its date.

    Raises: RegistryError listing what there is.
    """
    record = registry.record(name)
    if record is not None:
        return KeptRun(record=record, live=name == registry.current())
    runs = list_runs(registry)
    found = [run for run in runs if str(run.record.night) == name and run.record.known_until is None]
    if not found:
        known = ", ".join(run.record.version for run in runs[-5:]) or "none; run `recsys nightly` first"
        raise RegistryError(f"no night or version {name!r} in {registry.folder}; the newest are: {known}")
    return next((run for run in found if run.live), found[-1])


def describe_run(registry: Registry, run: KeptRun) -> dict[str, Any]:
    """Give all that is known of a run as JSON values: record, config and parent, and when it was live."""
    record = run.record
    return {
        "live": run.live,
        "kind": run.kind,
        "record": record.model_dump(mode="json"),
        "activations": [entry.model_dump(mode="json") for entry in moves_of(registry, record.version)],
        **_of_bundle(registry, record.version),
    }


def moves_of(registry: Registry, version: str) -> Iterable[Activation]:
    """Give the moves of the live pointer to a version, and away from it."""
    return (entry for entry in registry.activations.read() if version in (entry.version, entry.previous))


def compare_runs(registry: Registry, first: KeptRun, second: KeptRun) -> list[tuple[str, Any, Any]]:
    """List what differs between two runs: verdict, days, data, code, config, and what the gate measured."""
    sides = [_compared(registry, run) for run in (first, second)]
    return [
        found
        for found in differences(*sides)
        if not any(found[0] == key or found[0].startswith(f"{key}.") for key in _NO_NEWS)
    ]


def _compared(registry: Registry, run: KeptRun) -> dict[str, Any]:
    said = run.record.model_dump(mode="json")
    said["checks"] = {
        check["name"]: {**check["numbers"], "outcome": check["outcome"]} for check in said["checks"]
    }
    said["rulings"] = None
    of_bundle = _of_bundle(registry, run.record.version)
    return {**said, "config": of_bundle["config"], "parent": of_bundle["parent"]}


def _of_bundle(registry: Registry, version: str) -> dict[str, Any]:
    """Give what a version's manifest adds to its record; nothing when the bundle is gone."""
    try:
        manifest = read_manifest(registry.path(version))
    except BundleError:
        return {"config": {}, "parent": None, "bundle": None}
    return {"config": manifest.config, "parent": manifest.parent, "bundle": str(registry.path(version))}


def _order(record: NightRecord) -> tuple[str, str, str]:
    known = "" if record.known_until is None else record.known_until.isoformat()
    return str(record.night), known, record.version
