"""The report of a validation: one JSON for programs, one Markdown for people, from the same findings."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from features.validation.findings import SEVERITIES, Finding, show
from recsys.files import write_whole
from recsys.stages import write_json

FEW = 2
"""So many findings that are alike are printed each by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What was found about a night's data."""

    date: date
    findings: tuple[Finding, ...]
    compared: dict[str, list[str]]
    """Per day that was checked, the days it was compared with."""
    rows: dict[str, int]
    """Usable rows of the night's own period."""

    @property
    def errors(self) -> list[Finding]:
        """Give the findings that stop a night."""
        return [f for f in self.findings if f.stops]

    @property
    def counts(self) -> dict[str, int]:
        """Count the findings that were not accepted, by severity, and the accepted ones."""
        fresh = [f for f in self.findings if not f.accepted]
        counts: dict[str, int] = {s: sum(f.severity == s for f in fresh) for s in SEVERITIES}
        return {**counts, "accepted": len(self.findings) - len(fresh)}

    @property
    def accepted(self) -> list[str]:
        """Name the accepted findings: code and day."""
        return sorted({f"{f.code}@{f.day}" for f in self.findings if f.accepted})

    @property
    def lines(self) -> list[str]:
        """Say each finding in a line; those of earlier days that are alike share one.

        A first night checks all days of its log: a line for every Sunday would hide what matters.
        """
        alike: dict[object, list[Finding]] = {}
        for at, f in enumerate(self.findings):
            kind = (f.accepted, f.severity, f.code, f.table, f.column)
            alike.setdefault(at if f.day == self.date else kind, []).append(f)
        return [line for group in alike.values() for line in _lines(group)]

    def to_json(self) -> dict[str, Any]:
        """Give the report as JSON values."""
        return {
            "date": str(self.date),
            "stops": bool(self.errors),
            "counts": self.counts,
            "rows": self.rows,
            "compared_with": self.compared,
            "findings": [f.to_json() for f in self.findings],
        }


def _lines(alike: list[Finding]) -> list[str]:
    if len(alike) <= FEW:
        return [f.line for f in alike]
    days = sorted(str(f.day) for f in alike)
    latest = max(alike, key=lambda f: str(f.day))
    return [f"{len(alike)} days from {days[0]} on, the latest: {latest.line}"]


def write_report(validation: Validation, folder: Path) -> Path:
    """Write `validation-<date>.json` and `.md`; give the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"validation-{validation.date}.md"
    write_json(path.with_suffix(".json"), validation.to_json())
    return write_whole(path, to_markdown(validation))


def print_findings(validation: Validation) -> None:
    """Print what does not stop a night, and that it may go on; what stops it is an error's own text."""
    for finding in validation.findings:
        if not finding.stops:
            print(finding.line)
    if not validation.errors:
        counts = ", ".join(f"{n} {name}" for name, n in validation.counts.items() if n)
        print(f"{validation.date}: {counts or 'nothing found'}; a night may train on it")


def to_markdown(validation: Validation) -> str:
    """Write the report for people: the verdict, then each finding with its rows."""
    counts = ", ".join(f"{n} {name}" for name, n in validation.counts.items() if n) or "nothing found"
    verdict = "the night stops before training" if validation.errors else "the night may go on"
    rows = ", ".join(f"{n:,} {table}" for table, n in validation.rows.items())
    lines = [
        f"# Data of {validation.date}: {counts}",
        "",
        f"{verdict.capitalize()}. Usable rows: {rows}.",
        "",
    ]
    for day, others in validation.compared.items():
        against = (
            f"{len(others)} days, {others[0]} to {others[-1]}"
            if others
            else "nothing: too few days before it"
        )
        lines += [f"- {day} compared with {against}"]
    for number, finding in enumerate(validation.findings, start=1):
        lines += ["", *_section(number, finding)]
    return "\n".join(lines) + "\n"


def _section(number: int, finding: Finding) -> list[str]:
    place = f"{finding.table}.{finding.column}" if finding.column else finding.table
    said = ", accepted" if finding.accepted else ""
    return [
        f"## {number}. {finding.severity}{said}: {finding.code}, {place} ({finding.day})",
        "",
        f"- measured: {finding.measured} = **{show(finding.value)}**, expected {finding.expected}",
        f"- {finding.counted}: {finding.rows:,}",
        f"- remedy: {finding.remedy}",
        *_table(finding.examples),
    ]


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    names = list(rows[0])
    cells = [[str(row.get(name)).replace("|", "\\|") for name in names] for row in rows]
    lines = ["| " + " | ".join(line) + " |" for line in (names, ["---"] * len(names), *cells)]
    return ["", *lines]
