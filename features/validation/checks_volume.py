"""Checks of volume, hours and rates of a day, against the days before."""

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from scipy.special import chdtri, pdtr

from features.validation.findings import Finding, Where, above, below
from features.validation.reference import Compared, Deviation, deviation, stability
from recsys.config import PERIOD_S, FindingCode, Levels, Severity

_STILL_THERE = 0.1
"""An hour with less than this share of what it usually has counts as lost."""
_CLOCK_REQUESTS = 100
_ONE_INSTANT = 0.5
"""Chance of two users' rows at one time of day from which on the hours of the days say nothing."""


def check_volume(day: Compared) -> Iterator[Finding]:
    """Find a day with far fewer, or far more, requests than days like it."""
    seen = deviation(day.today.requests, 1.0, [(p.requests, 1.0) for p in day.history], day)
    severity = _out_of_line(seen, day.config.volume_low, day.config.volume_high)
    if seen is not None and severity:
        yield Finding(
            code="volume", severity=_unless_new_weekday(severity, day), table="impressions",
            measured="requests", value=day.today.requests,
            expected=_range(seen.expected, day.config.volume_low, day.config.volume_high),
            rows=day.today.impressions,
            remedy="look for a missing or doubled file, an outage, a campaign or a holiday",
            where=Where(table="impressions"),
        )  # fmt: skip


def check_hours(day: Compared) -> Iterator[Finding]:
    """Find hours of the day that usually have users and now have (almost) none."""
    if not day.history or not _has_hours(day):
        return
    hours = np.array([p.hours for p in day.history])
    usual = np.median(hours, axis=0)
    today = np.array(day.today.hours)
    unlikely = pdtr(today, usual) < day.config.false_alarm
    never_so_empty = hours.min(axis=0) > _STILL_THERE * usual
    lost = (today <= _STILL_THERE * usual) & unlikely & never_so_empty
    share = float(usual[lost].sum() / max(1.0, usual.sum()))
    severity = above(share, day.config.hours_missing)
    if severity:
        empty = [int(h) for h in np.flatnonzero(lost)]
        edges = sorted({(h + step) % 24 for h in empty for step in (-1, 1)} - {*empty})
        yield Finding(
            code="hours", severity=_unless_new_weekday(severity, day), table="impressions", column="shown_at",
            measured=f"usual share of the users of hours that are empty now ({_spans(empty)})", value=share,
            expected=f"below {day.config.hours_missing[0]:g}", rows=round(float(usual[lost].sum())),
            counted="usual users",
            remedy="find the file or the journal of these hours; rows named are those beside the gap",
            where=Where(table="impressions", rows=pl.col("hour").is_in(edges)),
        )  # fmt: skip


def _has_hours(day: Compared) -> bool:
    """Tell whether hours mean something: not in weeks and months, nor where most rows share one instant.

    A date without a time is its day's first instant: another hour where the clocks skip midnight.
    """
    return day.settings.period == "P1D" and (day.usual(lambda p: p.same_instant) or 0.0) < _ONE_INSTANT


def check_freshness(day: Compared) -> Iterator[Finding]:
    """Find a table that ends long before the day does."""
    for name, instant in (("impressions", "shown_at"), ("feedback", "received_at")):
        gap = day.today.tables[name].gap_hours
        usual = day.usual(lambda p, n=name: p.tables[n].gap_hours)  # type: ignore[misc]
        if gap is None or usual is None:
            continue
        # Arrivals are Poisson: the chance that nobody comes for so long is exp(-visitors · periods).
        visitors = day.usual(lambda p, n=name: float(min(p.ids["user_id"].distinct, p.tables[n].rows))) or 0.0  # type: ignore[misc]
        periods_long = (gap - usual) * 3600 / PERIOD_S[day.settings.period]
        in_days = PERIOD_S[day.settings.period] / PERIOD_S["P1D"]
        severity = above((gap - usual) / in_days, day.config.stale_hours)
        if severity and visitors * periods_long > -np.log(day.config.false_alarm):
            yield Finding(
                code="freshness", severity=severity, table=name, column=instant,
                measured="hours from the last row to the end of the day", value=gap,
                expected=f"below {usual + day.config.stale_hours[0] * in_days:.3g}",
                rows=day.today.tables[name].rows,
                remedy="the day was read before it was complete: wait for the journal, then run again",
                where=Where(table=name, rows=pl.col(instant) == pl.col(instant).max()),
            )  # fmt: skip


