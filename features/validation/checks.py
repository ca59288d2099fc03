"""CHECKS: every check of a day's data, by the code of its findings."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from features.validation.checks_columns import check_drift, check_kinds, check_new_ids, check_nulls
from features.validation.checks_rows import ROW_CHECKS
from features.validation.checks_volume import (
    check_clock,
    check_feedback_rate,
    check_freshness,
    check_hours,
    check_label_rate,
    check_volume,
)
from features.validation.findings import Finding, settle
from features.validation.profile import DayProfile
from features.validation.reference import Compared, compare
from recsys.config import RunConfig

CHECKS: Final[Mapping[str, Callable[[Compared], Iterator[Finding]]]] = {
    "schema": check_kinds,
    **ROW_CHECKS,
    "volume": check_volume,
    "hours": check_hours,
    "freshness": check_freshness,
    "clock": check_clock,
    "feedback_rate": check_feedback_rate,
    "label_rate": check_label_rate,
    "new_ids": check_new_ids,
    "nulls": check_nulls,
    "drift": check_drift,
}


def validate_day(
    today: DayProfile, earlier: Sequence[DayProfile], config: RunConfig, accepted: Sequence[str] = ()
) -> list[Finding]:
    """Run every check on one day; give what was found, worst first.

    Args: earlier: profiles of days before it, in any number; accepted: codes that may pass on this day.
    """
    day = compare(today, earlier, config)
    found = [finding for check in CHECKS.values() for finding in check(day)]
    if any(f.code == "empty" for f in found):  # with no rows, everything else is off as well
        found = [f for f in found if f.code in ("empty", "misfiled", "duplicates", "ranges")]
    return settle(found, today.day, config.validation, accepted)
