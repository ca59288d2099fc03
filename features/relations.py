"""Checks across rows, which no row alone fails: keys not unique, files that do not match, odd days.

Each function looks at figures and gives a finding, or None where all is well. `recsys convert` stops at an
error before it publishes a log, unless `[checks] accept` of the mapping names it; `recsys data profile` shows
the same findings.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Final, Literal, get_args

import polars as pl

from features.profile.model import Finding, IdShapes, IdSpellings, Requests
from features.spellings import one_id, spellings

CheckName = Literal[
    "request_id_not_unique",
    "impression_id_not_unique",
    "event_id_not_unique",
    "users_not_in_file",
    "items_not_in_file",
    "days_apart",
    "one_user",
    "spreadsheet_ids",
    "ids_spelt_twice",
    "repeated_ids",
    "near_kinds",
    "organic_feedback",
    "feedback_before_impression",
    "no_feedback",
]
CHECK_NAMES: Final[tuple[CheckName, ...]] = get_args(CheckName)
MIN_ROWS: Final = 1_000
"""A smaller log is one that somebody tries things with: what would stop is a warning."""
MAX_SHARED: Final = 0.001
MIN_LISTED: Final = 0.5
USUALLY_LISTED: Final = 0.95
MAX_FAR: Final = 0.01
GAP: Final = 10
MAX_OF_ONE: Final = 0.5
MOSTLY_ORGANIC: Final = 0.5
SOME_EARLY: Final = 0.05
ALL_ORGANIC: Final = 0.99
MAX_SPELT: Final = 0.03
"""Of the rows: those that have a rarer spelling of their id. Tags that people type have .012, ids none."""
_DIGITS: Final = 15
"""A spreadsheet keeps so many digits of a number."""


def shared_requests(found: Requests, rows: int) -> Finding | None:
    """Find ids that name the requests of several users: a list is shown to one."""
    if found.example is None or found.shared <= MAX_SHARED * found.requests:
        return None
    request, one, other = found.example
    spelt = "one user's id written in two ways? write it in one; else " if one_id(one, other) else ""
    return _stop(
        "request_id_not_unique",
        f"{_share(found.shared, found.requests)} of the requests have several users, such as {request!r} of "
        f"{one!r} and {other!r}",
        f"{spelt}a page or session number that starts again is no list's own id: name a column that is, or "
        "leave `request` out; accepted, each user's and day's rows of one number are one list",
        rows,
    )


def shared_impressions(found: Requests, rows: int) -> Finding | None:
    """Find ids that name several impressions. Args: found: with two of an id's users and items."""
    if found.example is None or found.shared <= MAX_SHARED * found.requests:
        return None
    impression, one, other = found.example
    return _stop(
        "impression_id_not_unique",
        f"{_share(found.shared, found.requests)} of the impressions' ids name several users or items, such "
        f"as {impression!r} of {one!r} and {other!r}",
        "a number that starts again is no id: name a column that is one, or leave `impression` out",
        rows,
    )


def shared_events(shared: int, events: int, example: tuple[str, str, str], rows: int) -> Finding:
    """Tell of events that were left out for an id of another event. Args: example: the id, and both."""
    event, one, other = example
    return (_stop if shared > MAX_SHARED * events else _warn)(
        "event_id_not_unique",
        f"{_share(shared, events)} of the events have the id of one of another user, item or kind, such as "
        f"{event!r} of {one!r} and {other!r}",
        "only the first is kept: an order's number is no event's id; name a column that is, or leave `event` "
        "out",
        rows,
    )


def mostly_organic(organic: int, feedback: int) -> bool:
    """Tell whether most feedback belongs to no impression."""
    return organic > MOSTLY_ORGANIC * feedback


def organic_feedback(organic: int, feedback: int, apart: Sequence[str], rows: int) -> Finding | None:
    """Find feedback that belongs to no impression, where it is most: it makes no labels.

    Args: apart: what sets it apart from all that was shown, such as its days; empty where that is chance.
    """
    if not mostly_organic(organic, feedback):
        return None
    why = f" ({'; '.join(apart)})" if apart else ""
    return (_stop if apart and organic > ALL_ORGANIC * feedback else _warn)(
        "organic_feedback",
        f"{_share(organic, feedback)} of the feedback finds no impression{why}",
        "it enters histories and never a label: write ids and times of both in one way, name `request` or "
        "`impression`, or widen [match] window",
        rows,
    )


