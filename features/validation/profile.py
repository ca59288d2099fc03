"""The profile of a day, which later days are compared with: counts and histograms, no rows.

A profile is a small JSON file made once from the day's cleaned tables. Its histograms have fixed bins, so
that any two days can be compared whenever they were made.
"""

from datetime import date

from pydantic import BaseModel, ConfigDict


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ColumnProfile(_Value):
    """One column: how much of it is null, and how the rest is distributed."""

    rows: int
    nulls: int
    effective: float
    """How many independent draws the rows are worth (Kish): ten impressions of one user are not ten."""
    bins: dict[int, int] | None = None
    """Numbers: count per fixed bin (`bin_of`)."""
    low: float | None = None
    high: float | None = None
    categories: dict[str, int] | None = None
    """Text, or lists of text: counts of the most frequent values."""
    values: int = 0
    """Values in all: rows that are not null, or the entries of their lists."""
    is_list: bool = False

    @property
    def null_share(self) -> float:
        """Give the share of rows without a value."""
        return self.nulls / max(1, self.rows)

    @property
    def kind(self) -> str:
        """Say what the column holds: numbers, text, or nothing that could tell."""
        if self.rows == self.nulls:
            return "nothing"
        return "numbers" if self.bins is not None else "text"


class TableProfile(_Value):
    """One table of the day."""

    rows: int
    quarantine: dict[str, int] = {}
    repeats: int = 0
    """Rows that say what an earlier row said, under another id."""
    gap_hours: float | None = None
    """Hours from the last row to the end of the day; null for tables without instants."""
    columns: dict[str, ColumnProfile] = {}

    @property
    def raw_rows(self) -> int:
        """Count the rows that came in, good and bad."""
        return self.rows + sum(self.quarantine.values())


class IdProfile(_Value):
    """Who, or what, the day's impressions were of."""

    distinct: int
    new: int | None = None
    """Ids that no earlier day knows; null on the log's first day."""
    top: str | None = None
    top_rows: int = 0


class Rate(_Value):
    """Labels that became known with this day: those of the period whose window has just closed."""

    day: date
    labelled: int
    rows: int


class DayProfile(_Value):
    """One period's data."""

    day: date
    requests: int
    hours: tuple[int, ...]
    """Users with a request per local hour [24], misfiled rows included, drawn negatives left out."""
    tables: dict[str, TableProfile]
    ids: dict[str, IdProfile]
    received: dict[str, int]
    """Feedback received, per kind."""
    outside: dict[str, int]
    """Values of a regression task's feedback beyond its `low` and `high`, per kind."""
    labels: dict[str, Rate]
    sketch: tuple[int, ...]
    """The smallest hashes of (user, item, position, time of day); days with rows in common share them."""
    same_instant: float = 0.0
    """Chance that two users' rows have the same time of day: 1 where the log has dates and no times."""

    @property
    def impressions(self) -> int:
        """Count the usable impressions."""
        return self.tables["impressions"].rows
