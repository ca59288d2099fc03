"""Raw files -> staged rows by table and business day: one streamed pass over each file.

Every row is staged, so that every row is counted. A staged row is an impression or feedback with its columns
typed; an opening kind of a log without impressions is staged as both. Rows that cannot be read are staged
apart, with the reason, the file and the row's number; so are those that the mapping ignores.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import polars as pl

from features.sources.mapped.blank import BLANK, left_out, not_blank
from features.sources.mapped.files import ROW, ScannedFile, closest, reading, scan_section
from features.sources.mapped.hints import remedy
from features.sources.mapped.mapping import IGNORE, IMPRESSION, Events, Feedback, Impressions, Mapping, Timed
from features.sources.mapped.values import Reader, Value
from recsys.errors import DataError
from recsys.log import business_day
from recsys.schema import ATTRIBUTE_PREFIX, CONTEXT_PREFIX

ITEM: Final = "item:"
USER: Final = "user:"
UNKNOWN_KIND: Final = "unknown kind"
OUTSIDE: Final = "outside first_day to last_day"
EARLY: Final = "received before it happened"
SKEW: Final = timedelta(minutes=5)
"""Clocks that differ by less are taken for equal."""
NO_KIND: Final = "no kind"
_PROBLEMS: Final = "problems"
_BLANK: Final = "blank"
_IGNORED: Final = "ignored"
_SHOWN: Final = 3

Columns = dict[str, pl.Expr | Value]


@dataclass(frozen=True, slots=True)
class Staged:
    """The staged rows: ROOT/<section>/table=T/part=DAY/*.parquet."""

    root: Path
    derived: bool = False
    """The log says not what was shown: impressions are made of feedback, and no rows of their own."""

    def days(self, table: str) -> list[date]:
        """List the business days of a table, ascending."""
        return sorted({date.fromisoformat(p.name.removeprefix("part=")) for p in self._folders(table)})

    def read(self, table: str, day: date, what: pl.Expr | None = None) -> pl.DataFrame:
        """Read one day's rows in the order of the files; an absent day has no rows and no columns."""
        paths = self._files(table, day.isoformat())
        frames = [pl.scan_parquet(p, hive_partitioning=False) for p in paths]
        chosen = pl.all() if what is None else what
        return (
            pl.concat(frames, how="diagonal_relaxed").select(chosen).collect() if frames else pl.DataFrame()
        )

    def scan(self, table: str) -> pl.LazyFrame | None:
        """Scan the rows of all days of a table; None where there is none."""
        paths = [path for day in self.days(table) for path in self._files(table, day.isoformat())]
        frames = [pl.scan_parquet(path, hive_partitioning=False) for path in paths]
        return pl.concat(frames, how="diagonal_relaxed") if frames else None

    def problems(self, section: str) -> pl.DataFrame:
        """Read what could not be read in a section: file, row, reason, value."""
        paths = sorted((self.root / section).glob(f"table={_PROBLEMS}/part=*/*.parquet"))
        return pl.concat([pl.read_parquet(p, columns=["file", ROW, "reason", "value_read"]) for p in paths]) \
            if paths else pl.DataFrame()  # fmt: skip

    def ignored(self, section: str) -> dict[str, int]:
        """Count the rows of a section that the mapping ignores, by reason."""
        paths = sorted((self.root / section).glob(f"table={_IGNORED}/part=*/*.parquet"))
        if not paths:
            return {}
        rows = pl.scan_parquet(paths, hive_partitioning=False)
        return dict(rows.group_by("ignored").len().sort("ignored").collect().iter_rows())

    def read_rows(self, section: str) -> int:
        """Count the rows of a section's files; one staged as both tables is one row."""
        # An impression that its feedback's kind makes is no row of its own.
        tables = ("feedback", _PROBLEMS, _IGNORED, *(() if self.derived else ("impressions",)))
        return sum(self._count(section, table) for table in tables)

    def _count(self, section: str, table: str) -> int:
        paths = sorted((self.root / section).glob(f"table={table}/part=*/*.parquet"))
        return int(pl.scan_parquet(paths, hive_partitioning=False).select(pl.len()).collect().item()) \
            if paths else 0  # fmt: skip

    def _folders(self, table: str) -> list[Path]:
        return [p for p in self.root.glob(f"*/table={table}/part=*") if any(p.iterdir())]

    def _files(self, table: str, part: str) -> list[Path]:
        return sorted(self.root.glob(f"*/table={table}/part={part}/*.parquet"))