def feedback_before_impression(
    before: int, feedback: int, example: tuple[str, datetime, datetime], rows: int
) -> Finding | None:
    """Find feedback that happened before the impression that it names, where it is more than a few clocks.

    Args: example: an impression, when its feedback happened, and when it was shown.
    """
    if before <= SOME_EARLY * feedback:
        return None
    impression, happened, shown = example
    return (_stop if before > MOSTLY_ORGANIC * feedback else _warn)(
        "feedback_before_impression",
        f"{_share(before, feedback)} of the feedback happened before the impression that it names was shown, "
        f"such as that of {impression!r}: {happened:%Y-%m-%d %H:%M:%S} and {shown:%Y-%m-%d %H:%M:%S}",
        "it becomes no label: the two are written in different zones (time_zone), or the time of the "
        "impression is that of logging",
        rows,
    )


def unlisted(table: Literal["users", "items"], seen: pl.Series, told: pl.Series, rows: int) -> Finding | None:
    """Find ids of events that the users' or items' file does not have, where they are many."""
    missing = seen.filter(~seen.is_in(told.implode())).sort()
    share = 1 - missing.len() / max(seen.len(), 1)
    if share >= USUALLY_LISTED or seen.is_empty():
        return None
    what = (
        f"{_share(missing.len(), seen.len())} of the {table} of events are not in the {table} file"
        f"{spellings(missing, told, 'file')}"
    )
    remedy = f"write ids in both in one way, or complete the {table} file"
    code: CheckName = "users_not_in_file" if table == "users" else "items_not_in_file"
    return (_warn if share >= MIN_LISTED else _stop)(code, what, remedy, rows)


def days_apart(
    rows_of_days: Mapping[date, int], column: str | None = None, of: int | None = None
) -> Finding | None:
    """Find a few rows that lie far from all others in time: a clock was wrong.

    A night builds every day between them. Args: column: of the mapping, if it is not the time of the rows;
    of: rows of the log, where these are a part of them.
    """
    days, rows = sorted(rows_of_days), sum(rows_of_days.values())
    if len(days) < 2:
        return None
    low, high = _bulk(days, rows_of_days)
    outside = [day for day in days if not low <= day <= high]
    far = sum(rows_of_days[day] for day in outside)
    if not outside or far >= MAX_FAR * rows:
        return None
    before, after = [d for d in outside if d < low], [d for d in outside if d > high]
    gap = max((low - before[-1]).days if before else 0, (after[0] - high).days if after else 0)
    bounds = [f"first_day = {low}"] * bool(before) + [f"last_day = {high}"] * bool(after)
    some = ", ".join(map(str, (*before[-2:], *after[:2])))
    remedy = f"set {' and '.join(bounds)} in the mapping"
    if column is not None:
        remedy = f"right these rows, or leave `{column}` out of the mapping"
    return _stop(
        "days_apart",
        f"{far:,} of {rows:,} rows lie up to {gap:,} days from the rest, which is of {low} to {high}: "
        f"those of {some}",
        f"a wrong clock? {remedy}: a night builds every day between",
        of or rows,
    )


def one_user(user: str, share: float, rows: int) -> Finding | None:
    """Find a user who has most rows."""
    if share <= MAX_OF_ONE or rows < MIN_ROWS:
        return None
    return _stop(
        "one_user",
        f"user {user!r} has {share:.0%} of all rows",
        "a placeholder for everybody without a login, or a robot: leave it empty and name `session`, or "
        "leave its rows out",
        rows,
    )


def no_feedback(lost: int) -> Finding:
    """Tell of a log without feedback: it has no labels. Args: lost: rows that broke a rule."""
    if lost:
        what = f"no feedback is left; {lost:,} rows broke a rule"
        return Finding(
            severity="error", code="no_feedback", what=what, remedy="see why they are in quarantine"
        )
    remedy = "a night learns nothing from it: convert feedback too"
    return Finding(severity="warning", code="no_feedback", what="the files have no feedback", remedy=remedy)


def repeated_ids(table: str, rows: int, example: str) -> Finding:
    """Tell of rows of users or items that contradict another row of their id."""
    return Finding(
        severity="warning",
        code="repeated_ids",
        what=f"{rows:,} rows of the {table} file have another row's id and other values, such as {example!r}",
        remedy="the last row holds: write one row an id, or name `known_from` where they are states in time",
    )


