"""What all adapters share: validate, quarantine with counted reasons, publish everything or nothing."""

import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol

import polars as pl

from features.profile.model import Finding
from features.sources.accounting import Tally
from recsys.dataframely_alone import dy
from recsys.errors import DataError
from recsys.log import InteractionLog
from recsys.schema import KEYS, PARTITION_INSTANT, TABLES, with_absent_columns, with_free_columns

QUARANTINE: Final = "quarantine"
SUMMARY: Final = "conversion"
STAGING: Final = ".converting"
SCRATCH: Final = ".scratch"
_DAY = "partition_day"

Step = Callable[[str, float], None]
"""Called with what is being done and the share of the work done so far, 0 to 1."""


def silent(_what: str, _share: float) -> None:
    """Ignore progress."""


@dataclass(frozen=True, slots=True)
class ConversionSummary:
    """What a conversion wrote and what it left out, with reasons: LOG/conversion.<source>.json."""

    source: str
    first_day: date
    last_day: date
    rows: dict[str, int]
    """Rows written per table."""
    accounting: dict[str, Tally] = field(default_factory=dict)
    """What became of the rows of the files, by table of the source, such as a section of a mapping."""
    notes: dict[str, int] = field(default_factory=dict)
    """Counted facts a reader should know: contradictions, moved instants, derived rows."""
    findings: list[Finding] = field(default_factory=list)
    """What the relations between the rows tell."""

    @property
    def duplicates(self) -> dict[str, int]:
        """Give the rows left out because the same event was there already, by "table: reason"."""
        return _by_reason({table: tally.repeats for table, tally in self.accounting.items()})

    @property
    def quarantined(self) -> dict[str, int]:
        """Give the rows that break a rule, by "table: reason"; see LOG/quarantine/<source>.parquet."""
        return _by_reason({table: tally.quarantined for table, tally in self.accounting.items()})

    def to_json(self) -> dict[str, Any]:
        """Give everything as JSON values."""
        return {
            "source": self.source,
            "first_day": str(self.first_day),
            "last_day": str(self.last_day),
            "rows": self.rows,
            "accounting": {table: tally.to_json() for table, tally in self.accounting.items()},
            "notes": self.notes,
            "findings": [finding.model_dump() for finding in self.findings],
        }


class Converter(Protocol):
    """The shape of every function named in `SOURCES`."""

    def __call__(self, src: Path, out: InteractionLog, *, step: Step = silent) -> ConversionSummary:
        """Convert a folder of raw files into a log."""