def stage(src: Path, mapping: Mapping, form: str, root: Path) -> Staged:
    """Stage every timed section of the mapping.

    Raises: DataError naming file, column, row and value of what cannot be read.
    """
    staged = Staged(root, derived=bool(mapping.openers))
    sections: list[tuple[str, Timed]] = []
    if mapping.impressions is not None:
        sections.append(("impressions", mapping.impressions))
    sections.append(("events" if mapping.events is not None else "feedback", mapping.source))
    scanned = [
        scan_section(src, section, form, f"[{name}]", _needed(section), root.parent / "text")
        for name, section in sections
    ]
    for (name, section), files in zip(sections, scanned, strict=True):
        _stage_section(name, section, files, mapping, root)
        _settle_blank(root / name, files)
        _evaluate(staged, name, section, files)
    return staged


def _stage_section(
    name: str, section: Timed, files: Sequence[ScannedFile], mapping: Mapping, root: Path
) -> None:
    target = pl.PartitionBy(root / name, key=["table", "part"], include_key=False)
    rows = pl.concat([_rows(file, n, section, mapping) for n, file in enumerate(files)], how="vertical")
    with reading(files):
        rows.sink_parquet(target, mkdir=True, compression="lz4", statistics=False)


def _settle_blank(section: Path, files: Sequence[ScannedFile]) -> None:
    """Ignore the blank lines; a row that holds something in another column is one that lacks its user."""
    folder = section / f"table={_BLANK}"
    paths = sorted(folder.rglob("*.parquet"))
    if not paths:
        return
    rows = pl.concat([pl.read_parquet(path, columns=["file", ROW]) for path in paths])
    shutil.rmtree(folder)
    for number, file in enumerate(files):
        mine = rows.filter(pl.col("file") == number)
        told = pl.col(ROW).is_in(not_blank(file, mine[ROW]).implode()) if mine.height else pl.lit(value=True)
        lacking = mine.filter(told).with_columns(
            reason=pl.lit(f"no {next(iter(_REQUIRED.values()))}"), value_read=pl.lit(None, pl.String)
        )
        for table, some in (
            (_PROBLEMS, lacking),
            (_IGNORED, mine.filter(~told).with_columns(ignored=pl.lit(BLANK))),
        ):
            if some.height:
                some.lazy().sink_parquet(
                    section / f"table={table}" / "part=none" / f"{_BLANK}-{number}.parquet", mkdir=True
                )


def _needed(section: Timed) -> list[str]:
    """List the raw columns that a section names."""
    names = [section.user, section.item, section.time, section.session, section.request, section.impression]
    if isinstance(section, Impressions):
        names += [section.position, section.propensity, *(c.column for c in section.context.values())]
    if isinstance(section, Feedback):
        names += [section.kind, section.value, section.received, section.event]
    if isinstance(section, Events):
        item = section.item_columns
        names += [item.title, item.description, item.category, item.price]
        free = (*item.attributes.values(), *section.user_columns.attributes.values())
        names += [column.column for column in free]
    return [name for name in names if name is not None]


def _rows(file: ScannedFile, number: int, section: Timed, mapping: Mapping) -> pl.LazyFrame:
    """Type one file's rows and say to which table and day each belongs."""
    read = Reader(file, section, mapping.timezone)
    columns, ignored = _columns(read, section), left_out(read, _needed(section))
    values = {name: c for name, c in columns.items() if isinstance(c, Value)}
    reason = [pl.when(v.wrong).then(v.reason) for v in values.values()]
    value_read = [pl.when(v.wrong).then(v.raw) for v in values.values()]
    none = pl.lit(None, pl.String)
    typed = read.frame.select(
        pl.lit(number, pl.UInt32).alias("file"),
        pl.col(ROW).cast(pl.UInt32),
        *[(c.typed if isinstance(c, Value) else c).alias(name) for name, c in columns.items()],
        reason=pl.coalesce(*reason, none),
        value_read=pl.coalesce(*value_read, none),
        ignored=ignored,
    )
    unknown = pl.when(pl.col("raw_kind") == "").then(pl.lit(NO_KIND)).otherwise(pl.lit(UNKNOWN_KIND))
    checked = _received(typed, section).with_columns(
        ignored=pl.coalesce(
            "ignored", pl.when(pl.col("kind") == IGNORE).then(pl.format("kind '{}'", "raw_kind"))
        ),
        reason=pl.coalesce(
            pl.when(pl.col("kind").is_null()).then(unknown),
            *[pl.when(pl.col(c).is_null()).then(pl.lit(f"no {w}")) for c, w in _REQUIRED.items()],
            "reason",
        ),
        value_read=pl.when(pl.col("kind").is_null() & (pl.col("raw_kind") != ""))
        .then("raw_kind")
        .otherwise("value_read"),
    )
    several = isinstance(section, Feedback) and section.joins_kinds
    return _placed(checked if several else checked.drop("raw_kind"), mapping)


