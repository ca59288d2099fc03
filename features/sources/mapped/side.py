"""Users and items: from files of their own, from columns of the events, or only their ids.

A file's rows hold from before the first day, or from the instant that `known_from` names. What events say
holds from the day it is seen, and is written again on the day it changes. Everybody else is known by id alone
from their first day on.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Final, Literal

import polars as pl

from features.relations import repeated_ids
from features.sources.conversion import Conversion
from features.sources.mapped.blank import BLANK, left_out, not_blank
from features.sources.mapped.files import ROW, ScannedFile, reading, scan_section
from features.sources.mapped.hints import remedy
from features.sources.mapped.mapping import Files, Items, Mapping, Users
from features.sources.mapped.staging import ITEM, USER
from features.sources.mapped.values import Reader, Value
from recsys.errors import DataError
from recsys.log import business_day
from recsys.schema import ATTRIBUTE_PREFIX, INSTANT

SAME: Final = "the same id and day again"
OTHER: Final = "the same id and day again, with other values; the last row holds"
EARLIER: Final = "an earlier state of the same day, or of before the log"
_FIXED: dict[str, pl.DataType | type[pl.DataType]] = {
    "title": pl.String,
    "description": pl.String,
    "category": pl.String,
    "price": pl.Int64,
    "available_from": INSTANT,
    "available_until": INSTANT,
}


@dataclass(slots=True)
class _Entity:
    """What is known of users, or of items."""

    key: str
    prefix: str
    told: pl.DataFrame | None = None
    """Rows of the file: key, columns, known_day (null = from before the first day), __known (its instant)."""
    unread: pl.DataFrame | None = None
    """Rows of the file that cannot be read: file, row, reason, value_read."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Rows of the file that say nothing, by reason."""
    first: dict[str, date] = field(default_factory=dict)
    """Key -> the first day on which events mention it."""
    last: pl.DataFrame | None = None
    """What events said last."""
    changes: list[pl.DataFrame] = field(default_factory=list)
    """Rows that events gave rise to: key, columns, known_day."""


class SideTables:
    """Collect users and items while the days pass; `write` files them under the days they are known from."""

    def __init__(self, mapping: Mapping) -> None:
        self.mapping = mapping
        self._users = _Entity("user_id", USER)
        self._items = _Entity("item_id", ITEM)

    @classmethod
    def scan(cls, src: Path, mapping: Mapping, form: str, scratch: Path) -> "SideTables":
        """Read the users' and items' files.

        Args: scratch: a folder for files that are rewritten.
        Raises: DataError naming file, column, row and value.
        """
        side = cls(mapping)
        for name, section, entity in (
            ("users", mapping.users, side._users),
            ("items", mapping.items, side._items),
        ):
            if section is not None:
                entity.told, entity.unread, entity.ignored = _read(src, section, mapping, form, name, scratch)
        return side

    def see(self, rows: pl.DataFrame, day: date) -> None:
        """Take note of the users and items of one day's rows; days must ascend."""
        for entity in (self._users, self._items):
            _see(entity, rows, day)

    def catalogue(self) -> pl.DataFrame:
        """Give item_id and `known_day`, the first day on which an item may be drawn as a negative.

        That is the day it is available from; for other items of the file any day, mentioned or not (else the
        pool would tell which are never chosen); for the rest the day after their first mention, or the log's
        first day if that is when they are mentioned: the log begins there, not the item.
        """
        seen = pl.DataFrame(
            {"item_id": list(self._items.first), "first": list(self._items.first.values())},
            schema={"item_id": pl.String, "first": pl.Date},
        )
        told = self._items.told
        if told is None:
            told = pl.DataFrame(
                schema={"item_id": pl.String, "available_from": INSTANT, "known_day": pl.Date}
            )
        since = told.group_by("item_id").agg(
            pl.col("available_from").min() if "available_from" in told.columns else pl.lit(None, INSTANT),
            pl.col("known_day").min(),
            listed=pl.lit(value=True),
        )
        both = since.join(seen, on="item_id", how="full", coalesce=True)
        available = business_day("available_from", self.mapping.timezone)
        begins = pl.col("first") == pl.col("first").min()
        mentioned = pl.when(begins).then("first").otherwise(pl.col("first") + timedelta(days=1))
        listed = pl.when(pl.col("listed")).then(pl.date(1970, 1, 1))
        dated = pl.min_horizontal(pl.coalesce(available, "known_day", listed), mentioned)
        return both.select("item_id", known_day=dated)

    def ids(self) -> Iterator[tuple[Literal["users", "items"], pl.Series, pl.Series | None]]:
        """Give the ids that events mention, and those of the file where there is one."""
        entities: tuple[tuple[Literal["users", "items"], _Entity], ...] = (
            ("users", self._users),
            ("items", self._items),
        )
        for table, entity in entities:
            told = None if entity.told is None else entity.told[entity.key]
            yield table, pl.Series(list(entity.first), dtype=pl.String), told

    def write(self, conversion: Conversion) -> None:
        """Write both tables."""
        eve = min(self._users.first.values()) - timedelta(days=1)
        for table, entity in (("users", self._users), ("items", self._items)):
            rows = _rows(entity, eve, self.mapping.timezone)
            if table == "items":
                rows = rows.with_columns(
                    [pl.lit(None, t).alias(n) for n, t in _FIXED.items() if n not in rows.columns]
                )
            once = rows.unique([entity.key, "known_day"], keep="last", maintain_order=True)
            filed = once.drop("known_day", "__known", "__told", strict=False).with_columns(
                __day=once["known_day"]
            )
            written = conversion.write(table, filed, pl.col("__day"))
            if entity.told is not None:
                _account(conversion, table, entity, rows, once)
                conversion.account(table, 0, int(once["__told"].sum()) - (once.height - written))
                unknown = len(set(entity.first) - set(entity.told[entity.key]))
                conversion.notes[f"{table}: mentioned by events, not in the file"] = unknown


