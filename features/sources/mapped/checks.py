"""Measure the relations between a conversion's rows, and stop before it is published where they are wrong."""

from collections import Counter
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import polars as pl

from features import relations
from features.profile.model import Finding, Requests
from features.sources.conversion import Conversion
from features.sources.mapped.mapping import Mapping
from features.sources.mapped.side import SideTables
from features.sources.mapped.staging import OUTSIDE, Staged
from features.spellings import spellings, spelt_twice
from recsys.errors import DataError

ORGANIC: Final = "feedback: organic, no impression found"
_ROWS_AT_MOST: Final = 1_000_000
"""Of so many rows, all of some ids, it is known how many ids are shared."""


def check_relations(
    conversion: Conversion,
    mapping: Mapping,
    staged: Staged,
    side: SideTables,
    shown: Counter[date],
    done: Counter[date],
) -> None:
    """Add the findings of the staged rows to the conversion's.

    Args: shown, done: impressions and feedback of each business day.
    Raises: DataError naming each finding that stops, with figures, an example and the remedy.
    """
    rows = conversion.read_rows
    found = _shared(staged, rows) if mapping.logs_impressions else []
    if mapping.source.received is None:
        found.append(relations.days_apart(done if staged.derived else shown + done))
    else:  # impressions lie on the day they were shown, feedback on that on which it was received
        apart = relations.days_apart(shown, of=rows), relations.days_apart(done, "received", rows)
        found.append(next((finding for finding in apart if finding), None))
    rows_of_ids = _rows_of_ids(staged)
    found.append(_one_user(rows_of_ids["users"], rows))
    for table, seen, told in side.ids():
        if told is not None:
            named = seen.filter(~seen.is_in(_sessions(staged).implode())) if table == "users" else seen
            found.append(relations.unlisted(table, named, told, rows))
        for where, ids in (("events", seen), ("the file", told)):
            if ids is not None:
                found.append(relations.spreadsheet_ids(f"{table} of {where}", relations.id_shapes(ids)))
                each = (
                    rows_of_ids[table]
                    if where == "events"
                    else ids.unique().to_frame("id").with_columns(rows=1)
                )
                found.append(relations.ids_spelt_twice(f"{table} of {where}", spelt_twice(each), rows))
    conversion.findings += [finding for finding in found if finding]
    stop(conversion, mapping)


def require_events(src: Path, conversion: Conversion, staged: Staged) -> None:
    """Check that there is a row to convert.

    Raises: DataError saying what became of the rows.
    """
    if not staged.days("feedback") and not staged.days("impressions"):
        ends = [
            f"{rows:,} of [{name}] {what}: {why}"
            for name, tally in conversion.accounting.items()
            for what, why, rows in tally.lines()
            if rows
        ]
        raise DataError(
            f"{src} has no row that is an event; "
            + (f"{'; '.join(ends)}; right the mapping" if ends else "the files are empty")
        )
    if not staged.days("impressions"):
        kinds = "no kind makes one ([match] opens)" if staged.derived else "what was shown has no rows"
        raise DataError(
            f"{src} gives no impression: {kinds}; "
            + ("name a kind that is there" if staged.derived else "without such rows map none to impressions")
        )


def check_kept(conversion: Conversion, mapping: Mapping, staged: Staged) -> None:
    """Look at what is left after all rules.

    Raises: DataError when more rows break a rule than are tolerated, or no feedback is left.
    """
    for name, tally in conversion.accounting.items():
        broken = {why: n for why, n in tally.quarantined.items() if why.startswith(conversion.BREAKS)}
        lost = sum(n for why, n in tally.quarantined.items() if why != OUTSIDE)
        section = getattr(mapping, name, None)
        if broken and section is not None and lost > section.tolerate * tally.read:
            raise DataError(
                f"{lost:,} of {tally.read:,} rows of [{name}] break a rule: "
                + "; ".join(
                    f"{why}: {n:,} rows, such as {conversion.example(why)}" for why, n in broken.items()
                )
                + f"; right the files or the mapping, or set tolerate in [{name}]"
            )
    feedback, organic = conversion.written("feedback"), conversion.notes[ORGANIC]
    if not feedback:
        lost = sum(sum(tally.quarantined.values()) for tally in conversion.accounting.values())
        conversion.findings.append(relations.no_feedback(lost))
    elif mapping.logs_impressions and relations.mostly_organic(organic, feedback):
        apart = _apart(staged, timedelta(seconds=mapping.match.window))
        found = relations.organic_feedback(organic, feedback, apart, conversion.read_rows)
        conversion.findings += [found] if found else []
    stop(conversion, mapping)


