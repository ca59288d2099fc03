"""What a check found: how bad, where, what was measured against what, which rows, and what to do."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Final

import polars as pl

from recsys.config import FindingCode, Levels, Severity, ValidationConfig

SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "info")
"""Worst first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Which rows a finding is about: those of a table, or of its quarantine, that fit an expression."""

    table: str
    rows: pl.Expr | None = None
    """None: no row is wrong by itself; the table's first and last rows show what came in."""
    quarantined: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, or odd, with a day's data."""

    code: FindingCode
    severity: Severity
    table: str
    column: str | None = None
    measured: str
    """What the number is."""
    value: float
    expected: str
    rows: int
    """How many rows, or what `counted` says, it is about."""
    remedy: str
    where: Where
    day: date | None = None
    examples: tuple[dict[str, Any], ...] = ()
    accepted: bool = False
    """Somebody has accepted it: it is known and does not stop a night."""
    files: tuple[str, ...] = field(default=())
    counted: str = "rows"
    """What `rows` counts."""

    @property
    def stops(self) -> bool:
        """Tell whether a night must not train on this day."""
        return self.severity == "error" and not self.accepted

    @property
    def line(self) -> str:
        """Say it in one line."""
        place = f"{self.table}.{self.column}" if self.column else self.table
        said = " (accepted)" if self.accepted else ""
        return (
            f"{self.day} {self.severity} [{self.code}]{said} {place}: {self.measured} is "
            f"{show(self.value)}, expected {self.expected} ({self.rows:,} {self.counted})"
        )

    def to_json(self) -> dict[str, Any]:
        """Give the finding as JSON values."""
        names = (
            "code",
            "severity",
            "accepted",
            "table",
            "column",
            "measured",
            "value",
            "expected",
            "rows",
            "counted",
            "remedy",
        )
        return {
            "day": str(self.day),
            **{name: getattr(self, name) for name in names},
            "examples": [{k: _plain(v) for k, v in row.items()} for row in self.examples],
        }


def show(value: float) -> str:
    """Format a number for people: whole where it is whole or large, else three digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 or value == round(value) else f"{value:.3g}"


def above(value: float, levels: Levels) -> Severity | None:
    """Give the severity of a value that should be small."""
    return "error" if value >= levels[1] else "warning" if value >= levels[0] else None


def below(value: float, levels: Levels) -> Severity | None:
    """Give the severity of a value that should not be small."""
    return "error" if value <= levels[1] else "warning" if value <= levels[0] else None


def settle(
    findings: Iterable[Finding], day: date, config: ValidationConfig, accepted: Sequence[str]
) -> list[Finding]:
    """Give findings their day, the config's severities, and what was accepted; worst first."""
    passes = {*config.accept, *accepted}
    settled = [
        replace(
            f,
            day=day,
            severity=config.severity.get(f.code, f.severity),
            accepted=f.code in passes,
        )
        for f in findings
    ]
    return sorted(settled, key=lambda f: (f.accepted, SEVERITIES.index(f.severity)))


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str | bool | None) else str(value)
