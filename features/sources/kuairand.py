"""KuaiRand-Pure: real short-video exposures with click, long view, like and more.

Days. The business day is Asia/Shanghai and is the log's `date` column. That is the day an exposure was
*reported*: `time_ms` is when it began, `date` and `hourmin` name the hour in which its report came in, about
ten minutes later (a play that crosses an hour is never reported in the hour it began). So .8 % of the rows,
shown shortly before midnight, stand under the next day. A night must not change when later files arrive, so
they stay there: `shown_at` of such a row moves into the first minute of its `date`, order kept, and counted.

Feedback occurs at the end of the play, the first moment at which its outcome is known, and at most
`MAX_PLAY_MS` after the exposure: a label window of 15 minutes misses nothing. It is received then, or when
the hour of its report begins if that is later: the earliest moment that the log allows. The delay within the
hour is not in the log, but of the exposures 5-9 minutes before an hour 87 % are reported after it, of those
10-14 minutes before it 25 %, of those 20-24 minutes 3 %: live features should assume a lag of ten minutes.

Nothing derived from a label may become a feature: `CONTEXT` here, `ITEM_*` and `USER_*` in `kuairand_side`
are the whole allow-list.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import polars as pl

from features.sources.conversion import (
    Conversion,
    ConversionSummary,
    Step,
    instant,
    midnight_ms,
    require_columns,
    require_folder,
    silent,
)
from features.sources.kuairand_side import write_history, write_items, write_users
from recsys.errors import DataError
from recsys.log import InteractionLog

TIMEZONE: Final = "Asia/Shanghai"
LAYOUT: Final = (
    "one or more interactions_*.parquet, user_features_pure.csv[.gz], video_features_basic_pure.csv[.gz], "
    "and user_history_to_*.parquet if there is one"
)
# What the impressions carry beside their fixed columns: known when the request is made, before any outcome.
# The video's duration is known too; it belongs to the item (attribute_duration_ms), where serving has it.
CONTEXT: Final = {"context_tab": "tab"}
# feedback kind -> flag in the log; long_view is handled apart (only where also clicked).
FLAGS: Final = {
    "click": "is_click",
    "like": "is_like",
    "follow": "is_follow",
    "comment": "is_comment",
    "forward": "is_forward",
    "hate": "is_hate",
    "profile_enter": "is_profile_enter",
}
# A rating of 1 + the number of edges that the share watched (play / duration) reaches: 1 skipped at once,
# 2 sampled, 3 watched in part, 4 most of it, 5 to the end. Shares are heavily skewed (median .13), so equal
# steps would put 55 % of the rows into one star; these give 33, 24, 14, 11 and 18 %.
RATING_EDGES: Final = (0.05, 0.2, 0.5, 0.95)
MAX_PLAY_MS: Final = 15 * 60_000
_DAY_MS: Final = 86_400_000
_KEY: Final = ["user_id", "video_id", "time_ms"]
_OUTCOMES: Final = (*FLAGS.values(), "long_view", "play_time_ms")
_COLUMNS: Final = (*_KEY, "date", "hourmin", *_OUTCOMES, "duration_ms", "tab")
_MIDNIGHT: Final = midnight_ms(pl.col("day"), TIMEZONE)


def convert(src: Path, out: InteractionLog, *, step: Step = silent) -> ConversionSummary:
    """Convert a KuaiRand-Pure folder; every `interactions_*.parquet` in it is read.

    Raises: DataError, naming the file and what is wrong with it.
    """
    require_folder(src)
    with Conversion("kuairand", out) as conversion:
        step("reading interactions", 0.0)
        exposures = _read_exposures(src, conversion)
        eve = min(exposures["day"].unique()) - timedelta(days=1)
        step("history", 0.2)
        history = write_history(conversion, src, eve, TIMEZONE)
        exposures = _without_history_twins(conversion, exposures, history)
        conversion.account("impressions", 0, exposures.height)
        step("impressions and feedback", 0.6)
        conversion.write("impressions", _impressions(exposures), pl.col("__day"))
        conversion.write("feedback", _feedback(exposures, conversion), pl.col("__day"))
        step("users and items", 0.8)
        write_users(conversion, src, exposures, history, eve)
        write_items(conversion, src, exposures, eve, TIMEZONE)
        step("publishing", 0.95)
        return conversion.publish()


def _read_exposures(src: Path, conversion: Conversion) -> pl.DataFrame:
    """Read, check and order the exposures; adds `day`, `shown_at`, `occurred_at`, `received_at`, ids."""
    paths = sorted(src.glob("interactions_*.parquet"))
    if not paths:
        raise DataError(f"{src} has no interactions_*.parquet; expected {LAYOUT}")
    stacked = pl.concat([_read_interactions(path) for path in paths])
    dated = stacked.with_columns(day=pl.col("date").cast(pl.String).str.to_date("%Y%m%d", strict=False))
    checked = _check(conversion, dated)
    # Sorted by every column, so that the copy kept of a repeated exposure is its first report: independent of
    # file order, and a later file can never take a row away from an earlier day.
    ordered = checked.sort(_COLUMNS)
    distinct = conversion.distinct("impressions", ordered, _KEY, "exact (user, video, time_ms) repeats")
    conversion.account("impressions", stacked.height, 0)
    return _with_instants(distinct, conversion)


def _read_interactions(path: Path) -> pl.DataFrame:
    try:
        found = pl.read_parquet_schema(path)
        require_columns(path, found, _COLUMNS)
        return pl.read_parquet(path, columns=list(_COLUMNS)).select(pl.col(_COLUMNS).cast(pl.Int64))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"{path} cannot be read as KuaiRand interactions ({error}); fetch it again"
        ) from error


def _check(conversion: Conversion, rows: pl.DataFrame) -> pl.DataFrame:
    """Quarantine rows that no event can look like."""
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    flags = [*FLAGS.values(), "long_view"]
    since = pl.col("time_ms") - _MIDNIGHT
    measured = (pl.col("play_time_ms") >= 0) & (pl.col("duration_ms") >= 0)
    rules = {
        "user, video or time is missing": pl.all_horizontal(pl.col(_KEY).is_not_null()),
        "time_ms lies in the future": pl.col("time_ms") <= now_ms,
        "date is not YYYYMMDD": pl.col("day").is_not_null(),
        "hourmin is not HHMM": pl.col("hourmin").is_between(0, 2359),
        "date and time_ms disagree by a day or more": since.is_between(-_DAY_MS, _DAY_MS, closed="left"),
        "a flag is neither 0 nor 1": pl.all_horizontal(pl.col(flags).is_in([0, 1])),
        "play time or duration is missing or negative": measured,
    }
    for reason, rule in rules.items():
        rows = conversion.keep("impressions", rows, rule, reason)
    if rows.is_empty():
        raise DataError("no valid row in interactions_*.parquet: " + str(conversion.quarantine_counts()))
    return rows


def _with_instants(rows: pl.DataFrame, conversion: Conversion) -> pl.DataFrame:
    since = pl.col("time_ms") - _MIDNIGHT
    # A day's worth of milliseconds squeezed into one minute: order stays, the row stays in its `date`.
    squeezed = _MIDNIGHT + (since + _DAY_MS) * 60_000 // _DAY_MS
    late, long = since < 0, pl.col("play_time_ms") > MAX_PLAY_MS
    conversion.notes["impressions: shown before midnight, reported after it; moved"] = rows.filter(
        late
    ).height
    conversion.notes["impressions: played over 15 minutes, feedback dated at 15"] = rows.filter(long).height
    shown = pl.when(late).then(squeezed).otherwise(pl.col("time_ms"))
    played = shown + pl.min_horizontal("play_time_ms", pl.lit(MAX_PLAY_MS))
    ended = pl.min_horizontal(played, _MIDNIGHT + _DAY_MS - 1)
    report = _MIDNIGHT + (pl.col("hourmin") // 100 * 60 + pl.col("hourmin") % 100) * 60_000
    request = pl.format("{}-{}-{}", *_KEY)
    return rows.with_columns(
        shown_at=instant(shown),
        occurred_at=instant(ended),
        received_at=instant(pl.max_horizontal(ended, report)),
        request_id=request,
        impression_id=pl.format("{}:1", request),
        user=pl.col("user_id").cast(pl.String),
        item=pl.col("video_id").cast(pl.String),
    )


def _without_history_twins(
    conversion: Conversion, exposures: pl.DataFrame, history: pl.DataFrame | None
) -> pl.DataFrame:
    """Drop exposures that the history ends with: repeats across midnight, whose outcome it already tells."""
    if history is None:
        return exposures
    last = history.select("user_id", time_ms="last_time_ms", video_id=pl.col("watch_seq").list.last())
    kept = exposures.join(last, on=_KEY, how="anti", maintain_order="left")
    twins = exposures.height - kept.height
    conversion.repeated("impressions", twins, "already the last event of the user's history")
    return kept


def _impressions(exposures: pl.DataFrame) -> pl.DataFrame:
    return exposures.select(
        "impression_id",
        "request_id",
        "shown_at",
        user_id="user",
        item_id="item",
        # The log has no positions and no lists: each exposure is a response of one.
        position=pl.lit(1, pl.Int32),
        propensity=pl.lit(None, pl.Float64),
        propensity_kind=pl.lit("unknown"),
        explored=pl.lit(value=False),
        sampled=pl.lit(value=False),
        sampling_rate=pl.lit(1.0),
        __day="day",
        **{name: pl.col(column).cast(pl.String) for name, column in CONTEXT.items()},
    )


def _feedback(exposures: pl.DataFrame, conversion: Conversion) -> pl.DataFrame:
    """Turn flags into rows: one kind each, `long_view` where also clicked, `rating` where played."""
    clicked, long_view = pl.col("is_click") == 1, pl.col("long_view") == 1
    measured = (pl.col("play_time_ms") > 0) & (pl.col("duration_ms") > 0)
    counts = exposures.select(
        (long_view & ~clicked).sum().alias("feedback: long_view without click, left out"),
        ((pl.col("play_time_ms") > 0) & ~measured)
        .sum()
        .alias("feedback: played, duration unknown, no rating"),
    )
    conversion.notes.update(counts.row(0, named=True))
    share = pl.col("play_time_ms") / pl.col("duration_ms")
    stars = pl.sum_horizontal(pl.lit(1.0), *[(share >= edge).cast(pl.Float64) for edge in RATING_EDGES])
    chosen = {kind: pl.col(flag) == 1 for kind, flag in FLAGS.items()}
    chosen |= {"long_view": long_view & clicked, "rating": measured}
    parts = [
        exposures.filter(rule).with_columns(
            kind=pl.lit(kind), value=stars if kind == "rating" else pl.lit(None, pl.Float64)
        )
        for kind, rule in chosen.items()
    ]
    return pl.concat(parts).select(
        pl.format("{}:{}", "impression_id", "kind").alias("feedback_id"),
        "impression_id",
        "kind",
        "value",
        "occurred_at",
        "received_at",
        user_id="user",
        item_id="item",
        __day="day",
    )