def _account(
    conversion: Conversion, table: str, entity: _Entity, rows: pl.DataFrame, once: pl.DataFrame
) -> None:
    """Count the rows of the file: those not read, and those of whose id and day a later row is there."""
    assert entity.told is not None
    assert entity.unread is not None
    conversion.account(table, entity.told.height + entity.unread.height + entity.ignored.total(), 0)
    conversion.accounting[table].ignored.update(entity.ignored)
    for (reason,), bad in entity.unread.group_by("reason", maintain_order=True):
        conversion.quarantine(table, bad, str(reason))
    key = [entity.key, "known_day"]
    again = rows.filter(pl.struct(key).is_duplicated() & ~pl.struct(key).is_last_distinct())
    if again.is_empty():
        return
    last = again.join(once, on=key, how="left", suffix="_last", maintain_order="left")
    others = [c for c in rows.columns if c not in {*key, "__known", "__told"}]
    same = pl.all_horizontal(pl.lit(value=True), *[pl.col(c).eq_missing(pl.col(f"{c}_last")) for c in others])
    dated = pl.col("__known").ne_missing(pl.col("__known_last"))
    why = pl.when(dated).then(pl.lit(EARLIER)).when(same).then(pl.lit(SAME)).otherwise(pl.lit(OTHER))
    ends = last.select(entity.key, why=why)
    for reason, count in ends["why"].value_counts(sort=True).iter_rows():
        conversion.repeated(table, count, reason)
    differ = ends.filter(why=OTHER)[entity.key]
    if differ.len():
        conversion.findings.append(repeated_ids(table, differ.len(), differ[0]))


def _read(
    src: Path, section: Users | Items, mapping: Mapping, form: str, name: str, scratch: Path
) -> tuple[pl.DataFrame, pl.DataFrame, Counter[str]]:
    """Read a section's rows in the order of time, and those that cannot be read; count what says nothing."""
    files = scan_section(src, section, form, f"[{name}]", _needed(section), scratch)
    frames = [_read_file(file, section, mapping, name) for file in files]
    rows = pl.concat([good for good, _, _ in frames], how="vertical").sort("__known", maintain_order=True)
    ignored: Counter[str] = sum((counts for _, _, counts in frames), Counter())
    return rows, pl.concat([bad for _, bad, _ in frames]), ignored


def _needed(section: Users | Items) -> list[str]:
    names = [section.id, section.known_from, *(c.column for c in section.attributes.values())]
    if isinstance(section, Items):
        names += [section.title, section.description, section.category, section.price]
        names += [section.available_from, section.available_until]
    return [name for name in names if name is not None]


