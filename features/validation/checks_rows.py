"""Checks of the rows that came in: broken rules, wrong partitions, duplicates, one user with too many."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import combinations
from statistics import median

import polars as pl

from features.validation.findings import Finding, Where, above
from features.validation.measure import outside_range
from features.validation.profile import DayProfile, TableProfile
from features.validation.reference import Compared, share_noise
from recsys.config import FindingCode

_OWN_CHECK = {"outside_partition": "misfiled", "duplicate": "duplicates", "over_daily_cap": "bots"}
"""Reasons of quarantine that other checks look at; all others are rules of the schema."""
_MANY_USERS = 50
_TIMES_USUAL = 5.0
_COARSE = 0.02
"""Chance of two users' rows at one time of day above which that time says little: fifty instants a day."""
_WHOLE = 0.9


def check_empty(day: Compared) -> Iterator[Finding]:
    """Find a day without any usable impression: there is nothing to train on."""
    table = day.today.tables["impressions"]
    if table.rows == 0:
        bad = table.quarantine
        yield Finding(
            code="empty", severity="error", table="impressions", measured="usable impressions", value=0,
            expected="some", rows=sum(bad.values()),
            remedy=f"write the day's log and run again; in quarantine: {bad or 'nothing'}",
            where=Where(table="impressions", quarantined=bool(bad)),
        )  # fmt: skip


def check_ranges(day: Compared) -> Iterator[Finding]:
    """Find rows that break a rule of the schema, and values beyond what a task declares."""
    for name, table in day.today.tables.items():
        for reason, rows in table.quarantine.items():
            if reason not in _OWN_CHECK:
                yield from _bad_rows(
                    day, "ranges", name, reason, rows, f"share of rows that break the rule {reason!r}",
                    lambda t, r=reason: t.quarantine.get(r, 0),  # type: ignore[misc]
                    "repair what writes this column; the rows are in the snapshot's quarantine",
                    Where(table=name, quarantined=True, rows=pl.col("quarantine_reason") == reason),
                )  # fmt: skip
    for task in (t for t in day.settings.tasks if t.kind.label == "value"):
        rows = day.today.outside.get(task.feedback, 0)
        of = day.today.received.get(task.feedback, 0)
        severity = above(rows / max(1, of), day.config.bad_share)
        if severity and rows > 0:
            yield Finding(
                code="ranges", severity=severity, table="feedback", column=f"value[{task.feedback}]",
                measured=f"share of {task.feedback} outside {task.low:g} to {task.high:g}", value=rows / of,
                expected=f"below {day.config.bad_share[0]:g}", rows=rows,
                remedy=f"write the scale of [[task]] {task.name!r}, or change its low and high",
                where=Where(table="feedback", rows=outside_range(task)),
            )  # fmt: skip


def check_misfiled(day: Compared) -> Iterator[Finding]:
    """Find rows whose instant lies on another business day than the partition they were written to."""
    yield from _quarantined(
        day, "misfiled", "outside_partition", "share of rows that belong to another day",
        "a copied partition, a clock or a time zone: file rows under the business day of their instant in "
        f"{day.settings.timezone}",
    )  # fmt: skip


def check_duplicates(day: Compared) -> Iterator[Finding]:
    """Find repeated rows, under the same id or under new ids."""
    yield from _quarantined(
        day, "duplicates", "duplicate", "share of rows whose id an earlier row has",
        "a partition written twice: keep one copy",
    )  # fmt: skip
    for name, table in day.today.tables.items():
        yield from _bad_rows(
            day, "duplicates", name, None, table.repeats, "share of rows that repeat another under a new id",
            lambda t: t.repeats,
            "the day was written twice with new ids: keep one copy, and derive ids from the event",
            Where(table=name, rows=pl.col("is_repeat")),
        )  # fmt: skip


