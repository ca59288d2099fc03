"""The validation of a night: profile what is new, compare, name rows, remember what was accepted."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from features.build import periods
from features.days import Days
from features.validation.checks import validate_day
from features.validation.closed_days import gather_empty
from features.validation.examples import with_examples
from features.validation.findings import Finding
from features.validation.measure import matured_labels, profile_day
from features.validation.profile import DayProfile, Rate
from features.validation.reference import compare
from features.validation.report import Validation
from features.validation.schema import check_files
from features.validation.tables import DayTables, read_day
from recsys.config import NEVER_ACCEPTED, PERIOD_S, FindingCode, RunConfig
from recsys.config_view import values, view
from recsys.errors import ConfigError, DataError
from recsys.log import InteractionLog
from recsys.records import Acceptance
from recsys.stages import Stages, write_json
from recsys.tasks import LABEL_KEYS, TaskSpec

CODE_VERSION = 4
"""Raise when a change here alters what a day's profile holds."""
PROFILE = "profile.json"
ACCEPTED = "accepted-findings.jsonl"
PROFILE_KEYS = (
    "timezone",
    "period",
    "attributes.name",
    "attributes.entity",
    *(f"tasks.{key}" for key in LABEL_KEYS),
)
"""The keys of the config that decide a day's profile."""
KEYS = (*PROFILE_KEYS, "validation")
"""The keys of the config that decide what is found."""
NUM_TOLD = 3
"""Errors named in the message; the report has all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingest:
    """A log as it stands on a night."""

    log: InteractionLog
    config: RunConfig
    stages: Stages
    accepted: "Acceptances"

    def check_files(self, until: date) -> Validation | None:
        """Check the files of the night's own period; None when they have their columns and types."""
        days = periods(self.log, until, self.config)[-1].days
        findings = tuple(check_files(self.log, days))
        if not findings:
            return None
        return Validation(date=until, findings=findings, compared={}, rows={})

    def check_days(
        self,
        days: Days,
        since: date | None,
        on_day: Callable[[int, int], None] = lambda _done, _all: None,
    ) -> Validation:
        """Check the days after `since`, up to the last.

        Args: since: the last day that an earlier night has let through; None on a first night, which looks
        far back, so errors of earlier days only warn.
        """
        fresh = [i for i, s in enumerate(days[:-1]) if since is None or s.day > since] + [days.last]
        begin = max(0, fresh[0] - self.config.validation.history_days)
        profiles, inside = self.profiles(days, begin, on_day), self._inside(days)
        findings: list[Finding] = []
        compared: dict[str, list[str]] = {}
        for index in fresh:
            today, earlier = profiles[index - begin], profiles[: index - begin]
            own = index == days.last
            found = validate_day(today, earlier, self.config, self.accepted.codes(today.day))
            if found:
                tables = read_day(self.log, days, index, self.config, inside[today.day])
                found = with_examples(found, tables, self.log)
            # An earlier day without rows is not trained on, so it only warns.
            findings += [
                f if own or (since is not None and f.code != "empty") else _softened(f) for f in found
            ]
            history = compare(today, earlier, self.config).history
            compared[str(today.day)] = [str(p.day) for p in history]
        known = {p.day: not p.impressions for p in profiles[:-1]} if self.config.period == "P1D" else {}
        findings = gather_empty(findings, known)
        findings.sort(key=lambda f: (not f.stops, f.accepted, f.severity != "warning"))
        rows = {name: table.rows for name, table in profiles[-1].tables.items()}
        return Validation(date=days[-1].day, findings=tuple(findings), compared=compared, rows=rows)

    def profiles(
        self,
        days: Days,
        begin: int = 0,
        on_day: Callable[[int, int], None] = lambda _done, _all: None,
    ) -> list[DayProfile]:
        """Give the profiles of the days from one on; those made before are read."""
        found: list[DayProfile] = []
        inside = self._inside(days)
        for index in range(begin, len(days)):
            found.append(self._profile(days, index, inside[days[index].day]))
            on_day(len(found), len(days) - begin)
        return found

    def _inside(self, days: Days) -> dict[date, tuple[date, ...]]:
        """List the log's days in each period."""
        return {p.day: p.days for p in periods(self.log, days[-1].day, self.config)}

    def _profile(self, days: Days, index: int, inside: Sequence[date]) -> DayProfile:
        config = view(self.config, "validate", PROFILE_KEYS)
        inputs = {"code": CODE_VERSION, "snapshot": days[index].path.name, "config": values(config)}

        def build(folder: Path) -> dict[str, Any]:
            self.stages.require([days[index].path])
            tables = read_day(self.log, days, index, config, inside)
            labels = _labels(days, index, tables, config)
            profile = profile_day(tables, labels, config.tasks, config.timezone)
            write_json(folder / PROFILE, profile.model_dump(mode="json"))
            return {"day": str(profile.day)}

        stage = self.stages.run("validate", inputs, build)
        return DayProfile.model_validate_json((stage / PROFILE).read_text())


