"""Measure the relations between a conversion's rows, and stop before it is published where they are wrong."""

from collections.abc import Mapping as AnyMapping
from collections.abc import Sequence
from datetime import date
from typing import Final

import polars as pl

from features import relations
from features.profile.model import Finding, Requests
from features.sources.conversion import Conversion
from features.sources.mapped.mapping import Mapping
from features.sources.mapped.side import SideTables
from features.sources.mapped.staging import OUTSIDE, Staged
from recsys.errors import DataError

_REQUESTS_AT_MOST: Final = 2_000_000
"""Rows of so many, whole requests of them, tell how many requests have several users."""


def check_relations(
    conversion: Conversion,
    mapping: Mapping,
    staged: Staged,
    side: SideTables,
    days: Sequence[AnyMapping[date, int]],
) -> None:
    """Add the findings of the staged rows to the conversion's.

    Args: days: rows of each business day, once or by several instants of the rows.
    Raises: DataError naming each finding that stops, with figures, an example and the remedy.
    """
    rows = sum(tally.read for tally in conversion.accounting.values())
    found = [relations.shared_requests(_requests(staged), rows)] if mapping.logs_impressions else []
    apart = [relations.days_apart(counts) for counts in days]
    found += [next((finding for finding in apart if finding), None), _one_user(staged, rows)]
    for table, seen, told in side.ids():
        if told is not None:
            named = seen.filter(~seen.is_in(_sessions(staged).implode())) if table == "users" else seen
            found.append(relations.unlisted(table, named, told, rows))
        for where, ids in (("events", seen), ("the file", told)):
            if ids is not None:
                found.append(relations.spreadsheet_ids(f"{table} of {where}", relations.id_shapes(ids)))
    conversion.findings += [finding for finding in found if finding]
    stop(conversion, mapping)


def check_kept(conversion: Conversion, mapping: Mapping) -> None:
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
    if not conversion.written("feedback"):
        lost = sum(sum(tally.quarantined.values()) for tally in conversion.accounting.values())
        conversion.findings.append(relations.no_feedback(lost))
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
            + ", ".join(f'"{finding.code}"' for finding in wrong)
            + "]\nin the mapping"
        )


def _requests(staged: Staged) -> Requests:
    """Count the requests that were shown to several users; of very many requests, of a share of them."""
    shown = staged.scan("impressions")
    if shown is None:
        return Requests()
    rows = int(shown.select(pl.len()).collect().item())
    users = pl.col("user_id")
    requests = (
        shown.select("request", "user_id")
        .drop_nulls()
        .filter(pl.col("request").hash(0) % -(-rows // _REQUESTS_AT_MOST) == 0)
        .group_by("request")
        .agg(one=users.min(), other=users.max())
        .with_columns(several=pl.col("one") != pl.col("other"))
    )
    counted = requests.collect(engine="streaming")
    shared = counted.filter("several").sort("request")
    example = None if shared.is_empty() else tuple(shared.select("request", "one", "other").row(0))
    return Requests(requests=counted.height, shared=shared.height, example=example)


def _one_user(staged: Staged, rows: int) -> Finding | None:
    tables = ("feedback",) if staged.derived else ("impressions", "feedback")
    frames = [frame.select("user_id") for frame in map(staged.scan, tables) if frame is not None]
    counts = pl.concat(frames).group_by("user_id").len().collect(engine="streaming")
    top = counts.sort("len", "user_id", descending=[True, False]).row(0, named=True)
    return relations.one_user(top["user_id"], top["len"] / int(counts["len"].sum()), rows)


def _sessions(staged: Staged) -> pl.Series:
    """List the sessions that stand in for a user: no file of users has them."""
    frames = [frame for frame in map(staged.scan, ("impressions", "feedback")) if frame is not None]
    anonymous = pl.concat([frame.select("user_id", "session") for frame in frames])
    found = anonymous.filter(pl.col("user_id") == pl.col("session")).select(pl.col("user_id").unique())
    return found.collect(engine="streaming").to_series()
