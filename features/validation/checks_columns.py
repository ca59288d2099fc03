"""Checks of the columns of a day, against the days before: ids, nulls, types, distributions."""

from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

import polars as pl

from features.validation.findings import Finding, Where, above
from features.validation.measure import bin_of
from features.validation.profile import ColumnProfile
from features.validation.reference import Compared, Drift, column_drift, share_noise

POLICY_COLUMNS = ("position", "propensity", "propensity_kind", "explored", "sampled")
"""What the logging policy writes about itself. A new policy changes them, which is no fault: they only
warn."""


def check_kinds(day: Compared) -> Iterator[Finding]:
    """Find a free column that changed between numbers and text; the model still reads the earlier type."""
    for table, column, today, history in _columns(day):
        kinds = {p.kind for p in history} - {"nothing"}
        if len(kinds) == 1 and today.kind not in (*kinds, "nothing"):
            yield Finding(
                code="schema", severity="error", table=table, column=column,
                measured=f"{column} holds {today.kind}; share of rows", value=1 - today.null_share,
                expected=f"{kinds.pop()}", rows=today.rows - today.nulls,
                remedy="write the column with its earlier type; give a new meaning a new column name",
                where=Where(table=table, rows=~_is_null(column)),
            )  # fmt: skip


def check_new_ids(day: Compared) -> Iterator[Finding]:
    """Find a day with far more new users, or new items, than usual."""
    for key, ids in day.today.ids.items():
        if ids.new is None or ids.distinct < day.config.min_expected:
            continue
        shares = [p.ids[key].new / p.ids[key].distinct for p in day.history if p.ids[key].new is not None]  # type: ignore[operator]
        usual = median(shares) if shares else None
        share = ids.new / ids.distinct
        if usual is None or share - usual <= share_noise(usual, ids.distinct, day):
            continue
        severity = above(share - usual, day.config.new_ids)
        if severity:
            yield Finding(
                code="new_ids", severity=severity, table="impressions", column=key,
                measured=f"share of the day's {key}s that no earlier day knows", value=share,
                expected=f"below {usual + day.config.new_ids[0]:.3g}", rows=ids.new,
                remedy="map ids back if they are now hashed or prefixed differently; the model knows none",
                where=Where(table="impressions", rows=pl.col(f"new_{key}")),
            )  # fmt: skip


def check_nulls(day: Compared) -> Iterator[Finding]:
    """Find a column with far more nulls than usual, or one that is no longer written."""
    for table, column, today, history in _columns(day):
        usual = median(p.null_share for p in history)
        rise = today.null_share - usual
        draws = min(today.effective, float(today.rows))
        if draws < day.config.min_expected or rise <= share_noise(usual, draws, day):
            continue
        severity = above(rise, day.config.nulls)
        if severity:
            known = column in day.today.tables[table].columns
            yield Finding(
                code="nulls", severity=severity, table=table, column=column, measured="share of nulls",
                value=today.null_share, expected=f"below {usual + day.config.nulls[0]:.3g}", rows=today.nulls,
                remedy="repair what writes the column" if known else "the column is gone: write it again",
                where=Where(table=table, rows=_is_null(column) if known else None),
            )  # fmt: skip


class ColumnDrift(NamedTuple):
    """A column of a day, the same of the days it is compared with, and how far it moved."""

    today: ColumnProfile
    history: list[ColumnProfile]
    drift: Drift


def drifts(day: Compared) -> Iterator[tuple[str, str, "ColumnDrift"]]:
    """Give table, column and drift of each column that has enough rows to tell."""
    for table, column, today, history in _columns(day):
        if column == "sampling_rate":  # of how many items some are drawn: it moves as the catalogue grows
            continue
        drift = column_drift(today, history, day)
        if drift is not None:
            yield table, column, ColumnDrift(today, history, drift)


def check_drift(day: Compared) -> Iterator[Finding]:
    """Find a column whose distribution differs by more than chance and the usual spread between days."""
    for table, column, (today, history, drift) in drifts(day):
        if drift.is_noise:
            continue
        severity = above(drift.excess, day.config.psi)
        if severity and column in POLICY_COLUMNS:
            severity = "warning"
        if severity:
            yield Finding(
                code="drift", severity=severity, table=table, column=column,
                measured="population stability index", value=drift.psi,
                expected=f"below {drift.psi - drift.excess + day.config.psi[0]:.2g}",
                rows=drift.rows,
                remedy=_explain(today, history),
                where=Where(table=table, rows=_rows_of(column, today, drift)),
            )  # fmt: skip


_OURS = "sampling_rate"
"""What the converter makes of a user's choices: it drifts as they choose more, and no file is wrong then."""


def _columns(day: Compared) -> Iterator[tuple[str, str, ColumnProfile, list[ColumnProfile]]]:
    """Give each column that most of the history has, today's absent ones as all null."""
    for name, table in day.today.tables.items():
        past = [p.tables[name] for p in day.history if p.tables[name].rows]
        for column in dict.fromkeys(c for t in past for c in t.columns):
            history = [t.columns[column] for t in past if column in t.columns]
            today = table.columns.get(column)
            if today is None:
                today = ColumnProfile(rows=table.rows, nulls=table.rows, effective=float(table.rows))
            if 2 * len(history) > len(past) and today.rows and column != _OURS:
                yield name, column, today, history


def _explain(today: ColumnProfile, history: list[ColumnProfile]) -> str:
    if today.low is None or today.high is None:
        top = list(today.categories or {})[:3]
        return f"most frequent now: {', '.join(top)}; check whether meaning or population changed"
    low = min((p.low for p in history if p.low is not None), default=0.0)
    high = max((p.high for p in history if p.high is not None), default=0.0)
    return (
        f"{today.low:g} to {today.high:g} now, {low:g} to {high:g} before; "
        "check whether the unit or the scale changed"
    )


def _is_null(column: str) -> pl.Expr:
    name, mine = _of_kind(column)
    return mine & pl.col(name).is_null()


def _of_kind(column: str) -> tuple[str, pl.Expr]:
    """Split `value[rating]` into the column and the rows that it is about."""
    name, _, kind = column.partition("[")
    return name, pl.col("kind") == kind.removesuffix("]") if kind else pl.lit(value=True)


def _rows_of(column: str, today: ColumnProfile, drift: Drift) -> pl.Expr:
    name, mine = _of_kind(column)
    if today.bins is not None:
        inside = bin_of(name).is_in([b for b in drift.bins if isinstance(b, int)])
    elif today.is_list:
        inside = pl.col(name).list.eval(pl.element().is_in([str(b) for b in drift.bins])).list.any()
    else:
        inside = pl.col(name).cast(pl.String).is_in([str(b) for b in drift.bins])
    return mine & pl.col(name).is_not_null() & (~inside if drift.others else inside)
