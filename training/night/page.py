"""The stage that writes a night's page: its data, drift, quality over the nights, checks and outcome."""

from collections.abc import Sequence
from datetime import date

from features.days import Days
from features.validation.checks_columns import drifts
from features.validation.profile import DayProfile, IdProfile
from features.validation.reference import compare
from features.validation.report import Validation
from recsys.config import RunConfig
from recsys.records import NightRecord
from recsys.registry import Registry
from training.gate import Decision
from training.night.night import Ending
from training.night.step import Step
from training.report.night.night_page import DataHealth, NightPage, write_page
from training.report.night.night_plots import MAX_LINES, Line

NIGHTS = 28
_ROWS = ("impressions", "feedback")


def write_night_page(
    step: Step,
    *,
    days: Days,
    validation: Validation,
    proved: Decision,
    evaluated: str,
    live: str | None,
    ending: Ending | None,
) -> None:
    """Write `RUNS/reports/night-<date>.html` and name it in the records of what the night made."""
    night, registry = step.night, step.night.registry
    record = registry.require_record(live or evaluated)
    reasons = [*proved.reasons, *([ending.reason] if ending is not None and ending.reason else [])]
    profiles = night.ingest.profiles(days, max(0, len(days) - NIGHTS))
    page = NightPage(
        night=night.date,
        verdict=proved.verdict if ending is None else ending.verdict,
        live=registry.current(),
        record=record,
        reasons=tuple(reasons),
        earlier=tuple(_one_a_night(registry, night.date)),
        data=data_health(profiles, step.config, validation.lines),
    )
    write_page(page, night.page)
    for version in {evaluated, live or evaluated}:
        made = registry.require_record(version)
        named = made.model_copy(update={"page": str(night.page.relative_to(night.runs))})
        if named != made:
            registry.write_record(named)


def data_health(profiles: Sequence[DayProfile], config: RunConfig, findings: Sequence[str]) -> DataHealth:
    """Put a day's profiles side by side. Args: profiles: oldest first."""
    tables = [name for name in _ROWS if any(name in p.tables for p in profiles)]
    heads = [task.name for task in config.tasks if task.kind.probability]
    return DataHealth(
        days=tuple(p.day for p in profiles),
        rows={name: [_rows(p, name) for p in profiles] for name in tables},
        bad={name: [_bad_share(p, name) for p in profiles] for name in tables},
        rates={head: _rates(profiles, head) for head in heads},
        new={said: _new_shares(profiles, key) for key, said in _id_kinds(profiles).items()},
        drift=_drift(profiles, config),
        findings=tuple(findings),
    )


def _one_a_night(registry: Registry, until: date) -> list[NightRecord]:
    """Give the newest nights up to one, each by the version that went live, or else was evaluated."""
    found: dict[date, NightRecord] = {}
    for record in sorted(registry.records(), key=lambda r: (r.night, r.version != r.evaluated, r.version)):
        if record.night <= until and record.known_until is None:
            found[record.night] = record
    return [found[night] for night in sorted(found)][-NIGHTS:]


def _rows(profile: DayProfile, table: str) -> float | None:
    found = profile.tables.get(table)
    return None if found is None else float(found.rows)


def _bad_share(profile: DayProfile, table: str) -> float | None:
    found = profile.tables.get(table)
    return None if found is None else sum(found.quarantine.values()) / max(1, found.raw_rows)


def _rates(profiles: Sequence[DayProfile], head: str) -> Line:
    """Give a head's rate on the day that its labels are of; None where the window is still open."""
    known = {p.labels[head].day: p.labels[head] for p in profiles if head in p.labels}
    rates = [known.get(p.day) for p in profiles]
    return [None if rate is None or not rate.rows else rate.labelled / rate.rows for rate in rates]


def _id_kinds(profiles: Sequence[DayProfile]) -> dict[str, str]:
    """Name the ids that profiles count, in words."""
    return {key: f"{key.removesuffix('_id')}s" for key in dict.fromkeys(k for p in profiles for k in p.ids)}


def _new_shares(profiles: Sequence[DayProfile], key: str) -> Line:
    """Give the share of new ids by day; None on a log's first day, where all are."""
    found = [profile.ids.get(key) for profile in profiles]
    shares = [
        None if ids is None or not ids.distinct or ids.new is None else ids.new / ids.distinct
        for ids in found
    ]
    return [None, *shares[1:]] if shares[:1] == [1.0] else shares


def _new_share(ids: IdProfile | None) -> float | None:
    return None if ids is None or ids.new is None or not ids.distinct else ids.new / ids.distinct


def _drift(profiles: Sequence[DayProfile], config: RunConfig) -> dict[str, Line]:
    """Give the excess drift of the columns that moved most on any day, worst first."""
    by_day = []
    for i, today in enumerate(profiles):
        compared = compare(today, profiles[:i], config)
        moved = drifts(compared) if compared.history else ()
        by_day.append({f"{table}.{column}": max(0.0, c.drift.excess) for table, column, c in moved})
    most: dict[str, float] = {}
    for found in by_day:
        for name, excess in found.items():
            most[name] = max(most.get(name, 0.0), excess)
    worst = sorted(most, key=lambda name: (-most[name], name))[:MAX_LINES]
    return {name: [found.get(name) for found in by_day] for name in worst}
