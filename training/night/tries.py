"""How often a night was tried, and how many nights in a row were held: read from the registry's records."""

from datetime import date

from recsys.records import NightRecord, Verdict
from recsys.registry import Registry

TOO_MANY_HOLDS = 3
"""So many nights held in a row have an exit code of their own."""
HELD_IN_ROW_CODE = 14
"""Of no error: `recsys.errors` lists them."""


def attempts(registry: Registry, night: date) -> int:
    """Count the bundles that were evaluated on a night's labels: each is one more chance to pass by luck."""
    return len({record.evaluated for record in _of_nights(registry) if record.night == night})


def holds_in_row(registry: Registry, night: date) -> int:
    """Count the nights up to this one, without a gap of one that was promoted, of which nothing went live."""
    went: dict[tuple[date, str], bool] = {}
    for record in _of_nights(registry):
        # A version may be held when it was to go live, after the gate let its evaluated bundle through.
        of = (record.night, record.evaluated)
        went[of] = went.get(of, True) and record.verdict is Verdict.PROMOTE
    promoted = {day for (day, _), live in went.items() if live}
    held = 0
    for day in sorted({day for day, _ in went if day <= night}, reverse=True):
        if day in promoted:
            break
        held += 1
    return held


def _of_nights(registry: Registry) -> list[NightRecord]:
    return [record for record in registry.records() if record.known_until is None]
