"""Canonical tables: every log has this form, from any source.

`LOG/<table>/date=YYYY-MM-DD/*.parquet`. `date` is the business day, in the config's time zone, of the table's
own instant (`PARTITION_INSTANT`). Feedback is stored under the day on which it was *received*, so that a
night of day D reads no partition after D and still sees late feedback for earlier impressions.

Columns named `context_*` (requests, impressions) and `attribute_*` (users, items) are free: text, numbers, or
lists of text. Everything else is fixed here. Rows that break a rule are quarantined.
"""

from datetime import UTC, datetime
from functools import cache
from typing import Final

import polars as pl

from recsys.dataframely_alone import dy

INSTANT: Final = pl.Datetime("ms", "UTC")
CONTEXT_PREFIX: Final = "context_"
ATTRIBUTE_PREFIX: Final = "attribute_"
EARLIEST: Final = datetime(1990, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2100, 1, 1, tzinfo=UTC)
"""Instants from outside lie between, this one left out: seconds read as milliseconds land in 1970,
milliseconds read as seconds far beyond 2100."""
EARLIEST_MS: Final = 1_000 * int(EARLIEST.timestamp())
LATEST_MS: Final = 1_000 * int(LATEST.timestamp())


class _Instant(dy.Datetime):
    """A UTC instant in milliseconds."""

    def __init__(self, *, nullable: bool = False) -> None:
        super().__init__(nullable=nullable, time_zone="UTC", time_unit="ms")


class Requests(dy.Schema):
    """One row per answered `Recommend` or `Rank`: per page of a list."""

    request_id = dy.String(nullable=False, min_length=1)
    list_id = dy.String(nullable=True)
    """Shared by the pages of one list; their impressions' positions go on from page to page."""
    user_id = dy.String(nullable=False, min_length=1)
    session_id = dy.String(nullable=True)
    surface = dy.String(nullable=True)
    requested_at = _Instant()
    filters = dy.String(nullable=True)
    page_size = dy.Int32(nullable=False, min=0)
    policy = dy.String(nullable=False)
    policy_parameters = dy.String(nullable=True)
    bundle_version = dy.String(nullable=True)
    degradation = dy.List(dy.String(nullable=False), nullable=True)
    candidates = dy.List(dy.String(nullable=False), nullable=True)
    candidate_sources = dy.List(dy.String(nullable=False), nullable=True)


class Impressions(dy.Schema):
    """One row per item shown at one position (1 = top) in one response."""

    impression_id = dy.String(nullable=False, min_length=1)
    request_id = dy.String(nullable=False, min_length=1)
    user_id = dy.String(nullable=False, min_length=1)
    item_id = dy.String(nullable=False, min_length=1)
    shown_at = _Instant()
    position = dy.Int32(nullable=False, min=1)
    propensity = dy.Float64(nullable=True, min_exclusive=0.0, max=1.0)
    propensity_kind = dy.String(nullable=False)  # exact | uniform | pinned | seeded | degraded | unknown
    explored = dy.Bool(nullable=False)
    sampled = dy.Bool(nullable=False)
    sampling_rate = dy.Float64(nullable=False, min_exclusive=0.0, max=1.0)


class Feedback(dy.Schema):
    """One row per feedback event; `feedback_id` is the idempotency key."""

    feedback_id = dy.String(nullable=False, min_length=1)
    impression_id = dy.String(nullable=True)
    user_id = dy.String(nullable=False, min_length=1)
    item_id = dy.String(nullable=False, min_length=1)
    kind = dy.String(nullable=False, min_length=1)
    value = dy.Float64(nullable=True)  # stars, money in minor units, …; NaN and infinity are refused
    occurred_at = _Instant()
    received_at = _Instant()
    merged_from = dy.String(nullable=True)
    """The anonymous session of this event, before its user logged in; the item's counts have it already."""

    @dy.rule()
    def received_after_it_occurred(cls) -> pl.Expr:
        """A clock that runs ahead would put an event before the impression it belongs to."""
        return pl.col("received_at") >= pl.col("occurred_at")