def id_shapes(ids: pl.Series) -> IdShapes:
    """Count ids of shapes that spreadsheets and table tools make."""
    text = pl.col("id")
    long, point = text.str.contains(r"^\d{16,}$"), text.str.contains(r"^\d+\.\d+$")
    tail = text.str.slice(_DIGITS)
    cut, zero = long & tail.str.contains("^0+$"), point & text.str.ends_with(".0")
    scientific = text.str.contains(r"^-?\d([.,]\d+)?[eE]\+\d+$")
    counted = pl.DataFrame({"id": ids}).lazy().select(
        scientific=scientific.sum(),
        scientific_example=text.filter(scientific).min(),
        long=long.sum(),
        cut=cut.sum(),
        cut_zeros=tail.filter(cut).str.len_bytes().sum(),
        cut_example=text.filter(cut).min(),
        pointed=point.sum(),
        point_zero=zero.sum(),
        point_zero_example=text.filter(zero).min(),
    )  # fmt: skip
    return IdShapes(**counted.collect().row(0, named=True))


def spreadsheet_ids(name: str, found: IdShapes) -> Finding | None:
    """Find ids of a shape that a spreadsheet or a table tool makes of them."""
    said = []
    if found.scientific:
        said.append((found.scientific, "in scientific notation", found.scientific_example))
    # Of 16 digits the last is 0 by chance in one id of ten; three zeros, and most ids, are no chance.
    if found.cut_zeros >= 3 and found.cut > found.long / 2:
        said.append((found.cut, f"with zeros after {_DIGITS} digits", found.cut_example))
    if found.point_zero and found.point_zero == found.pointed:
        said.append((found.point_zero, "written as numbers with .0", found.point_zero_example))
    if not said:
        return None
    parts = ", ".join(f"{n:,} ids {how}, such as {example!r}" for n, how, example in said)
    remedy = "a spreadsheet or a table tool wrote them so, and digits may be lost: export ids as text"
    return Finding(severity="warning", code="spreadsheet_ids", what=f"{name}: {parts}", remedy=remedy)


def ids_spelt_twice(name: str, found: IdSpellings, rows: int) -> Finding | None:
    """Find ids that are written in several ways: each way is a user, or an item, of its own.

    Args: name: whose ids, such as "users of events"; rows: of the log.
    """
    if found.example is None:
        return None
    one, of_one, other, of_other = found.example
    return (_stop if found.apart > MAX_SPELT * found.rows else _warn)(
        "ids_spelt_twice",
        f"{_share(found.several, found.ids)} of the {name} are written in several ways, such as {one!r} "
        f"({of_one:,} rows) and {other!r} ({of_other:,}); {_share(found.apart, found.rows)} of the rows have "
        "the rarer spelling",
        "each spelling is one of its own, with a part of the history: write an id in one way",
        rows,
    )


def _bulk(days: list[date], rows_of_days: Mapping[date, int]) -> tuple[date, date]:
    """Find the days of all but a hundredth of the rows at each end, and those near them."""
    rows = sum(rows_of_days.values())
    first, last = 0, len(days) - 1
    below = above = 0
    while below + rows_of_days[days[first]] < MAX_FAR * rows:
        below += rows_of_days[days[first]]
        first += 1
    while above + rows_of_days[days[last]] < MAX_FAR * rows:
        above += rows_of_days[days[last]]
        last -= 1
    near = True
    while near:
        reach = timedelta(days=GAP * ((days[last] - days[first]).days + 1))
        near = False
        if first and days[first] - days[first - 1] <= reach:
            first, near = first - 1, True
        if last < len(days) - 1 and days[last + 1] - days[last] <= reach:
            last, near = last + 1, True
    return days[first], days[last]


def _share(some: int, of: int) -> str:
    return f"{some:,} of {of:,} ({some / max(of, 1):.1%})"


def _stop(code: CheckName, what: str, remedy: str, rows: int) -> Finding:
    severity: Literal["error", "warning"] = "error" if rows >= MIN_ROWS else "warning"
    return Finding(severity=severity, code=code, what=what, remedy=remedy)


def _warn(code: CheckName, what: str, remedy: str, _rows: int) -> Finding:
    return Finding(severity="warning", code=code, what=what, remedy=remedy)