def check_clock(day: Compared) -> Iterator[Finding]:
    """Find a day whose hourly pattern is the usual one, shifted: a wrong clock or time zone."""
    usual = np.sum([p.hours for p in day.history], axis=0) if day.history else np.zeros(24)
    today = np.array(day.today.hours, dtype=float)
    if min(today.sum(), usual.sum()) < _CLOCK_REQUESTS or not _has_hours(day):
        return
    moved = [float(stability(np.roll(today, -shift), usual).sum()) for shift in range(24)]
    own = [float(stability(np.array(p.hours, dtype=float), usual).sum()) for p in day.history]
    best = int(np.argmin(moved))
    noise = float(chdtri(23, day.config.false_alarm)) * (1 / today.sum() + 1 / usual.sum())
    if best == 0 or moved[0] < max(noise, 3 * float(np.median(own))) or moved[best] > moved[0] / 3:
        return
    shift = best if best <= 12 else best - 24
    yield Finding(
        code="clock", severity="error" if abs(shift) > 1 else "warning", table="impressions",
        column="shown_at", measured="hours by which the day's pattern is shifted", value=shift, expected="0",
        rows=day.today.tables["impressions"].raw_rows,
        remedy=f"instants must be UTC and `timezone` ({day.settings.timezone}) the log's own",
        where=Where(table="impressions"),
    )  # fmt: skip


def check_feedback_rate(day: Compared) -> Iterator[Finding]:
    """Find that one kind of feedback was received far less, or more, often per impression than usual."""
    for kind in dict.fromkeys(t.feedback for t in day.settings.tasks):
        history = [(float(p.received.get(kind, 0)), float(p.impressions)) for p in day.history]
        count = day.today.received.get(kind, 0)
        yield from _rate(day, "feedback_rate", kind, f"{kind} received per impression", count,
                         day.today.impressions, history)  # fmt: skip


def check_label_rate(day: Compared) -> Iterator[Finding]:
    """Find that impressions whose windows have just closed have far fewer, or more, labels than usual."""
    for task in day.settings.tasks:
        rate = day.today.labels.get(task.name)
        if rate is None:
            continue
        rates = [p.labels[task.name] for p in day.history if task.name in p.labels]
        history = [(float(r.labelled), float(r.rows)) for r in rates]
        yield from _rate(day, "label_rate", task.feedback, f"{task.name} labels per impression of {rate.day}",
                         rate.labelled, rate.rows, history)  # fmt: skip


def _rate(
    day: Compared,
    code: FindingCode,
    kind: str,
    measured: str,
    count: int,
    exposure: int,
    history: Sequence[tuple[float, float]],
) -> Iterator[Finding]:
    seen = deviation(count, exposure, history, day) if exposure else None
    severity = _out_of_line(seen, day.config.rate_low, day.config.rate_high)
    if seen is not None and severity:
        usual = seen.expected / exposure
        yield Finding(
            code=code, severity=_unless_new_weekday(severity, day), table="feedback", column=kind,
            measured=measured, value=count / exposure,
            expected=_range(usual, day.config.rate_low, day.config.rate_high), rows=exposure,
            remedy="look for feedback that is lost, repeated or without impression_id, or a changed page",
            where=Where(table="feedback", rows=pl.col("kind") == kind),
        )  # fmt: skip


def _out_of_line(seen: Deviation | None, low: Levels, high: Levels) -> Severity | None:
    if seen is None or seen.is_noise:
        return None
    return below(seen.ratio, low) or above(seen.ratio, high)


def _unless_new_weekday(severity: Severity, day: Compared) -> Severity:
    """Only warn where the history has no such weekday: a first Sunday may rightly differ."""
    return severity if day.knows_weekday else "warning"


def _range(usual: float, low: Levels, high: Levels) -> str:
    return f"{_plain(usual * low[0])} to {_plain(usual * high[0])}"


def _plain(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _spans(hours: Sequence[int]) -> str:
    """Say which hours, in order: 00 to 05, 07."""
    first = [h for h in hours if h - 1 not in hours]
    last = [h for h in hours if h + 1 not in hours]
    return ", ".join(f"{a:02d} to {b:02d}" if b > a else f"{a:02d}" for a, b in zip(first, last, strict=True))
