"""MovieLens: ratings with times; impressions, clicks and purchases are derived, and the summary says so.

Real: `rating` feedback (stars), its instant, titles, genres, demographics.
Derived: the impression, a second before its rating; `click`, one for every rated film (the user chose to
rate it); `purchase`, one for every rating of at least `LIKED` stars: "liked" is what it means. Click rates
here say how films were sampled, nothing about a page. Negatives are drawn from what the user had not rated by
then, marked `sampled`, with the exact rate (`features.sources.negatives`).

Every impression is a response of one item at position 1: one rated film in a list of drawn ones would
reveal the label by the length and order of the list. Days are UTC. Tags are left out: they are dated, an
item's text is not.
"""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

import polars as pl

from features.sources.conversion import (
    Conversion,
    ConversionSummary,
    Step,
    first_seen,
    require_folder,
    silent,
)
from features.sources.movielens_files import MovieLens, read_movielens
from features.sources.negatives import sample_negatives
from recsys.errors import DataError
from recsys.log import InteractionLog, business_day

TIMEZONE: Final = "UTC"
LIKED: Final = 4.0
NEGATIVES_PER_POSITIVE: Final = 4
SEED: Final = 1
_DELAY: Final = timedelta(seconds=1)
_EVENT: Final = ["user_id", "item_id", "seconds"]


def convert(
    src: Path,
    out: InteractionLog,
    *,
    step: Step = silent,
    negatives: int = NEGATIVES_PER_POSITIVE,
    seed: int = SEED,
) -> ConversionSummary:
    """Convert a MovieLens folder: latest-small, 100k (original or RecBole's files) or the original 1m.

    Raises: DataError, naming the file and what is wrong with it.
    """
    require_folder(src)
    with Conversion("movielens", out) as conversion:
        step("reading", 0.0)
        raw = read_movielens(src)
        ratings = _checked(conversion, raw.ratings)
        conversion.account("feedback", raw.ratings.height, ratings.height)
        catalogue = _catalogue(conversion, ratings, raw.items)
        step("sampling negatives", 0.2)
        drawn = sample_negatives(ratings, catalogue, per_positive=negatives, seed=seed)
        step("impressions and feedback", 0.4)
        conversion.write("impressions", _impressions(ratings, drawn), business_day("shown_at", TIMEZONE))
        conversion.write("feedback", _feedback(ratings), business_day("received_at", TIMEZONE))
        step("users and items", 0.6)
        eve = min(ratings["day"].unique()) - timedelta(days=1)
        _write_users(conversion, raw, ratings, eve)
        _write_items(conversion, catalogue, eve)
        conversion.notes["impressions: negatives drawn, marked sampled"] = drawn.height
        conversion.notes["feedback: clicks derived, one per rating"] = ratings.height
        liked = ratings.filter(pl.col("stars") >= LIKED).height
        conversion.notes[f"feedback: purchases derived, ratings of at least {LIKED:g} stars"] = liked
        step("publishing", 0.7)
        return conversion.publish()


def _checked(conversion: Conversion, ratings: pl.DataFrame) -> pl.DataFrame:
    """Quarantine impossible ratings, drop repeats, add shown_at, rated_at, day and the impression's id."""
    now = int(datetime.now(UTC).timestamp())
    rules = {
        "user or film is missing": pl.col("user_id").is_not_null() & pl.col("item_id").is_not_null(),
        "rating is missing or not a number": pl.col("stars").is_finite(),
        "rating is not within .5 to 5 stars": pl.col("stars").is_between(0.5, 5.0),
        "timestamp is missing or not after 1970": pl.col("seconds") > 0,
        "timestamp lies in the future": pl.col("seconds") <= now,
    }
    for reason, rule in rules.items():
        ratings = conversion.keep("feedback", ratings, rule, reason)
    if ratings.is_empty():
        raise DataError(f"no valid rating: {conversion.quarantine_counts() or 'the file is empty'}")
    ratings = ratings.sort(*_EVENT, "stars")
    ratings = conversion.distinct("feedback", ratings, _EVENT, "same user, film and second")
    rated_at = pl.from_epoch("seconds").cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")
    shown_at = rated_at - _DELAY
    request = pl.format("{}-{}-{}", *_EVENT)
    return ratings.with_columns(
        rated_at=rated_at, shown_at=shown_at, day=shown_at.dt.date(), request_id=request
    )


