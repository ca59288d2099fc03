"""One user's nightly values as one packed value of the store, and back: compact JSON, exact for float64.

Only users are packed. The catalogue's values travel in the bundle: a request needs one user and many items.

[row, tail, seen, crosses]: row column -> value; tail events oldest first; seen kind -> item ids; crosses
column -> rows of [value of the column, aggregates in the order of the encoder].
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from features.encode import Encoder, raw_columns
from features.history import VOID
from features.kinds.rows import id_column
from features.store import Event
from recsys.snapshot import DaySnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedUser:
    """What the store's base holds of one user."""

    row: Mapping[str, object] = field(default_factory=dict)
    """Raw nightly values by column; empty: the user is known by events alone, or not at all."""
    tail: tuple[Event, ...] = ()
    void_at: Mapping[str, int] = field(default_factory=dict)
    """feedback_id -> when that event of the tail was taken back, ms."""
    seen: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Kind -> item ids, of the kinds that are not shown again."""
    crosses: Mapping[str, Sequence[Sequence[object]]] = field(default_factory=dict)
    """Item column -> [its value, aggregates …] per value that the user has any of."""


NOBODY = PackedUser()


def pack_users(snapshot: DaySnapshot, encoder: Encoder) -> Iterator[tuple[str, bytes]]:
    """Pack every user's nightly values and history tail: one value per user, part by part, in user order."""
    for part in range(snapshot.num_parts):
        yield from _pack_part(snapshot, encoder, part)


def _pack_part(snapshot: DaySnapshot, encoder: Encoder, part: int) -> Iterator[tuple[str, bytes]]:
    users = snapshot.table("users", part)
    columns = [c for c in encoder.raw_columns("user") if c != "user_id" and c in users.columns]
    tails = _tails(snapshot.table("tail", part))
    seen = _seen(snapshot.table("seen", part))
    crosses = _crosses(snapshot, encoder, part)
    for row in users.select("user_id", *columns).iter_rows(named=True):
        user_id = row.pop("user_id")
        yield user_id, _pack(row, tails.pop(user_id, []), seen.pop(user_id, {}), crosses.get(user_id, {}))
    for user_id in sorted({*tails, *seen}):
        packed = _pack({}, tails.get(user_id, []), seen.get(user_id, {}), crosses.get(user_id, {}))
        yield user_id, packed


def unpack_user(value: bytes | None) -> PackedUser:
    """Read what `pack_users` wrote; None is an unknown user."""
    if value is None:
        return NOBODY
    row, tail, seen, crosses = json.loads(value)
    events = tuple(
        Event(feedback_id=f, user_id="", item_id=i, kind=k, value=v, received_at_ms=t)
        for t, f, i, k, v, _ in tail
    )
    void_at = {f: void for _, f, _, _, _, void in tail if void is not None}
    return PackedUser(row=row, tail=events, void_at=void_at, seen=seen, crosses=crosses)


def pack_one(user: PackedUser) -> bytes:
    """Pack one user as `pack_users` does."""
    tail = [
        [e.received_at_ms, e.feedback_id, e.item_id, e.kind, e.value, user.void_at.get(e.feedback_id)]
        for e in user.tail
    ]
    return _pack(user.row, tail, user.seen, user.crosses)


def _pack(
    row: Mapping[str, object],
    tail: Sequence[Sequence[object]],
    seen: Mapping[str, Sequence[str]],
    crosses: Mapping[str, Sequence[Sequence[object]]],
) -> bytes:
    values = {k: v for k, v in row.items() if v is not None}
    return json.dumps([values, tail, seen, crosses], separators=(",", ":"), default=_as_text).encode()


def _as_text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _seen(rows: pl.DataFrame) -> dict[str, dict[str, list[str]]]:
    grouped: dict[str, dict[str, list[str]]] = {}
    for user, kind, item in rows.select("user_id", "kind", "item_id").iter_rows():
        grouped.setdefault(user, {}).setdefault(kind, []).append(item)
    return grouped


def _tails(tail: pl.DataFrame) -> dict[str, list[list[object]]]:
    grouped: dict[str, list[list[object]]] = {}
    rows = tail.with_columns(pl.col("received_at", VOID).dt.epoch("ms"))
    for user, *event in rows.select(
        "user_id", "received_at", "feedback_id", "item_id", "kind", "value", VOID
    ).iter_rows():
        grouped.setdefault(user, []).append(event)
    return grouped


def _crosses(snapshot: DaySnapshot, encoder: Encoder, part: int) -> dict[str, dict[str, list[list[object]]]]:
    grouped: dict[str, dict[str, list[list[object]]]] = {}
    for cross in encoder.features.crosses:
        rows = snapshot.table(f"cross_{cross.group}", part)
        # A number is one id in any form, as the candidates' column gives it.
        rows = rows.with_columns(id_column(rows, cross.group).cast(pl.String).alias(cross.group))
        for user, *values in rows.select("user_id", cross.group, *raw_columns(cross.numbers)).iter_rows():
            grouped.setdefault(user, {}).setdefault(cross.group, []).append(values)
    return grouped