def _received(rows: pl.LazyFrame, section: Timed) -> pl.LazyFrame:
    """Take feedback received a little before it happened as received at once; long before, it is wrong.

    The clocks of a phone and of a loader differ; by more than `SKEW`, one of the columns is another thing.
    """
    if not isinstance(section, Feedback) or section.received is None:
        return rows
    feedback = (pl.col("kind") != IMPRESSION).fill_null(value=False)
    before = feedback & (pl.col("received") < pl.col("at")).fill_null(value=False)
    far = before & (pl.col("at") - pl.col("received") > SKEW)
    said = pl.format("received {}, happened {}", *(pl.col(c).dt.to_string() for c in ("received", "at")))
    return rows.with_columns(
        early=before & ~far,
        received=pl.when(before & ~far).then("at").otherwise("received"),
        value_read=pl.when(pl.col("reason").is_null() & far).then(said).otherwise("value_read"),
        reason=pl.coalesce("reason", pl.when(far).then(pl.lit(EARLY))),
    )


# A time that is there and does not parse has said so already: `reason` of a value comes after these.
_REQUIRED: Final = {"user_id": "user", "item_id": "item"}


def _columns(read: Reader, section: Timed) -> Columns:
    user = read.identifier(section.user)
    columns: Columns = {
        "user_id": user if section.session is None else pl.coalesce(user, read.identifier(section.session)),
        "item_id": read.identifier(section.item),
        "at": read.instant(section.time),
    }
    for name in ("session", "request", "impression"):
        raw = getattr(section, name)
        columns[name] = pl.lit(None, pl.String) if raw is None else read.identifier(raw)
    columns |= _kinds(read, section)
    if isinstance(section, Impressions):
        none = {"position": pl.lit(None, pl.Int32), "propensity": pl.lit(None, pl.Float64)}
        columns["position"] = (
            read.place(section.position, section.first_position) if section.position else none["position"]
        )
        columns["propensity"] = (
            read.probability(section.propensity) if section.propensity else none["propensity"]
        )
        columns |= read.free(section.context, CONTEXT_PREFIX)
    if isinstance(section, Events):
        columns |= {ITEM + name: c for name, c in read.item(section.item_columns).items()}
        described = read.free(section.user_columns.attributes, ATTRIBUTE_PREFIX)
        columns |= {USER + name: c for name, c in described.items()}
    return columns


def _kinds(read: Reader, section: Timed) -> Columns:
    if not isinstance(section, Feedback):
        return {"kind": pl.lit(IMPRESSION), "raw_kind": pl.lit(None, pl.String)}
    columns: Columns = {
        "event": pl.lit(None, pl.String) if section.event is None else read.identifier(section.event),
        "value": pl.lit(None, pl.Float64) if section.value is None else read.number(section.value),
        "received": read.instant(section.received or section.time),
    }
    if section.kind is None:
        return columns | {"kind": pl.lit(section.only_kind), "raw_kind": pl.lit(None, pl.String)}
    raw = read.text(section.kind).fill_null("")
    kind = raw.replace_strict(dict(section.kinds), default=None, return_dtype=pl.String)
    return columns | {"kind": kind, "raw_kind": raw}


