"""KuaiRand's side tables: what happened before the log, users, videos.

All of it is filed under the eve of the log's first day, so it is there before the first exposure.
"""

from datetime import date, timedelta
from pathlib import Path
from typing import Final

import polars as pl

from features.sources.conversion import (
    Conversion,
    find_file,
    first_seen,
    instant,
    midnight_ms,
    read_csv,
    require_columns,
)
from recsys.errors import DataError

# The user table is a snapshot of about 8 May 2022, after the log: a user seen on day d has register_days of
# at least 8 May - d, and the bound is reached. Activity degree and the follow, fan and friend counts may have
# moved by then (`USER_AS_OF_LATER`); codes and the date of registration have not.
USER_TEXT: Final = (
    "user_active_degree",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
    *(f"onehot_feat{n}" for n in range(18)),
)
USER_NUMBERS: Final = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
USER_AS_OF_LATER: Final = (
    "attribute_user_active_degree",
    *(f"attribute_{who}_user_num{form}" for who in ("follow", "fans", "friend") for form in ("", "_range")),
)
# history_len is the number of exposures up to the eve, from the history file.
USER_HISTORY: Final = "attribute_history_len"
ITEM_TEXT: Final = ("author_id", "video_type", "upload_type", "music_id", "music_type")
ITEM_NUMBERS: Final = {
    "attribute_duration_ms": "video_duration",
    "attribute_width": "server_width",
    "attribute_height": "server_height",
}
ITEM_TAGS: Final = "attribute_tags"
# history sequence -> feedback kind
SEQUENCES: Final = {"watch_seq": "view", "long_watch_seq": "long_view", "like_seq": "like"}
_UNKNOWN_CODE: Final = "-124"


def write_history(conversion: Conversion, src: Path, eve: date, timezone: str) -> pl.DataFrame | None:
    """Write the users' last views, long views and likes before the log as organic feedback of the eve.

    Only the last event's time is known. Earlier ones are put a minute apart before it (`occurred_at` is
    synthetic); all are received in the last instants of the eve, in that order, as one delivered file would
    be.

    Returns the users' rows that were used, or None when the folder has no history.
    """
    paths = sorted(src.glob("user_history_to_*.parquet"))
    if not paths:
        conversion.notes["feedback: the folder has no user_history_to_*.parquet"] = 1
        return None
    if len(paths) > 1:
        raise DataError(
            f"{src} has {len(paths)} user_history_to_*.parquet; keep the one that ends before the log"
        )
    read = _read_history(paths[0])
    end = midnight_ms(pl.lit(eve + timedelta(days=1)), timezone)
    history = conversion.keep(
        "history", read, pl.col("last_time_ms") < end, "history reaches into the log's first day"
    )
    conversion.account("history", read.height, history.height)
    events = _history_events(conversion, history)
    occurred = pl.col("last_time_ms") - pl.col("slot") * 60_000
    conversion.notes["feedback: from the history, times synthetic"] = events.height
    rows = events.select(
        pl.format("history:{}:{}:{}", "user_id", "kind", "turn").alias("feedback_id"),
        "kind",
        impression_id=pl.lit(None, pl.String),
        user_id=pl.col("user_id").cast(pl.String),
        item_id=pl.col("video_id").cast(pl.String),
        value=pl.lit(None, pl.Float64),
        occurred_at=instant(occurred),
        received_at=instant(end - 1 - pl.col("slot")),
    )
    conversion.write("feedback", rows, pl.lit(eve))
    return history


def write_users(
    conversion: Conversion, src: Path, exposures: pl.DataFrame, history: pl.DataFrame | None, eve: date
) -> None:
    """Write the users of the feature table on the eve, users that only the log knows on their first day."""
    path = _require(src, "user_features_pure.csv")
    table = read_csv(path)
    require_columns(path, table.columns, ("user_id", *USER_TEXT, *USER_NUMBERS))
    users = table.select(
        "user_id",
        *[_code(name).alias(f"attribute_{name}") for name in USER_TEXT],
        *[pl.col(name).cast(pl.Float64, strict=False).alias(f"attribute_{name}") for name in USER_NUMBERS],
    )
    users = conversion.distinct("users", users, ["user_id"], "more than one row of a user")
    conversion.account("users", table.height, users.height)
    if history is not None:
        lengths = history.select(pl.col("user_id").cast(pl.String), pl.col("history_len").cast(pl.Float64))
        users = users.join(lengths.rename({"history_len": USER_HISTORY}), on="user_id", how="left")
    seen = exposures.select(pl.col("user").alias("user_id"), "day")
    _write_with_unlisted(conversion, "users", users, "user_id", seen, eve)