@dataclass(frozen=True, slots=True)
class Acceptances:
    """Findings that somebody has accepted, by day; a file in RUNS/registry, appended to."""

    path: Path

    def codes(self, day: date) -> tuple[str, ...]:
        """Give the codes accepted for a day.

        Raises: RegistryError naming the line that is torn or holds something else.
        """
        text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.exists() else ""
        lines = enumerate(text.splitlines(), start=1)
        records = [Acceptance.parse(line, f"{self.path}, line {number},") for number, line in lines]
        return tuple(code for record in records if record.day == day for code in record.codes)

    def accept(self, day: date, codes: Iterable[str], night: date) -> None:
        """Accept some findings of a day, in this night and all later ones."""
        fresh = tuple(sorted({*codes} - {*self.codes(day)}))
        if fresh:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            record = Acceptance(day=day, codes=fresh, night=night)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(record.model_dump_json() + "\n")
                stream.flush()
                os.fsync(stream.fileno())


def parse_codes(text: str, night: date) -> dict[date, list[str]]:
    """Read `CODE,CODE@YYYY-MM-DD,…`: which findings may pass, of the night's own day unless a day is given.

    Raises: ConfigError listing the codes that can be accepted.
    """
    known = sorted({*FindingCode.__args__} - {*NEVER_ACCEPTED})  # type: ignore[attr-defined]
    found: dict[date, list[str]] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        code, _, day = part.partition("@")
        if code not in known:
            raise ConfigError(
                f"--accept-findings {part!r}: no finding that can be accepted; known: {', '.join(known)}"
            )
        try:
            found.setdefault(date.fromisoformat(day) if day else night, []).append(code)
        except ValueError:
            raise ConfigError(
                f"--accept-findings {part!r}: {day!r} is no date; write CODE@YYYY-MM-DD"
            ) from None
    return found


def require_sound(validation: Validation, report: str) -> None:
    """Stop a night whose data has errors.

    Raises: DataError naming the report, the worst findings and a row of each.
    """
    errors = validation.errors
    if not errors:
        return
    lines = [f"{validation.date}: the data has {len(errors)} error(s), nothing was trained; report: {report}"]
    lines += [f"  {f.line}{_first_row(f)}; {f.remedy}" for f in errors[:NUM_TOLD]]
    lines += [f"  and {len(errors) - NUM_TOLD} more"] if len(errors) > NUM_TOLD else []
    accept = [f for f in errors if f.code not in NEVER_ACCEPTED]
    codes = sorted({f.code if f.day == validation.date else f"{f.code}@{f.day}" for f in accept})
    let = f", or accept a known day with --accept-findings {','.join(codes)}" if codes else ""
    raise DataError("\n".join([*lines, f"repair the log and run again{let}"]))


def _first_row(finding: Finding) -> str:
    if not finding.examples:
        return ""
    return ", for example " + " ".join(f"{k}={v}" for k, v in finding.examples[0].items() if v is not None)


def _softened(finding: Finding) -> Finding:
    return replace(finding, severity="warning") if finding.severity == "error" else finding


def _labels(days: Days, index: int, tables: DayTables, config: RunConfig) -> dict[str, Rate]:
    """Count the labels of the period that each task can be evaluated on as of this one."""
    tasks, period_s = config.tasks, PERIOD_S[config.period]
    found: dict[str, Rate] = {}
    for lag in sorted({t.lag_periods(period_s) for t in tasks}):
        if lag > index:
            break
        first = days[index - lag]
        received = pl.concat([s.table("feedback") for s in days[index - lag : index + 1]])
        shown = first.table("examples", columns=["impression_id", "user_id", "item_id", "shown_at"])
        mine = [t.name for t in tasks if t.lag_periods(period_s) == lag]
        rates = matured_labels(shown, received, _with_parents(tasks, mine), tables.as_of)
        found |= {name: Rate(day=first.day, **rates[name]) for name in mine}
    return found


def _with_parents(tasks: Sequence[TaskSpec], names: Iterable[str]) -> list[TaskSpec]:
    """Choose tasks and those that their labels rest on; a parent stands before its child."""
    wanted = {*names}
    for task in reversed(tasks):
        if task.name in wanted and task.parent is not None:
            wanted.add(task.parent)
    return [task for task in tasks if task.name in wanted]