def stop(conversion: Conversion, mapping: Mapping) -> None:
    """Mark what the mapping accepts, and stop at errors that it does not.

    Raises: DataError.
    """
    accepted = set(mapping.checks.accept)
    conversion.findings = [
        finding.model_copy(update={"accepted": finding.code in accepted}) for finding in conversion.findings
    ]
    wrong = [finding for finding in conversion.findings if finding.stops]
    if wrong:
        raise DataError(
            "nothing is published, for the rows do not fit together:\n"
            + "\n".join(f"  {finding.code}: {finding.what}; {finding.remedy}" for finding in wrong)
            + "\nif that is as it should be, write\n  [checks]\n  accept = ["
            + ", ".join(f'"{code}"' for code in dict.fromkeys(finding.code for finding in wrong))
            + "]\nin the mapping"
        )


def _shared(staged: Staged, rows: int) -> list[Finding | None]:
    """Look for ids of requests and of impressions that name several."""
    requests = _shared_ids(staged, "request", pl.col("user_id"))
    impressions = _shared_ids(staged, "impression", pl.format("{} {}", "user_id", "item_id"))
    return [relations.shared_requests(requests, rows), relations.shared_impressions(impressions, rows)]


def _shared_ids(staged: Staged, column: str, owner: pl.Expr) -> Requests:
    """Count the ids of a column of what was shown that have several owners; of many rows, of some ids."""
    shown = staged.scan("impressions")
    if shown is None:
        return Requests()
    rows = int(shown.select(pl.len()).collect().item())
    counted = (
        shown.select(id=column, owner=owner)
        .drop_nulls()
        .filter(pl.col("id").hash(0) % max(-(-rows // _ROWS_AT_MOST), 1) == 0)
        .group_by("id")
        .agg(one=pl.col("owner").min(), other=pl.col("owner").max())
        .collect(engine="streaming")
    )
    shared = counted.filter(pl.col("one") != pl.col("other")).sort("id")
    example = None if shared.is_empty() else shared.row(0)
    return Requests(requests=counted.height, shared=shared.height, example=example)


def _apart(staged: Staged, window: timedelta) -> list[str]:
    """Say what sets feedback apart from what was shown: its time, or most of its users or items."""
    shown, done = staged.scan("impressions"), staged.scan("feedback")
    if shown is None or done is None:
        return ["nothing is left of what was shown"]
    said = []
    ends = [pl.col("at").min().alias("first"), pl.col("at").max().alias("last")]
    (from_, to), (first, last) = (frame.select(ends).collect().row(0) for frame in (shown, done))
    if last < from_ or first > to + window:
        spans = [" to ".join(f"{at:%Y-%m-%d %H:%M}" for at in span) for span in ((from_, to), (first, last))]
        said.append(f"impressions are of {spans[0]}, feedback of {spans[1]}")
    for table, key in (("users", "user_id"), ("items", "item_id")):
        known, seen = (f.select(pl.col(key).unique()).collect().to_series() for f in (shown, done))
        missing = seen.filter(~seen.is_in(known.implode())).sort()
        if missing.len() > (1 - relations.MIN_LISTED) * seen.len():
            spelt = spellings(missing, known, "impressions")
            said.append(f"{missing.len():,} of {seen.len():,} {table} of feedback were shown nothing{spelt}")
    return said


def _one_user(rows_of_users: pl.DataFrame, rows: int) -> Finding | None:
    top = rows_of_users.sort("rows", "id", descending=[True, False]).row(0, named=True)
    return relations.one_user(top["id"], top["rows"] / int(rows_of_users["rows"].sum()), rows)


def _rows_of_ids(staged: Staged) -> dict[str, pl.DataFrame]:
    """Count the rows of each user and of each item: id, rows."""
    tables = ("feedback",) if staged.derived else ("impressions", "feedback")
    frames = [frame.select("user_id", "item_id") for frame in map(staged.scan, tables) if frame is not None]
    both = pl.concat(frames)
    return {
        table: both.group_by(id=key).agg(rows=pl.len()).collect(engine="streaming")
        for table, key in (("users", "user_id"), ("items", "item_id"))
    }


def _sessions(staged: Staged) -> pl.Series:
    """List the sessions that stand in for a user: no file of users has them."""
    frames = [frame for frame in map(staged.scan, ("impressions", "feedback")) if frame is not None]
    anonymous = pl.concat([frame.select("user_id", "session") for frame in frames])
    found = anonymous.filter(pl.col("user_id") == pl.col("session")).select(pl.col("user_id").unique())
    return found.collect(engine="streaming").to_series()