def write_items(conversion: Conversion, src: Path, exposures: pl.DataFrame, eve: date, timezone: str) -> None:
    """Write the videos of the catalogue on the eve, videos that only the log knows on their first day."""
    path = _require(src, "video_features_basic_pure.csv")
    table = read_csv(path)
    require_columns(path, table.columns, ("video_id", "upload_dt", "tag", *ITEM_TEXT, *ITEM_NUMBERS.values()))
    tags = pl.col("tag").str.split(",")
    uploaded = midnight_ms(pl.col("upload_dt").str.to_date(strict=False), timezone)
    items = table.select(
        item_id="video_id",
        title=pl.lit(None, pl.String),
        description=pl.lit(None, pl.String),
        category=tags.list.first(),
        price=pl.lit(None, pl.Int64),
        available_from=instant(uploaded),
        available_until=pl.lit(None, pl.Datetime("ms", "UTC")),
        **{ITEM_TAGS: tags},
        **{f"attribute_{name}": _code(name) for name in ITEM_TEXT},
        **{name: pl.col(column).cast(pl.Float64, strict=False) for name, column in ITEM_NUMBERS.items()},
    )
    items = conversion.distinct("items", items, ["item_id"], "more than one row of a video")
    conversion.account("items", table.height, items.height)
    seen = exposures.select(pl.col("item").alias("item_id"), "day")
    _write_with_unlisted(conversion, "items", items, "item_id", seen, eve)


def _write_with_unlisted(
    conversion: Conversion, table: str, listed: pl.DataFrame, key: str, seen: pl.DataFrame, eve: date
) -> None:
    """Write a table's rows on the eve, and ids of the log that it lacks, without values, on their first day.

    Args: seen: the key and day of every exposure.
    """
    conversion.write(table, listed, pl.lit(eve))
    late = first_seen(seen, key, pl.col("day"), listed[key])
    if late.height:
        blank = [pl.lit(None, listed.schema[name]).alias(name) for name in listed.columns if name != key]
        conversion.write(table, late.select(key, *blank, __day="day"), pl.col("__day"))


def _read_history(path: Path) -> pl.DataFrame:
    columns = ("user_id", "history_len", "last_time_ms", *SEQUENCES)
    try:
        require_columns(path, pl.read_parquet_schema(path), columns)
        return pl.read_parquet(path, columns=list(columns))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} cannot be read as a user history ({error}); fetch it again") from error


def _history_events(conversion: Conversion, history: pl.DataFrame) -> pl.DataFrame:
    """Explode the sequences: user_id, video_id, kind, `turn` (0 = the kind's last) and `slot` (minutes back).

    A long view or like takes the slot of its view; one older than the views kept comes before them.
    """
    views = _explode(history, "watch_seq")
    # 2.2 % of neighbours are the same video, against .4 % in the log once its exact repeats are gone.
    again = pl.col("video_id").eq(pl.col("video_id").shift(1).over("user_id")).fill_null(value=False)
    kept = views.filter(~again)
    repeats = views.height - kept.height
    conversion.notes["feedback: a video directly after itself in the history, left out"] = repeats
    kept = kept.with_columns(slot=pl.col("turn"))
    before = 1 + max(views.get_column("turn"), default=0)
    places = kept.select("user_id", "video_id", "slot", nth=_nth_from_end())
    parts = [kept]
    for column in list(SEQUENCES)[1:]:
        rows = _explode(history, column).with_columns(nth=_nth_from_end())
        placed = rows.join(places, on=["user_id", "video_id", "nth"], how="left", maintain_order="left")
        parts.append(placed.with_columns(pl.col("slot").fill_null(before + pl.col("turn"))))
    order = ["user_id", "last_time_ms", "video_id", "kind", "turn", "slot"]
    return pl.concat([part.select(order) for part in parts])


def _explode(history: pl.DataFrame, column: str) -> pl.DataFrame:
    some = history.filter(pl.col(column).list.len() > 0)
    events = some.select("user_id", "last_time_ms", video_id=column).explode("video_id").drop_nulls()
    turn = pl.int_range(pl.len(), dtype=pl.Int64).reverse().over("user_id")
    return events.with_columns(kind=pl.lit(SEQUENCES[column]), turn=turn)


def _nth_from_end() -> pl.Expr:
    return pl.int_range(pl.len(), dtype=pl.Int64).reverse().over("user_id", "video_id")


def _code(name: str) -> pl.Expr:
    """Read a code as text: '1.0' and '1' are one code, '-124' and the empty text mean not known."""
    text = pl.col(name).str.strip_chars().str.replace(r"^(-?\d+)\.0$", "$1")
    return pl.when(text.is_in([_UNKNOWN_CODE, ""])).then(None).otherwise(text)


def _require(src: Path, name: str) -> Path:
    path = find_file(src, (name,))
    if path is None:
        raise DataError(f"{src} has no {name} (nor {name}.gz), which the KuaiRand-Pure layout has")
    return path
