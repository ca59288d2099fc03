"""The anchor: the best bundle of the last weeks, beside the live one, that a new one must not fall behind.

Each night may lose a little within the margin. Against the anchor the little losses add up, and are held.
"""

from datetime import date, timedelta

from recsys.records import NightRecord, Verdict
from recsys.registry import Registry


def anchor_before(registry: Registry, night: date, champion: str | None, days: int) -> str | None:
    """Give the evaluated bundle whose fused lists had the highest value on its night; None: the champion's.

    Only what nights promoted counts, and is neither rolled back nor gone. It has learned no day that this
    night compares on: it is older.

    Args: champion: the evaluated bundle that the night compares with; days: before the night.
    """
    best = max(_candidates(registry, night, days), default=None)
    return None if best is None or best[-1] == champion else best[-1]


def anchors_to_come(registry: Registry, days: int) -> list[str]:
    """Give the evaluated bundles that nights after the newest one may compare with, if they are kept.

    The best one leaves when its days are over; the best of those after it takes its place. So each stays that
    no later night has reached: of 28 nights in no order of value some four.
    """
    newest = max((record.night for record in registry.records()), default=None)
    if newest is None:
        return []
    found: list[tuple[float, date, str]] = []
    later = sorted(_candidates(registry, newest + timedelta(days=1), days), key=lambda one: one[1:])
    for one in reversed(later):
        if not found or one[0] > found[-1][0]:
            found.append(one)
    return [version for _, _, version in found]


def _candidates(registry: Registry, night: date, days: int) -> list[tuple[float, date, str]]:
    """List value, night and version of what may be a night's anchor; args as `anchor_before`."""
    since = night - timedelta(days=days)
    barred = registry.activations.barred()
    out = {record.evaluated for version in barred if (record := registry.record(version)) is not None}
    there = set(registry.versions())
    return [
        (record.list_value, record.night, record.version)
        for record in registry.records()
        if record.list_value is not None
        and since <= record.night < night
        and _is_promoted_by_a_night(record)
        and record.version in there - out
    ]


def _is_promoted_by_a_night(record: NightRecord) -> bool:
    """Tell an evaluated bundle of a night that went live from refits and updates."""
    return (
        record.version == record.evaluated
        and record.known_until is None
        and record.verdict is Verdict.PROMOTE
    )