def _catalogue(conversion: Conversion, ratings: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """Add films that only the ratings know, and `known_day`: the first day on which a film could be shown.

    That is 1 January of its year, or, without a year or where it was rated before, the day after its first
    rating.
    """
    first = ratings.group_by("item_id").agg(first_day=pl.col("day").min())
    once = conversion.distinct("items", items, ["item_id"], "listed twice")
    films = once.join(first, on="item_id", how="full", coalesce=True)
    released = pl.date(pl.col("year"), 1, 1)
    dated = films.with_columns(
        known_day=pl.min_horizontal(released, pl.col("first_day") + timedelta(days=1)), released=released
    )
    catalogue = dated.filter(pl.col("known_day").is_not_null())
    undated = dated.height - catalogue.height
    conversion.accounting["items"].ignored["neither a year nor a rating"] += undated
    conversion.account("items", items.height, once.height - undated)
    return catalogue


def _impressions(ratings: pl.DataFrame, drawn: pl.DataFrame) -> pl.DataFrame:
    seconds = pl.col("shown_at").dt.epoch("s")
    chosen = ratings.select("request_id", "user_id", "item_id", "shown_at", sampled=False, sampling_rate=1.0)
    others = drawn.select(
        pl.format("{}-{}-{}-n", "user_id", "item_id", seconds).alias("request_id"),
        "user_id",
        "item_id",
        "shown_at",
        "sampling_rate",
        sampled=True,
    )
    stacked = pl.concat([chosen, others.select(chosen.columns)])
    return stacked.with_columns(
        impression_id=pl.format("{}:1", "request_id"),
        position=pl.lit(1, pl.Int32),
        propensity=pl.lit(None, pl.Float64),
        propensity_kind=pl.lit("unknown"),
        explored=pl.lit(value=False),
    )


def _feedback(ratings: pl.DataFrame) -> pl.DataFrame:
    kinds = {"rating": pl.lit(value=True), "click": pl.lit(value=True), "purchase": pl.col("stars") >= LIKED}
    parts = [
        ratings.filter(rule).with_columns(
            kind=pl.lit(kind), value=pl.col("stars") if kind == "rating" else pl.lit(None, pl.Float64)
        )
        for kind, rule in kinds.items()
    ]
    return pl.concat(parts).select(
        pl.format("{}:1:{}", "request_id", "kind").alias("feedback_id"),
        pl.format("{}:1", "request_id").alias("impression_id"),
        "user_id",
        "item_id",
        "kind",
        "value",
        occurred_at="rated_at",
        received_at="rated_at",
    )


def _write_users(conversion: Conversion, raw: MovieLens, ratings: pl.DataFrame, eve: date) -> None:
    """Write users with demographics on the eve of the log, the others on their first day."""
    known = pl.DataFrame(schema={"user_id": pl.String})
    if raw.users is not None:
        known = conversion.distinct("users", raw.users, ["user_id"], "listed twice")
        conversion.account("users", raw.users.height, known.height)
        conversion.write("users", known, pl.lit(eve))
    late = first_seen(ratings, "user_id", pl.col("day"), known["user_id"])
    if late.height:
        blank = [pl.lit(None, kind).alias(name) for name, kind in known.schema.items() if name != "user_id"]
        conversion.write("users", late.select("user_id", *blank, __day="day"), pl.col("__day"))


def _write_items(conversion: Conversion, catalogue: pl.DataFrame, eve: date) -> None:
    """Write each film on the earlier of 1 January of its year and its first day, but not before the eve."""
    filed = pl.max_horizontal(pl.min_horizontal("released", "first_day"), pl.lit(eve))
    start = pl.min_horizontal("released", "first_day").cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")
    conversion.write(
        "items",
        catalogue.select(
            "item_id",
            "title",
            description=pl.lit(None, pl.String),
            category=pl.col("genres").list.first(),
            price=pl.lit(None, pl.Int64),
            available_from=start,
            available_until=pl.lit(None, pl.Datetime("ms", "UTC")),
            attribute_genres="genres",
            attribute_year=pl.col("year").cast(pl.Float64),
            __day=filed,
        ),
        pl.col("__day"),
    )