class Conversion:
    """Collect one conversion in a staging folder inside the log; `publish` moves it into place.

    Files are named after the source. A second conversion therefore replaces its own files and keeps those
    that another writer, such as the journal of served requests, put into the same partitions. Leaving the
    `with` block by an exception leaves the log as it was.
    """

    BREAKS: Final = "breaks "
    """Begins the reason of rows that break a rule of the schema."""

    def __init__(self, source: str, out: InteractionLog) -> None:
        self.source = source
        self.out = out
        self.accounting: defaultdict[str, Tally] = defaultdict(Tally)
        self.counted_as: dict[str, str] = {}
        """Canonical table -> the table of the source that its rows come from, where they differ."""
        self.notes: Counter[str] = Counter()
        self.findings: list[Finding] = []
        self._rows: Counter[str] = Counter()
        self._days: set[date] = set()
        self._written: set[tuple[str, date]] = set()
        self._quarantined: list[pl.DataFrame] = []
        self._staged = InteractionLog(out.root / STAGING)
        self.scratch = out.root / SCRATCH
        """A folder for what does not fit into memory; gone when the `with` block ends."""
        self._is_new = False

    def __enter__(self) -> "Conversion":
        self._is_new = not self.out.root.exists()
        for folder in (self._staged.root, self.scratch):
            shutil.rmtree(folder, ignore_errors=True)  # a killed run left it
            folder.mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for folder in (self._staged.root, self.scratch):
            shutil.rmtree(folder, ignore_errors=True)
        if error is not None and self._is_new:
            _remove_if_empty(self.out.root)

    def keep(self, table: str, frame: pl.DataFrame, rule: pl.Expr, reason: str) -> pl.DataFrame:
        """Keep rows for which the rule is true; quarantine the others, null counting as false."""
        holds = rule.fill_null(value=False)
        self.quarantine(table, frame.filter(~holds), reason)
        return frame.filter(holds)

    def distinct(self, table: str, frame: pl.DataFrame, key: list[str], reason: str) -> pl.DataFrame:
        """Keep each key's first row in the frame's order and count the rest."""
        kept = frame.unique(subset=key, keep="first", maintain_order=True)
        self.repeated(table, frame.height - kept.height, reason)
        return kept

    def account(self, table: str, read: int, kept: int) -> None:
        """Count rows of the source, and those of them that are in the log."""
        self._tally(table).read += read
        self._tally(table).kept += kept

    def repeated(self, table: str, rows: int, reason: str) -> None:
        """Count rows left out because the same is there already."""
        self._tally(table).repeats[reason] += rows

    def write(self, table: str, frame: pl.DataFrame, day: pl.Expr) -> int:
        """Stage a table's rows by day, sorted; quarantine rows that break its schema; count those kept."""
        frame = with_absent_columns(table, frame).with_columns(day.alias(_DAY))
        free = with_free_columns(table, dict(frame.schema))
        schema: type[dy.Schema] = type(f"Dated{free.__name__}", (free,), {_DAY: dy.Date(nullable=False)})
        good, failure = schema.filter(frame, cast=True)
        bad = failure.invalid()
        if bad.height:
            self._quarantine_broken(table, failure.details(), bad.columns)
        self._rows[table] += good.height
        if table == "impressions":
            self._days.update(good.get_column(_DAY).unique())
        instant = PARTITION_INSTANT.get(table)
        order = [*([instant] if instant else []), *KEYS[table]]
        ordered = good.sort(_DAY, *order).rename({_DAY: "__day"})
        written = self._staged.write_by_day(table, ordered, pl.col("__day"), self.source)
        days = {(table, day) for day in written}
        assert not days & self._written, f"{table} of one day must be written in one go"
        self._written |= days
        return good.height

    def _quarantine_broken(self, table: str, details: pl.DataFrame, columns: list[str]) -> None:
        """Quarantine rows by the rules that each breaks, however many days they are of."""
        rules = sorted(set(details.columns) - {*columns})
        broken = pl.concat_list(pl.when(pl.col(rule) == "invalid").then(pl.lit(rule)) for rule in rules)
        named = details.select(*columns, reason=broken.list.drop_nulls().list.join(", "))
        for (reason,), rows in named.group_by("reason", maintain_order=True):
            self.quarantine(table, rows.drop("reason"), f"{self.BREAKS}{reason}")

    def publish(self) -> ConversionSummary:
        """Move the staged files into the log, remove this source's outdated ones, return the summary.

        Raises: DataError when no row survived.
        """
        if not self._days:
            reasons = ", ".join(f"{n} {reason}" for reason, n in self.quarantine_counts().items())
            raise DataError(f"no valid event in the {self.source} files ({reasons or 'they are empty'})")
        summary = ConversionSummary(
            source=self.source,
            first_day=min(self._days),
            last_day=max(self._days),
            rows=dict(self._rows),
            accounting=dict(self.accounting),
            notes=dict(self.notes),
            findings=self.findings,
        )
        self._write_quarantine()
        self._move(summary)
        return summary

    def quarantine(self, table: str, rows: pl.DataFrame, reason: str) -> None:
        """Count rows that break a rule; `publish` writes them to LOG/quarantine."""
        if rows.height:
            self._tally(table).quarantined[reason] += rows.height
            row = pl.struct(pl.all()).struct.json_encode()
            self._quarantined.append(rows.select(table=pl.lit(table), reason=pl.lit(reason), row=row))

    def quarantine_counts(self) -> dict[str, int]:
        """Count the rows quarantined so far, by "table: reason"."""
        return _by_reason({table: tally.quarantined for table, tally in self.accounting.items()})

    @property
    def read_rows(self) -> int:
        """Count the rows of the source read so far."""
        return sum(tally.read for tally in self.accounting.values())

    def repeats(self, table: str) -> Mapping[str, int]:
        """Give the rows of a table left out as repeats so far, by reason."""
        return self._tally(table).repeats

    def written(self, table: str) -> int:
        """Count the rows written to a table so far."""
        return self._rows[table]

    def example(self, reason: str) -> str:
        """Give one of the rows quarantined for a reason, as JSON."""
        return str(next(rows["row"][0] for rows in self._quarantined if rows["reason"][0] == reason))

    def _tally(self, table: str) -> Tally:
        return self.accounting[self.counted_as.get(table, table)]

    def _write_quarantine(self) -> None:
        if self._quarantined:
            folder = self._staged.root / QUARANTINE
            folder.mkdir(parents=True, exist_ok=True)
            pl.concat(self._quarantined).write_parquet(folder / f"{self.source}.parquet")

    def _move(self, summary: ConversionSummary) -> None:
        staged = {path.relative_to(self._staged.root) for path in self._staged.root.rglob("*.parquet")}
        for table in sorted(path for path in self._staged.root.iterdir() if path.is_dir()):
            _merge(table, self.out.root / table.name)
        for name in (*TABLES, QUARANTINE):
            for path in sorted((self.out.root / name).rglob(f"{self.source}.parquet")):
                if path.relative_to(self.out.root) not in staged:
                    path.unlink()
                    _remove_if_empty(path.parent)
        text = json.dumps(summary.to_json(), indent=2, ensure_ascii=False)
        (self.out.root / f"{SUMMARY}.{self.source}.json").write_text(text + "\n", encoding="utf-8")


