"""What a night's page shows, and its HTML: one file under a megabyte, without network."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from recsys.files import write_whole
from recsys.records import NightRecord, Verdict
from recsys.registry import what_is_live
from training.report.night.night_plots import Line, day_lines, verdict_strip
from training.report.report_files import report_environment

_TEMPLATE = "night.html.j2"
_VALUE = "what the fused order gains over a random one"
HEADLINES = {
    Verdict.PROMOTE: "promoted",
    Verdict.HOLD: "held",
    Verdict.HOLD_UNDERPOWERED: "held for want of evidence",
    Verdict.CHECK_FAILED: "refused by a server",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataHealth:
    """What the days were like. Lines have one value a day of `days`."""

    days: tuple[date, ...]
    rows: Mapping[str, Line]
    """Usable rows by table."""
    bad: Mapping[str, Line]
    """Share of a table's rows that went to quarantine."""
    rates: Mapping[str, Line]
    """Per head, labelled impressions that have the event."""
    new: Mapping[str, Line]
    """Share of a day's users and items that no earlier day knows."""
    drift: Mapping[str, Line]
    """Stability index beyond what chance and habit explain, of the columns that moved most."""
    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NightPage:
    """One night, among those before it."""

    night: date
    verdict: Verdict
    live: str | None
    """What is live now."""
    record: NightRecord
    reasons: tuple[str, ...]
    earlier: tuple[NightRecord, ...]
    """One record a night, oldest first, this night's the last."""
    data: DataHealth

    @property
    def headline(self) -> str:
        """Say how the night ended."""
        return f"The night's version was {HEADLINES[self.verdict]}; {what_is_live(self.live)}."

    @property
    def strip(self) -> list[tuple[date, str, str]]:
        """Give each night's date, verdict, and first reason."""
        return [(r.night, str(r.verdict), next(iter(_reasons(r)), "")) for r in self.earlier]

    @property
    def quality(self) -> dict[str, tuple[list[date], dict[str, Line]]]:
        """Give, per figure, the nights and a line for the model and for each simple system."""
        found: dict[str, tuple[list[date], dict[str, Line]]] = {}
        names = dict.fromkeys(name for r in self.earlier for name, by in r.beside.items() if "model" in by)
        for name in names:
            nights = [r for r in self.earlier if name in r.beside]
            systems = dict.fromkeys(("model", *(system for r in nights for system in r.beside[name])))
            lines: dict[str, Line] = {s: [r.beside[name].get(s) for r in nights] for s in systems}
            found[name] = ([r.night for r in nights], lines)
        valued = [r for r in self.earlier if r.list_value is not None]
        if valued:
            found[_VALUE] = ([r.night for r in valued], {"model": [r.list_value for r in valued]})
        return found

    @property
    def seconds(self) -> dict[str, float]:
        """Give the seconds of each stage that took any, slowest first."""
        took = {} if self.record.lineage is None else self.record.lineage.seconds
        return dict(sorted(((s, t) for s, t in took.items() if t >= 0.1), key=lambda pair: -pair[1]))


def write_page(page: NightPage, file: Path) -> None:
    """Write the page; one that is there is replaced whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, render(page))


def render(page: NightPage) -> str:
    """Fill the template."""
    templates = report_environment(_TEMPLATE)
    templates.globals |= {"day_lines": day_lines, "verdict_strip": verdict_strip}
    return templates.get_template(_TEMPLATE).render(page=page, record=page.record, data=page.data)


def _reasons(record: NightRecord) -> tuple[str, ...]:
    said = [reason for ruling in reversed(record.rulings) for reason in ruling.reasons]
    return tuple(said)