def _read_file(
    file: ScannedFile, section: Users | Items, mapping: Mapping, name: str
) -> tuple[pl.DataFrame, pl.DataFrame, Counter[str]]:
    read = Reader(file, section, mapping.timezone)
    key = "user_id" if isinstance(section, Users) else "item_id"
    columns: dict[str, pl.Expr | Value] = {key: read.identifier(section.id)}
    if isinstance(section, Items):
        columns |= read.item(section)
        for instant in ("available_from", "available_until"):
            raw = getattr(section, instant)
            columns[instant] = pl.lit(None, INSTANT) if raw is None else read.instant(raw)
    else:
        columns |= read.free(section.attributes, ATTRIBUTE_PREFIX)
    known = pl.lit(None, INSTANT) if section.known_from is None else read.instant(section.known_from)
    columns["__known"] = known
    wrong = [c for c in columns.values() if isinstance(c, Value)]
    ignored = left_out(read, _needed(section))
    with reading([file]):
        rows = read.frame.select(
            pl.col(ROW),
            *[(c.typed if isinstance(c, Value) else c).alias(n) for n, c in columns.items()],
            reason=pl.coalesce(*[pl.when(c.wrong).then(c.reason) for c in wrong],
                               pl.when(read.text(section.id).is_null()).then(pl.lit(f"no {section.id}"))),
            value_read=pl.coalesce(*[pl.when(c.wrong).then(c.raw) for c in wrong], pl.lit(None, pl.String)),
            ignored=ignored,
        ).collect(engine="streaming")  # fmt: skip
    blank = rows.filter(pl.col("ignored") == BLANK)[ROW]
    told = not_blank(file, blank) if blank.len() else blank
    out = pl.col("ignored").is_not_null() & ~pl.col(ROW).is_in(told.implode())
    counts = Counter(dict(rows.filter(out).group_by("ignored").len().iter_rows()))
    total, rows = rows.height, rows.filter(~out).drop("ignored")
    bad = rows.filter(pl.col("reason").is_not_null())
    _evaluate(bad, total, file, section, name)
    good = rows.filter(pl.col("reason").is_null())
    dated = good.with_columns(known_day=business_day("__known", mapping.timezone))
    unread = bad.select(
        pl.lit(file.path.name).alias("file"), pl.col(ROW).alias("row"), "reason", "value_read"
    )
    return dated.drop(ROW, "reason", "value_read"), unread, counts


def _evaluate(bad: pl.DataFrame, total: int, file: ScannedFile, section: Files, name: str) -> None:
    if bad.height <= section.tolerate * total:
        return
    row, reason, value = bad.select(ROW, "reason", "value_read").row(0)
    cure = remedy(bad.select("reason", "value_read"), total, section)
    said = "" if value is None else f": {value!r}"
    raise DataError(
        f"{file.path}: {bad.height:,} of {total:,} rows of [{name}] cannot be read, the first is row {row}, "
        f"{reason}{said}; {cure}"
    )


def _see(entity: _Entity, rows: pl.DataFrame, day: date) -> None:
    for key in rows.get_column(entity.key).unique():
        entity.first.setdefault(key, day)
    told = [c for c in rows.columns if c.startswith(entity.prefix)]
    if not told:
        return
    said = rows.sort("at").group_by(entity.key, maintain_order=True).agg(pl.col(told).drop_nulls().last())
    named = said.rename({c: c.removeprefix(entity.prefix) for c in told})
    if entity.last is not None:
        named = _changed(entity, named)
    entity.changes.append(named.with_columns(known_day=pl.lit(day)))
    stacked = named if entity.last is None else pl.concat([entity.last, named])
    entity.last = stacked.unique(entity.key, keep="last")


def _changed(entity: _Entity, named: pl.DataFrame) -> pl.DataFrame:
    """Keep the rows that say something new; what they do not say stays as it was."""
    assert entity.last is not None
    columns = [c for c in named.columns if c != entity.key]
    before = named.join(entity.last, on=entity.key, how="left", suffix="_before", maintain_order="left")
    filled = before.with_columns(pl.coalesce(c, f"{c}_before") for c in columns)
    same = pl.all_horizontal(pl.col(c).eq_missing(pl.col(f"{c}_before")) for c in columns)
    return filled.filter(~same).select(named.columns)


def _rows(entity: _Entity, eve: date, timezone: str) -> pl.DataFrame:
    """Stack the file's rows, what events said, and the ids that nothing else tells of."""
    frames = []
    if entity.told is not None:
        first = pl.col("known_day")
        if "available_from" in entity.told.columns:
            first = pl.coalesce(first, business_day("available_from", timezone))
        seen = pl.col(entity.key).replace_strict(entity.first, default=None, return_dtype=pl.Date)
        # Known on the day it is first mentioned at the latest, and never before the log's eve.
        filed = pl.max_horizontal(pl.min_horizontal(first.fill_null(eve), seen), pl.lit(eve))
        known = pl.max_horizontal("known_day", pl.lit(eve))
        frames.append(
            entity.told.with_columns(
                __told=pl.lit(value=True),
                known_day=pl.when(pl.col("known_day").is_not_null()).then(known).otherwise(filed),
            )
        )
    frames += entity.changes
    frames.append(_blank(entity, frames))
    return pl.concat(frames, how="diagonal_relaxed").sort("known_day", entity.key, maintain_order=True)


def _blank(entity: _Entity, frames: list[pl.DataFrame]) -> pl.DataFrame:
    """List those whom events mention before anything else tells of them, with that day."""
    first = pl.DataFrame(
        {entity.key: list(entity.first), "known_day": list(entity.first.values())},
        schema={entity.key: pl.String, "known_day": pl.Date},
    )
    if not frames:
        return first
    told = pl.concat([f.select(entity.key, told="known_day") for f in frames]).group_by(entity.key).min()
    early = first.join(told, on=entity.key, how="left", maintain_order="left")
    return early.filter(pl.col("told").is_null() | (pl.col("known_day") < pl.col("told"))).drop("told")