def instant(milliseconds: pl.Expr) -> pl.Expr:
    """Read milliseconds since 1970 as a UTC instant."""
    return pl.from_epoch(milliseconds, time_unit="ms").cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")


def midnight_ms(day: pl.Expr, timezone: str) -> pl.Expr:
    """Give the UTC milliseconds at which a business day begins."""
    return day.cast(pl.Datetime("ms")).dt.replace_time_zone(timezone).dt.timestamp("ms")


def first_seen(events: pl.DataFrame, key: str, day: pl.Expr, known: pl.Series) -> pl.DataFrame:
    """List the keys that only the events know, with the day each is first seen, as columns key and `day`."""
    unknown = events.filter(~pl.col(key).is_in(known.implode()))
    return unknown.group_by(key).agg(day.min().alias("day")).sort(key)


def require_columns(path: Path, found: Collection[str], required: Collection[str]) -> None:
    """Check that a file has the columns an adapter reads.

    Raises: DataError naming the file, the missing columns and those found.
    """
    missing = [name for name in required if name not in found]
    if missing:
        raise DataError(
            f"{path}: no column {', '.join(map(repr, missing))} (it has {', '.join(map(repr, found))}); "
            "is this the file the data set's README describes?"
        )


def read_csv(path: Path, **options: Any) -> pl.DataFrame:
    """Read a delimited file, gzipped or not, every column as text.

    Raises: DataError, naming the file, when it cannot be read.
    """
    try:
        return pl.read_csv(path, infer_schema=False, **options)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}); fetch the file again") from error


def find_file(src: Path, names: Collection[str]) -> Path | None:
    """Find the first of several names in a folder, each as it is or gzipped."""
    for name in names:
        for path in (src / name, src / f"{name}.gz"):
            if path.is_file():
                return path
    return None


def require_folder(src: Path) -> None:
    """Raise a DataError when the source folder does not exist."""
    if not src.is_dir():
        raise DataError(f"{src} is not a folder; give the folder that holds the data set's files")


def _by_reason(counts: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    return {f"{table}: {why}": n for table, reasons in counts.items() for why, n in reasons.items() if n}


def _merge(folder: Path, target: Path) -> None:
    """Move a folder's files, replacing those of the same name; what is not there yet moves in one go."""
    if not target.exists():
        os.replace(folder, target)
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            _merge(path, target / path.name)
        else:
            os.replace(path, target / path.name)


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()
