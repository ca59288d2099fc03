"""Census-income (KDD): the two published files -> ids, numbers and labels; the test file as given."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.quality.readers.published_files import unpacked
from recsys.errors import DataError

NUMBERS = (
    "age",
    "wage_per_hour",
    "capital_gains",
    "capital_losses",
    "stock_dividends",
    "num_emp",
    "weeks_worked",
)
NAMES = (
    "age", "class_worker", "det_ind_code", "det_occ_code", "education", "wage_per_hour", "hs_college",
    "marital_stat", "major_ind_code", "major_occ_code", "race", "hisp_origin", "sex", "union_member",
    "unemp_reason", "full_or_part_emp", "capital_gains", "capital_losses", "stock_dividends",
    "tax_filer_stat", "region_prev_res", "state_prev_res", "det_hh_fam_stat", "det_hh_summ",
    "instance_weight", "mig_chg_msa", "mig_chg_reg", "mig_move_reg", "mig_same", "mig_prev_sunbelt",
    "num_emp", "fam_under_18", "country_father", "country_mother", "country_self", "citizenship",
    "own_or_self", "vet_question", "vet_benefits", "weeks_worked", "year", "income_50k",
)  # fmt: skip
LEFT_OUT = ("instance_weight", "marital_stat", "income_50k")
CATEGORIES = tuple(n for n in NAMES if n not in (*NUMBERS, *LEFT_OUT))


LABELS = ("income", "never_married")
MAX_DEVIATIONS = 5.0
MIN_COUNT = 5
"""Categories seen less often in the training rows share one number with unknown ones."""
MIN_EXACT = 20
"""Values of a number seen at least so often get an embedding of their own, beside their bin's."""
NUM_BINS = 50
VALIDATION_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class TabularRows:
    """Rows of one part, encoded by what the training rows hold."""

    ids: np.ndarray
    """int64 [N, C]: per column a number in its own stretch of one shared table."""
    numbers: np.ndarray
    """float32 [N, F], standardised."""
    labels: dict[str, np.ndarray]
    """float32 [N] per task."""
    num_ids: int
    unknown: np.ndarray
    """int64 [C]: each column's number for a value that is not known, the first of its stretch."""
    frame: pl.DataFrame
    """The columns as published, for models that encode by themselves."""

    @property
    def size(self) -> int:
        """Count the rows."""
        return int(self.ids.shape[0])

    def hidden(self, share: float, rng: np.random.Generator) -> "TabularRows":
        """Give these rows with a random share of their columns' values put to unknown; numbers stay."""
        ids = np.where(rng.random(self.ids.shape) < share, self.unknown, self.ids)
        return replace(self, ids=ids)

    def with_rows(self, other: "TabularRows") -> "TabularRows":
        """Give these rows and those of another part with the same encoding."""
        return TabularRows(
            ids=np.concatenate([self.ids, other.ids]),
            numbers=np.concatenate([self.numbers, other.numbers]),
            labels={name: np.concatenate([own, other.labels[name]]) for name, own in self.labels.items()},
            num_ids=self.num_ids,
            unknown=self.unknown,
            frame=pl.concat([self.frame, other.frame]),
        )


def census_rows(folder: Path) -> dict[str, TabularRows]:
    """Read and encode `train`, `validation` (a seeded tenth of the training file) and `test`."""
    given = read_census(folder, "train")
    out = pl.Series(np.random.default_rng(0).random(given.height) < VALIDATION_SHARE)
    frames = {
        "train": given.filter(~out),
        "validation": given.filter(out),
        "test": read_census(folder, "test"),
    }
    columns = _columns(frames["train"])
    sizes = [column.size for column in columns]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return {
        part: TabularRows(
            ids=np.stack([c.encode(frame[c.name]) + s for c, s in zip(columns, starts[:-1], strict=True)], 1),
            numbers=_standardised(frame, frames["train"]),
            labels={label: frame[label].to_numpy() for label in LABELS},
            num_ids=int(starts[-1]),
            unknown=starts[:-1],
            frame=frame,
        )
        for part, frame in frames.items()
    }


def read_census(folder: Path, part: str) -> pl.DataFrame:
    """Read one part, `train` or `test`, without what is left out; the labels are 0 and 1.

    Raises: DataError when the file is missing or has other columns.
    """
    path = folder / f"census-income.{part}.csv"
    frame = pl.read_csv(unpacked(path), has_header=False, infer_schema=False)
    if frame.width != len(NAMES):
        raise DataError(f"{path} has {frame.width} columns; the published files have {len(NAMES)}")
    frame = frame.rename(dict(zip(frame.columns, NAMES, strict=True))).select(pl.all().str.strip_chars())
    return frame.select(
        *CATEGORIES,
        *[pl.col(n).cast(pl.Float64) for n in NUMBERS],
        income=(pl.col("income_50k") == "50000+.").cast(pl.Float32),
        never_married=(pl.col("marital_stat") == "Never married").cast(pl.Float32),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """What the training rows give for one looked-up column."""

    name: str
    size: int
    encode: Callable[[pl.Series], np.ndarray]


def _columns(train: pl.DataFrame) -> list[_Column]:
    """Give every category by its value and every number by its value, if frequent, and by its bin."""
    found = [_values(train[name], MIN_COUNT) for name in CATEGORIES]
    for name in NUMBERS:
        found += [_values(train[name], MIN_EXACT), _bins(train[name])]
    return found


def _values(values: pl.Series, min_count: int) -> _Column:
    counts = values.value_counts(name="rows")
    known = sorted(counts.filter(pl.col("rows") >= min_count)[values.name].to_list())
    numbers = {value: i for i, value in enumerate(known, start=1)}

    def encode(given: pl.Series) -> np.ndarray:
        return given.replace_strict(numbers, default=0, return_dtype=pl.Int64).to_numpy()

    return _Column(name=values.name, size=len(numbers) + 1, encode=encode)


def _bins(values: pl.Series) -> _Column:
    """Cut what is not 0 into bins of equal mass; 0, by far the most frequent value, is one of its own.

    No value is unknown: the first number is that of hidden ones alone.
    """
    known = values.to_numpy()
    edges = np.unique(np.quantile(known[known != 0], np.linspace(0, 1, NUM_BINS)))

    def encode(given: pl.Series) -> np.ndarray:
        own = given.to_numpy()
        return np.where(own == 0, 1, 2 + np.searchsorted(edges, own, side="right"))

    return _Column(name=values.name, size=edges.size + 3, encode=encode)


def _standardised(frame: pl.DataFrame, train: pl.DataFrame) -> np.ndarray:
    """Give the numbers and their logarithms in units of the training rows' spread, float32 [N, F]."""

    def both(given: pl.DataFrame) -> np.ndarray:
        plain = given.select(NUMBERS).to_numpy()
        return np.concatenate([np.log1p(plain), plain], axis=1)

    known = both(train)
    scaled: np.ndarray = (both(frame) - known.mean(axis=0)) / (known.std(axis=0) + 1e-9)
    return scaled.clip(-MAX_DEVIATIONS, MAX_DEVIATIONS).astype(np.float32)
