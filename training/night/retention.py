"""The last stage of a night: what nobody needs any more goes, of bundles, stages, reports and diverged steps.

A stage stays while a version that stays was made in its night; of snapshots, all days of the chains of this
night and of those.
What goes is renamed first: a reader finds a folder whole under its name, or not at all.
"""

import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

from features.days import Days
from recsys.registry import Registry
from recsys.retention import why_kept
from recsys.scratch import age_s
from recsys.stages import MANIFEST, read_manifest
from training.night.anchor import anchors_to_come
from training.night.step import Step
from training.progress import say

_SNAPSHOTS, _PROFILES = "features", "validate"
_OUTDATED = ".outdated"
_OTHERS_S = 7 * 86_400.0
"""A snapshot of another config or log may be in use by a report; one that is older is not."""
_REPORTS = ("validation-*.json", "validation-*.md", "night-*.html")
_DATE = slice(-10, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What was removed."""

    bundles: tuple[str, ...]
    stages: int
    reports: int

    def sentence(self) -> str:
        """Say it; empty when nothing was removed."""
        parts = [
            f"{len(self.bundles)} bundles ({', '.join(self.bundles)})" if self.bundles else "",
            f"{self.stages} stages" if self.stages else "",
            f"{self.reports} reports" if self.reports else "",
        ]
        told = ", ".join(part for part in parts if part)
        return f"collected: {told}" if told else ""


def collect(step: Step, *, days: Days, evaluated: str, live: str | None, anchor: str | None) -> None:
    """Remove what `[retention]` does not keep; this night's own versions stay."""
    night, settings = step.night, step.config.retention
    with night.registry.locked("activate"):  # what is live, and what is pinned, stays so until this is done
        anchors = anchors_to_come(night.registry, step.config.gate.anchor_days)
        if anchor is not None:  # of a night before the newest one
            anchors.append(anchor)
        held = why_kept(night.registry, max(settings.nights, step.config.store.keep), anchors)
        for mine in (evaluated, live):
            if mine is not None:
                held.setdefault(mine, "this night made it")
        gone = _bundles(night.registry, held)
    collected = Collected(
        bundles=tuple(gone),
        stages=_stages(night.stages.root, held, days, _is_newest(night.registry, night.date)),
        reports=_reports(night.reports, settings.reports) + _diverged(night.diverged.parent, settings.nights),
    )
    if collected.sentence():
        say(collected.sentence())


def _bundles(registry: Registry, held: Mapping[str, str]) -> list[str]:
    """Remove bundles; records stay: they are small, and say what was live when."""
    gone = [version for version in registry.versions() if version not in held]
    for version in gone:
        _remove(registry.path(version))
        (registry.folder / "indexes" / f"{version}.json").unlink(missing_ok=True)
    return gone


def _stages(root: Path, held: Mapping[str, str], days: Days, newest: bool) -> int:
    """Remove stages of nights of which no version stays; give how many.

    Args: newest: no later night has left a record; else snapshots stay: later nights' chains need them.
    """
    found = {
        manifest.parent: _inputs(manifest.parent)
        for manifest in root.glob(f"[!.]*/[!.]*/{MANIFEST}")
        if manifest.parent.parent.name != _PROFILES
    }
    nights = {days[-1].path.name}
    for folder, (inputs, said) in found.items():
        if said.get("version") in held and "days" in inputs and folder.parent.name != _SNAPSHOTS:
            nights.add(str(inputs["days"]))
    chain = {snapshot.path for snapshot in days} | _rolled_on_from(nights, root / _SNAPSHOTS, found)
    gone = [folder for folder in found if folder.parent.name == _SNAPSHOTS and newest]
    gone = [f for f in gone if f not in chain and f.name not in nights and age_s(f) > _OTHERS_S]
    worked = {f: inputs for f, (inputs, _) in found.items() if f.parent.name != _SNAPSHOTS}
    gone += _not_of(worked, nights)
    for folder in gone:
        _remove(folder)
    return len(gone)


def _rolled_on_from(
    nights: set[str], folder: Path, stages: Mapping[Path, tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> set[Path]:
    """List the snapshots that those of some nights were rolled on from: the same chain, or another config's.

    A champion or anchor of another config is measured on its own.
    """
    chain: set[Path] = set()
    for night in nights:
        place: Path | None = folder / night
        while place is not None and place in stages and place not in chain:
            chain.add(place)
            previous = stages[place][1].get("inputs", {}).get("previous")
            place = folder / previous if previous else None
    return chain


def _not_of(stages: Mapping[Path, Mapping[str, Any]], nights: set[str]) -> list[Path]:
    """List the stages that belong to no night of some, by the days they read or the stages they take."""
    kept = {folder for folder, inputs in stages.items() if inputs.get("days") in nights}
    others = {folder: inputs for folder, inputs in stages.items() if "days" not in inputs}
    names = {folder.name for folder in kept}
    kept |= {folder for folder, inputs in others.items() if names & set(map(str, inputs.values()))}
    return [folder for folder in stages if folder not in kept]


def _inputs(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a stage's inputs, and all that its manifest says; empty where it cannot be read."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        said = read_manifest(folder)
        inputs = said["inputs"].get("inputs", {})
        return dict(inputs), said
    return {}, {}


def _reports(folder: Path, nights: int) -> int:
    """Remove reports of nights, but for the newest; give how many files."""
    files = [file for pattern in _REPORTS for file in folder.glob(pattern)]
    dates = sorted({file.stem[_DATE] for file in files}, reverse=True)[:nights]
    return _unlinked(file for file in files if file.stem[_DATE] not in dates)


def _diverged(folder: Path, nights: int) -> int:
    """Remove the steps that diverged, but for those of the newest nights that have any."""
    gone = sorted(folder.glob("[!.]*"), reverse=True)[nights:]
    for old in gone:
        _remove(old)
    return len(gone)


def _unlinked(files: Iterable[Path]) -> int:
    gone = list(files)
    for file in gone:
        file.unlink(missing_ok=True)
    return len(gone)


def _is_newest(registry: Registry, night: date) -> bool:
    return all(record.night <= night for record in registry.records())


def _remove(folder: Path) -> None:
    outdated = folder.with_name(f".{folder.name}-{uuid4().hex[:8]}{_OUTDATED}")
    with suppress(FileNotFoundError):
        folder.rename(outdated)
        shutil.rmtree(outdated, ignore_errors=True)