class Exposures(dy.Schema):
    """One row per user's first contact with an experiment variant."""

    user_id = dy.String(nullable=False, min_length=1)
    experiment = dy.String(nullable=False, min_length=1)
    variant = dy.String(nullable=False, min_length=1)
    exposed_at = _Instant()


class Users(dy.Schema):
    """One row per user as known from that day on; later days replace earlier ones."""

    user_id = dy.String(nullable=False, min_length=1)


class Items(dy.Schema):
    """One row per item as known from that day on; later days replace earlier ones."""

    item_id = dy.String(nullable=False, min_length=1)
    title = dy.String(nullable=True)
    description = dy.String(nullable=True)
    category = dy.String(nullable=True)
    price = dy.Int64(nullable=True, min=0)  # minor units
    available_from = _Instant(nullable=True)
    available_until = _Instant(nullable=True)


TABLES: Final[dict[str, type[dy.Schema]]] = {
    "requests": Requests,
    "impressions": Impressions,
    "feedback": Feedback,
    "exposures": Exposures,
    "users": Users,
    "items": Items,
}
KEYS: Final[dict[str, tuple[str, ...]]] = {
    "requests": ("request_id",),
    "impressions": ("impression_id",),
    "feedback": ("feedback_id",),
    "exposures": ("user_id", "experiment"),
    "users": ("user_id",),
    "items": ("item_id",),
}
IMPRESSION_KEY: Final = ("impression_id", "user_id")
"""What names an impression: two users may share an id, as where an application numbers each user's own."""
REQUEST_KEY: Final = ("request_id", "user_id")
"""What names a request, likewise."""
FREE_PREFIX: Final[dict[str, str]] = {
    "requests": CONTEXT_PREFIX,
    "impressions": CONTEXT_PREFIX,
    "users": ATTRIBUTE_PREFIX,
    "items": ATTRIBUTE_PREFIX,
}
MAY_BE_ABSENT: Final[dict[str, tuple[str, ...]]] = {
    "requests": ("list_id",),
    "feedback": ("merged_from",),
}
"""Columns that other writers' logs, or older logs, may lack; reading fills them with null."""
SESSION_MERGED: Final = "session_merged"
"""Kind of the feedback row that marks a session as merged into a user: its events with received_at up to
`value` (milliseconds) belong to the user."""
PARTITION_INSTANT: Final[dict[str, str]] = {
    "requests": "requested_at",
    "impressions": "shown_at",
    "feedback": "received_at",
    "exposures": "exposed_at",
}


def with_free_columns(table: str, columns: dict[str, pl.DataType]) -> type[dy.Schema]:
    """Extend a table's schema by the free columns that a frame carries, so that filtering keeps them."""
    prefix = FREE_PREFIX.get(table)
    free = () if prefix is None else tuple(item for item in columns.items() if item[0].startswith(prefix))
    return _with_free(table, free)


@cache
def _with_free(table: str, columns: tuple[tuple[str, pl.DataType], ...]) -> type[dy.Schema]:
    """Make the class once: a log of many small partitions asks for it at each."""
    free: dict[str, object] = {name: _free_column(dtype) for name, dtype in columns}
    schema: type[dy.Schema] = (
        type(f"{TABLES[table].__name__}Free", (TABLES[table],), free) if free else TABLES[table]
    )
    return schema


def with_absent_columns(table: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Add the columns that a frame may lack, all null."""
    absent = [name for name in MAY_BE_ABSENT.get(table, ()) if name not in frame.columns]
    if not absent:
        return frame
    schema = empty(table).schema
    return frame.with_columns(pl.lit(None, dtype=schema[name]).alias(name) for name in absent)


@cache
def empty(table: str) -> pl.DataFrame:
    """Make a table with no rows and all fixed columns."""
    frame: pl.DataFrame = TABLES[table].create_empty()
    return frame


def _free_column(dtype: pl.DataType) -> dy.Column:
    if isinstance(dtype, pl.List):
        return dy.List(dy.String(nullable=False), nullable=True)
    if dtype.is_numeric() or dtype == pl.Boolean:
        return dy.Float64(nullable=True, allow_inf=False, allow_nan=False)
    return dy.String(nullable=True)