def check_bots(day: Compared) -> Iterator[Finding]:
    """Find a user with far more rows than others, and rows beyond the daily cap."""
    capped = _quarantined(
        day, "bots", "over_daily_cap", "share of rows beyond [features] daily_cap",
        "exclude the user, or raise the cap if people really do this",
    )  # fmt: skip
    # The cap has already quarantined these rows, so they only warn.
    yield from (replace(finding, severity="warning") for finding in capped)
    ids = day.today.ids["user_id"]
    share = ids.top_rows / max(1, day.today.impressions)
    usual = day.usual(lambda p: p.ids["user_id"].top_rows / max(1, p.impressions))
    severity = above(share, day.config.user_share)
    # Without earlier days only an extreme share counts, and only where there are many users.
    alone = usual is None and ids.distinct >= _MANY_USERS and severity == "error"
    if severity and (alone or (usual is not None and share > _TIMES_USUAL * usual)):
        yield Finding(
            code="bots", severity=severity, table="impressions", column="user_id",
            measured=f"share of user {ids.top}", value=share,
            expected=f"below {day.config.user_share[0]:g}" + (f", usually {usual:.3g}" if usual else ""),
            rows=ids.top_rows, remedy="exclude the user, or lower [features] daily_cap",
            where=Where(table="impressions", rows=pl.col("user_id") == ids.top),
        )  # fmt: skip


def check_copied_day(day: Compared) -> Iterator[Finding]:
    """Find a copy of an earlier day: the same lists to the same users at the same times of day.

    Where times of day say little (dates without times, one delivery a day), customers who buy the same again
    look like a copy. There only a day that is another one almost whole counts, and more so than days are.
    """
    for other in day.recent if day.today.sketch else ():
        share = _shared(day.today, other)
        coarse = max(day.today.same_instant, other.same_instant) > _COARSE
        severity = above(share, day.config.copied_share)
        if severity and not (coarse and not _is_whole(share, day)):
            yield Finding(
                code="copied_day", severity=severity, table="impressions",
                measured=f"share of rows also on {other.day}", value=share,
                expected=f"below {_WHOLE if coarse else day.config.copied_share[0]:g}",
                rows=round(share * day.today.impressions),
                remedy=f"the data of {other.day} was written again under a new date: write this day's own",
                where=Where(table="impressions"),
            )  # fmt: skip


def _shared(day: DayProfile, other: DayProfile) -> float:
    """Estimate the share of two days' rows that both have."""
    mine, theirs = {*day.sketch}, {*other.sketch}
    both = mine & theirs
    if not both:
        return 0.0
    union = sorted(mine | theirs)[: len(mine)]
    return sum(h in both for h in union) / len(union)


def _is_whole(share: float, day: Compared) -> bool:
    """Tell whether a day is another one almost whole, and days are not like that."""
    usual = [_shared(a, b) for a, b in combinations(day.recent, 2)] if share >= _WHOLE else []
    return bool(usual) and share - median(usual) >= day.config.copied_share[1]


def _quarantined(
    day: Compared, code: FindingCode, reason: str, measured: str, remedy: str
) -> Iterator[Finding]:
    for name, table in day.today.tables.items():
        yield from _bad_rows(
            day, code, name, None, table.quarantine.get(reason, 0), measured,
            lambda t: t.quarantine.get(reason, 0), remedy,
            Where(table=name, quarantined=True, rows=pl.col("quarantine_reason") == reason),
        )  # fmt: skip


def _bad_rows(
    day: Compared,
    code: FindingCode,
    table: str,
    column: str | None,
    rows: int,
    measured: str,
    count: Callable[[TableProfile], int],
    remedy: str,
    where: Where,
) -> Iterator[Finding]:
    """Evaluate a share of a table's rows against the usual one."""
    of = day.today.tables[table].raw_rows
    usual = day.usual(lambda p: count(p.tables[table]) / max(1, p.tables[table].raw_rows)) or 0.0
    share = rows / max(1, of)
    severity = above(share - usual, day.config.bad_share)
    if severity is None or rows == 0 or (usual and share - usual <= share_noise(usual, of, day)):
        return
    yield Finding(
        code=code, severity=severity, table=table, column=column, measured=measured, value=share,
        expected=f"below {usual + day.config.bad_share[0]:.3g}", rows=rows, remedy=remedy, where=where,
    )  # fmt: skip


ROW_CHECKS: Mapping[str, Callable[[Compared], Iterator[Finding]]] = {
    "empty": check_empty,
    "ranges": check_ranges,
    "misfiled": check_misfiled,
    "duplicates": check_duplicates,
    "bots": check_bots,
    "copied_day": check_copied_day,
}
