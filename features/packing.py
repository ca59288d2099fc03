"""One user's nightly values as one packed value of the store, and back: compact JSON, exact for float64.

Only users are packed. The catalogue's values travel in the bundle: a request needs one user and many items.

[row, tail, seen, crosses, taken]: row column -> value; tail events oldest first; seen kind -> item ids;
crosses column -> rows of [value of the column, aggregates in the order of the encoder]; taken kind -> item id
-> when.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

import polars as pl

from features.encode import Encoder, raw_columns
from features.history import VOID
from features.kinds.rows import id_column
from features.store import Event
from features.taken_events import Packed, packed_taken, taken_of
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
    taken: Packed = field(default_factory=dict)
    """The newest standing events that took an item."""


NOBODY = PackedUser()


def pack_users(snapshot: DaySnapshot, encoder: Encoder) -> Iterator[tuple[str, bytes]]:
    """Pack every user's nightly values and history tail: one value per user, part by part, in user order."""
    for part in range(snapshot.num_parts):
        yield from _pack(partial(snapshot.table, part=part), encoder)


def pack_first_users(snapshot: DaySnapshot, encoder: Encoder, count: int) -> list[tuple[str, bytes]]:
    """Pack the first users by id, those with nightly values before those known by events alone.

    They are the same however the users are split.
    """
    ids = snapshot.table("users", columns=["user_id"])["user_id"].head(count)
    if ids.len() < count:
        others = [snapshot.table(name, columns=["user_id"])["user_id"] for name in ("tail", "seen", "taken")]
        known = pl.concat(others).unique().sort()
        ids = pl.concat([ids, known.filter(~known.is_in(ids.implode())).head(count - ids.len())])
    return list(_pack(partial(_of_users, snapshot, ids), encoder))


def num_users(snapshot: DaySnapshot) -> int:
    """Count the users that `pack_users` packs."""
    tables = [snapshot.table(name, columns=["user_id"]) for name in ("users", "tail", "seen", "taken")]
    return pl.concat(tables).n_unique()


def _of_users(snapshot: DaySnapshot, ids: pl.Series, name: str) -> pl.DataFrame:
    rows = snapshot.table(name)
    return rows.filter(rows["user_id"].is_in(ids.implode()))


def _pack(table: Callable[[str], pl.DataFrame], encoder: Encoder) -> Iterator[tuple[str, bytes]]:
    users = table("users")
    columns = [c for c in encoder.raw_columns("user") if c != "user_id" and c in users.columns]
    tails = _tails(table("tail"))
    seen = _seen(table("seen"))
    crosses, taken = _crosses(table, encoder), packed_taken(table("taken"))
    for row in users.select("user_id", *columns).iter_rows(named=True):
        user_id = row.pop("user_id")
        of_user = (tails.pop(user_id, []), seen.pop(user_id, {}), crosses.get(user_id, {}))
        yield user_id, _packed(row, *of_user, taken.pop(user_id, {}))
    for user_id in sorted({*tails, *seen, *taken}):
        of_user = (tails.get(user_id, []), seen.get(user_id, {}), crosses.get(user_id, {}))
        yield user_id, _packed({}, *of_user, taken.get(user_id, {}))


def unpack_user(value: bytes | None) -> PackedUser:
    """Read what `pack_users` wrote; None is an unknown user."""
    if value is None:
        return NOBODY
    row, tail, seen, crosses, *more = json.loads(value)
    events = tuple([Event(f, "", i, k, v, t) for t, f, i, k, v, _ in tail])
    void_at = {f: void for _, f, _, _, _, void in tail if void is not None}
    # Older versions packed no items taken: what stands of the tail is the newest of them.
    taken = more[0] if more else taken_of(e for e in events if e.feedback_id not in void_at)
    return PackedUser(row=row, tail=events, void_at=void_at, seen=seen, crosses=crosses, taken=taken)


def pack_one(user: PackedUser) -> bytes:
    """Pack one user as `pack_users` does."""
    tail = [
        [e.received_at_ms, e.feedback_id, e.item_id, e.kind, e.value, user.void_at.get(e.feedback_id)]
        for e in user.tail
    ]
    return _packed(user.row, tail, user.seen, user.crosses, user.taken)


def _packed(
    row: Mapping[str, object],
    tail: Sequence[Sequence[object]],
    seen: Mapping[str, Sequence[str]],
    crosses: Mapping[str, Sequence[Sequence[object]]],
    taken: Packed,
) -> bytes:
    values = {k: v for k, v in row.items() if v is not None}
    return json.dumps([values, tail, seen, crosses, taken], separators=(",", ":"), default=_as_text).encode()


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


def _crosses(
    table: Callable[[str], pl.DataFrame], encoder: Encoder
) -> dict[str, dict[str, list[list[object]]]]:
    grouped: dict[str, dict[str, list[list[object]]]] = {}
    for cross in encoder.features.crosses:
        rows = table(f"cross_{cross.group}")
        # A number is one id in any form, as the candidates' column gives it.
        rows = rows.with_columns(id_column(rows, cross.group).cast(pl.String).alias(cross.group))
        for user, *values in rows.select("user_id", cross.group, *raw_columns(cross.numbers)).iter_rows():
            grouped.setdefault(user, {}).setdefault(cross.group, []).append(values)
    return grouped
