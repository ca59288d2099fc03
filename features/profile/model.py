"""What a log holds, in figures: the JSON of `recsys data profile`."""

from datetime import date, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Finding(_Part):
    """Something that needs attention, with the remedy."""

    severity: Literal["error", "warning", "hint"]
    code: str
    what: str
    remedy: str
    accepted: bool = False
    """Somebody has accepted it by name: it is known, and does not stop a conversion."""

    @property
    def stops(self) -> bool:
        """Tell whether a conversion must not be published."""
        return self.severity == "error" and not self.accepted


class Requests(_Part):
    """Requests, and those of several users."""

    requests: int = 0
    shared: int = 0
    example: tuple[str, str, str] | None = None
    """One of these, and two of its users."""


class IdShapes(_Part):
    """Ids of shapes that spreadsheets and table tools make, each with an example."""

    scientific: int
    scientific_example: str | None
    long: int
    """Ids of more than fifteen digits."""
    cut: int
    """Those of them whose further digits are all 0."""
    cut_zeros: int
    """Zeros after the fifteenth digit, of all of these."""
    cut_example: str | None
    pointed: int
    """Numbers with a point."""
    point_zero: int
    """Those of them that end in .0."""
    point_zero_example: str | None


class IdSpellings(_Part):
    """Ids that are written in several ways, and their rows."""

    ids: int = 0
    """Ids, all spellings of one counted once."""
    several: int = 0
    """Those of them that have several spellings."""
    rows: int = 0
    apart: int = 0
    """Rows of a spelling that is not its id's most frequent one."""
    example: tuple[str, int, str, int] | None = None
    """Two spellings of one id, each with its rows."""


class Column(_Part):
    """One column of a table over all days."""

    name: str
    dtype: str
    missing: float
    """Share of the rows without a value."""


class Table(_Part):
    """One canonical table."""

    name: str
    rows: int
    days: int
    first_day: date
    last_day: date
    megabytes: float
    repeated_keys: int
    """Rows whose key another row of the same day has."""
    columns: tuple[Column, ...]
    absent: tuple[str, ...]
    """Columns of the schema that some file lacks."""


class Kind(_Part):
    """One kind of feedback."""

    kind: str
    rows: int
    users: int
    """Sum over days of the day's distinct users: user-days."""
    credited: int
    """Rows that name an impression."""
    per_impression: float
    """Credited rows per impression that was not drawn as a negative."""
    organic: float
    """Share that names no impression."""
    valued: int
    low: float | None
    high: float | None
    mean: float | None
    values: dict[str, int]
    """Rows per value, where there are at most twenty values."""
    received_late: float
    """Share received more than an hour after it happened."""


class Distribution(_Part):
    """Events per user, or per item."""

    entities: int
    quantiles: dict[str, float]
    mean: float
    once: float
    """Share of the entities with one event."""
    top: str
    top_share: float
    """Share of all events that the busiest entity has."""
    top_percent_share: float
    """Share of all events that the busiest hundredth has."""


class Day(_Part):
    """One business day."""

    day: date
    impressions: int
    sampled: int
    feedback: int
    users: int
    items: int
    new_users: float
    """Share of the day's users whom no earlier day has; on the first day all are new."""
    new_items: float
    kinds: dict[str, int]


class LogProfile(_Part):
    """The whole log."""

    log: str
    tables: tuple[Table, ...]
    first_at: datetime
    last_at: datetime
    impressions: int
    """Without drawn negatives."""
    sampled: int
    feedback: int
    users: int
    items: int
    density: float
    """Distinct (user, item) pairs over users times items, to about 2 %; drawn negatives not counted."""
    kinds: tuple[Kind, ...]
    organic: float
    """Share of the feedback that names no impression."""
    not_found: float
    """Share of feedback naming an impression that neither its day nor the one before has."""
    before_impression: int
    """Feedback rows that happened before the impression they name was shown."""
    propensity: float
    """Share of the impressions with a propensity."""
    positions: dict[str, int]
    """Impressions per position: 1 to 10, then "11+"."""
    responses: int
    per_response: float
    """Impressions per request."""
    hours: tuple[int, ...]
    """Events by hour of the day, UTC."""
    utc_offsets: tuple[int, int] | None
    """Hours east of UTC between which the days' borders lie; null when no time zone's days fit."""
    per_user: Distribution
    per_item: Distribution
    unlisted_items: int
    """Items of events that the items table does not have."""
    unlisted_users: int
    shared_requests: Requests
    id_shapes: dict[Literal["users", "items"], IdShapes]
    id_spellings: dict[Literal["users", "items"], IdSpellings]
    days: tuple[Day, ...]
    missing_days: tuple[date, ...]
    findings: tuple[Finding, ...] = ()
