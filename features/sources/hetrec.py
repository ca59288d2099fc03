"""HetRec 2011 Last.fm 2K: who tagged which artist when, how often who had played whom, who befriended whom.

Real: taggings with their day, play counts, friends, names. 98 % of the days are the first of a month: the
times are months, and a config should say `period = "P1M"`. A user's taggings of one artist on one day are one
event, at noon UTC; the hours are made up, and no event of a day sees another one.

Derived: a tagged artist is an impression, since nothing says what was shown; artists the user had not tagged
by then are drawn as negatives, marked `sampled`, with their exact rate. Every artist may be drawn on every
day: the files do not date them.

Play counts and friends have no date: they are what stood there when the data were collected. Both are filed
under the day after the last tagging, so that no earlier day can see them: feedback `play` (organic, its
value the count) and `attribute_friends`. An artist's tags are dated: `attribute_tags` are the ten most
frequent ones so far, from the first of the next month on.
"""

import gzip
import io
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import polars as pl

from features.sources.conversion import (
    Conversion,
    ConversionSummary,
    Step,
    find_file,
    require_columns,
    require_folder,
    silent,
)
from features.sources.mapped.days import make_derived_impressions, with_drawn
from features.sources.negatives import sample_negatives
from recsys.errors import DataError
from recsys.log import InteractionLog
from recsys.schema import INSTANT

NEGATIVES_PER_POSITIVE: Final = 4
SEED: Final = 1
TAGS_PER_ARTIST: Final = 10
# The first taggings but five, dated 1956 to 1979, are of August 2005, when Last.fm began to have tags.
BEGINS: Final = date(2005, 8, 1)
_DAY: Final = ["day", "month", "year"]


def convert(src: Path, out: InteractionLog, *, step: Step = silent) -> ConversionSummary:
    """Convert the folder of hetrec2011-lastfm-2k, its files plain or gzipped.

    Raises: DataError, naming the file and what is wrong with it.
    """
    require_folder(src)
    with Conversion("hetrec", out) as conversion:
        step("reading", 0.0)
        taggings = _taggings(conversion, src)
        listed = _table(src, "artists.dat", ("id", "name")).select(item_id="id", title="name")
        artists = conversion.distinct("items", listed, ["item_id"], "listed twice")
        conversion.account("items", listed.height, artists.height)
        first, last = taggings["day"].min(), taggings["day"].max()
        assert isinstance(first, date)
        assert isinstance(last, date)
        collected, eve = last + timedelta(days=1), first - timedelta(days=1)
        step("sampling negatives", 0.2)
        _write_events(conversion, taggings, _plays(conversion, src, collected), artists)
        step("users and items", 0.7)
        _write_users(conversion, src, taggings, collected)
        _write_items(conversion, src, taggings, artists, eve)
        step("publishing", 0.95)
        return conversion.publish()


def _taggings(conversion: Conversion, src: Path) -> pl.DataFrame:
    """Read user_id, item_id, tag, day, at of every tagging."""
    columns = ("userID", "artistID", "tagID", *_DAY)
    raw = _table(src, "user_taggedartists.dat", columns)
    numbers = [pl.col(c).cast(pl.Int32, strict=False) for c in _DAY]
    rows = raw.with_columns(numbers).select(
        user_id="userID",
        item_id="artistID",
        tag="tagID",
        # Text, because an impossible day such as 31 February must become null and not an error.
        day=pl.format("{}-{}-{}", "year", "month", "day").str.to_date("%Y-%m-%d", strict=False),
    )
    rows = conversion.keep("feedback", rows, pl.col("day").is_not_null(), "day, month and year are no date")
    rows = conversion.keep(
        "feedback", rows, pl.col("day") >= BEGINS, f"tagged before {BEGINS}, when Last.fm had no tags"
    )
    if rows.is_empty():
        raise DataError(f"no valid tagging in {src}: {conversion.quarantine_counts() or 'the file is empty'}")
    rows = conversion.distinct(
        "feedback", rows, ["user_id", "item_id", "tag", "day"], "the same tagging again"
    )
    conversion.account("feedback", raw.height, rows.height)
    return rows.with_columns(at=_noon("day"))


def _plays(conversion: Conversion, src: Path, collected: date) -> pl.DataFrame:
    raw = _table(src, "user_artists.dat", ("userID", "artistID", "weight"))
    plays = raw.select(
        user_id="userID", item_id="artistID", value=pl.col("weight").cast(pl.Float64, strict=False)
    )
    plays = conversion.keep("feedback", plays, pl.col("value") > 0, "play count is not above 0")
    plays = conversion.distinct("feedback", plays, ["user_id", "item_id"], "play count listed twice")
    conversion.account("feedback", raw.height, plays.height)
    conversion.notes["feedback: play, undated, filed after the last tagging"] = plays.height
    return plays.select(
        pl.format("{}-{}:play", "user_id", "item_id").alias("feedback_id"),
        pl.lit(None, pl.String).alias("impression_id"),
        "user_id",
        "item_id",
        pl.lit("play").alias("kind"),
        "value",
        pl.lit(collected).alias("__day"),
    ).with_columns(occurred_at=_noon("__day"), received_at=_noon("__day"))