def _placed(rows: pl.LazyFrame, mapping: Mapping) -> pl.LazyFrame:
    """Give each row its table and business day; an opening kind goes to both tables."""
    day = business_day("at", mapping.timezone)
    outside = pl.lit(value=False)
    if mapping.first_day is not None:
        outside |= day < mapping.first_day
    if mapping.last_day is not None:
        outside |= day > mapping.last_day
    rows = rows.with_columns(
        reason=pl.coalesce(
            "reason",
            pl.when(pl.col("at").is_null()).then(pl.lit("no time")),
            pl.when(outside).then(pl.lit(OUTSIDE)),
        ),
        value_read=pl.when(pl.col("reason").is_null() & outside)
        .then(pl.col("at").dt.to_string())
        .otherwise("value_read"),
    )
    shown, done = pl.lit(["impressions"]), pl.lit(["feedback"])
    tables = (
        pl.when(pl.col("ignored") == BLANK)
        .then(pl.lit([_BLANK]))
        .when(pl.col("ignored").is_not_null())
        .then(pl.lit([_IGNORED]))
        .when(pl.col("reason").is_not_null())
        .then(pl.lit([_PROBLEMS]))
        .when(pl.col("kind") == IMPRESSION)
        .then(shown)
        .when(pl.col("kind").is_in(list(mapping.openers)))
        .then(pl.lit(["impressions", "feedback"]))
        .otherwise(done)
    )
    rows = rows.with_columns(table=tables).explode("table")
    told = ["received"] if "received" in rows.collect_schema() else []
    rows = rows.with_columns(received=pl.coalesce(*told, "at"))
    filed = (
        pl.when(pl.col("table") == "feedback").then(business_day("received", mapping.timezone)).otherwise(day)
    )
    nowhere = pl.col("table").is_in([_BLANK, _IGNORED, _PROBLEMS])
    part = pl.when(nowhere).then(pl.lit("none")).otherwise(filed.dt.to_string())
    return rows.with_columns(part=part)


def _evaluate(staged: Staged, name: str, section: Timed, files: Sequence[ScannedFile]) -> None:
    """Stop at unknown kinds, and at more unreadable rows than the section tolerates.

    Raises: DataError.
    """
    problems = staged.problems(name)
    if problems.is_empty():
        return
    unknown = problems.filter(pl.col("reason") == UNKNOWN_KIND)
    if unknown.height and isinstance(section, Feedback):
        raise DataError(_unknown_kinds(unknown, name, section))
    unread = problems.filter(pl.col("reason") != OUTSIDE)
    total = staged.read_rows(name)
    if unread.height > section.tolerate * total:
        raise DataError(_unreadable_rows(unread, total, name, section, files))


def _unknown_kinds(unknown: pl.DataFrame, name: str, section: Feedback) -> str:
    counts = unknown.group_by("value_read").len().sort("len", "value_read", descending=[True, False])
    known = list(section.kinds)
    lines = [
        f"  {value!r}: {rows:,} rows{closest(value, known)}" for value, rows in counts.head(20).iter_rows()
    ]
    more = f"\n  and {counts.height - 20} more" if counts.height > 20 else ""
    return (
        f"column {section.kind!r} has {counts.height} value(s) that [{name}.kinds] does not name:\n"
        + "\n".join(lines)
        + more
        + f'\nadd each, like {counts["value_read"][0]!r} = "click", to [{name}.kinds] as "impression", '
        f'a feedback kind or "ignore" (named there: {", ".join(map(repr, known)) or "none"})'
    )


def _unreadable_rows(
    unread: pl.DataFrame, total: int, name: str, section: Timed, files: Sequence[ScannedFile]
) -> str:
    reasons = unread.group_by("reason").agg(pl.len()).sort("len", "reason", descending=[True, False])
    lines = []
    for reason, rows in reasons.iter_rows():
        first = unread.filter(pl.col("reason") == reason).sort("file", ROW).head(_SHOWN)
        examples = ", ".join(
            f"row {row} of {files[file].path.name}" + ("" if value is None else f": {value!r}")
            for file, row, value in first.select("file", ROW, "value_read").iter_rows()
        )
        lines.append(f"  {reason}: {rows:,} rows ({examples})")
    return (
        f"{unread.height:,} of {total:,} rows of [{name}] cannot be read (rows are counted from 1, without "
        "the header):\n" + "\n".join(lines) + f"\n{remedy(unread, total, section)}"
    )