def _write_events(
    conversion: Conversion, taggings: pl.DataFrame, plays: pl.DataFrame, artists: pl.DataFrame
) -> None:
    events = taggings.unique(["user_id", "item_id", "day"], keep="first", maintain_order=True)
    chosen = make_derived_impressions(events)
    catalogue = pl.concat([artists.select("item_id"), events.select("item_id")]).unique()
    drawn = sample_negatives(
        events.select("user_id", "item_id", "day", shown_at="at"),
        catalogue.with_columns(known_day=pl.lit(BEGINS)),
        per_positive=NEGATIVES_PER_POSITIVE,
        seed=SEED,
    )
    conversion.notes["impressions: negatives drawn, marked sampled"] = drawn.height
    conversion.write("impressions", with_drawn(chosen, drawn.drop("day")), pl.col("shown_at").dt.date())
    tags = chosen.select(
        pl.format("{}:tag", "impression_id").alias("feedback_id"),
        "impression_id",
        "user_id",
        "item_id",
        pl.lit("tag").alias("kind"),
        pl.lit(None, pl.Float64).alias("value"),
        pl.col("shown_at").dt.date().alias("__day"),
        occurred_at="shown_at",
        received_at="shown_at",
    )
    conversion.write("feedback", pl.concat([tags, plays.select(tags.columns)]), pl.col("__day"))


def _write_users(conversion: Conversion, src: Path, taggings: pl.DataFrame, collected: date) -> None:
    """Write users on their first day; again, with their friends, on the day the data were collected."""
    friends = _table(src, "user_friends.dat", ("userID", "friendID"))
    circles = friends.group_by(user_id="userID").agg(attribute_friends=pl.col("friendID").unique().sort())
    seen = taggings.group_by("user_id").agg(__day=pl.col("day").min())
    late = circles.with_columns(__day=pl.lit(collected))
    rows = pl.concat([seen, late], how="diagonal").with_columns(
        attribute_num_friends=pl.col("attribute_friends").list.len().cast(pl.Float64)
    )
    conversion.write("users", rows, pl.col("__day"))


def _write_items(
    conversion: Conversion, src: Path, taggings: pl.DataFrame, artists: pl.DataFrame, eve: date
) -> None:
    """Write artists on the eve of the log, and again on the first of a month after new tags."""
    names = _table(src, "tags.dat", ("tagID", "tagValue"), encoding="latin-1").select(
        tag="tagID", word="tagValue"
    )
    unnamed = taggings.join(artists, on="item_id", how="anti").select("item_id").unique()
    known = pl.concat([artists, unnamed.with_columns(title=pl.lit(None, pl.String))])
    tagged = _tags_by_month(taggings.join(names, on="tag")).join(known, on="item_id")
    blank = known.with_columns(attribute_tags=pl.lit(None, pl.List(pl.String)), __day=pl.lit(eve))
    rows = pl.concat([blank, tagged.select(blank.columns)]).with_columns(
        description=pl.lit(None, pl.String),
        category=pl.col("attribute_tags").list.first(),
        price=pl.lit(None, pl.Int64),
        available_from=pl.lit(None, INSTANT),
        available_until=pl.lit(None, INSTANT),
    )
    conversion.write("items", rows, pl.col("__day"))


def _tags_by_month(taggings: pl.DataFrame) -> pl.DataFrame:
    """Give item_id, attribute_tags (most frequent first) and __day, the month's first that may see them."""
    month = pl.col("day").dt.month_start().dt.offset_by("1mo")
    counts = taggings.group_by("item_id", "word", __day=month).len()
    # Every month with a new tag, crossed with all of the artist's tags up to it.
    months = counts.select("item_id", "__day").unique()
    so_far = months.join(counts, on="item_id", suffix="_of").filter(pl.col("__day_of") <= pl.col("__day"))
    totals = so_far.group_by("item_id", "__day", "word").agg(pl.col("len").sum())
    ordered = totals.sort("item_id", "__day", "len", "word", descending=[False, False, True, False])
    return ordered.group_by("item_id", "__day", maintain_order=True).agg(
        attribute_tags=pl.col("word").head(TAGS_PER_ARTIST)
    )


def _noon(day: str) -> pl.Expr:
    midnight = pl.col(day).cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")
    return midnight + timedelta(hours=12)


def _table(src: Path, name: str, required: tuple[str, ...], encoding: str = "utf-8") -> pl.DataFrame:
    """Read a tab-separated file, every column as text.

    Raises: DataError, naming the file, when it is not there, cannot be read or lacks a column.
    """
    path = find_file(src, (name,))
    if path is None:
        raise DataError(f"{src} has no {name} (nor {name}.gz), which the HetRec Last.fm set has")
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = raw.decode(encoding).encode()
        table = pl.read_csv(io.BytesIO(text), separator="\t", quote_char=None, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError, EOFError, UnicodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); fetch the file again") from error
    require_columns(path, table.columns, required)
    return table.select(required)
