"""Staged rows of one business day -> canonical impressions and feedback; feedback finds its impression here.

In this order: the impression that it names; the one of the request and item that it names, up to a week old;
the latest of the same user and item, at most the window before it (an equal instant counts). What finds none
is organic.
"""

from collections.abc import Sequence
from datetime import date, timedelta

import polars as pl

from features.sources.mapped import keys
from recsys.schema import CONTEXT_PREFIX

EVENT = ["user_id", "item_id", "kind", "at"]
_PAIR = ["user_id", "item_id"]
_REQUEST_REACH = timedelta(days=7)


def distinct_events(rows: pl.DataFrame) -> pl.DataFrame:
    """Keep each event once, the first one: by its own id, else by who, what, which and when."""
    own = pl.col("event").is_null()
    return rows.filter(
        pl.when(own).then(pl.struct(*EVENT, own).is_first_distinct()).otherwise(
            pl.col("event").is_first_distinct()
        )
    )  # fmt: skip


def other_events(rows: pl.DataFrame) -> pl.DataFrame:
    """List the events whose id an earlier one has, of another user, item or kind: event, that one, this."""
    told = pl.format("{} {} {}", *EVENT[:3])
    named = rows.filter(pl.col("event").is_not_null()).select("event", told=told)
    first = named.unique("event", keep="first", maintain_order=True)
    both = first.join(named, on="event", suffix="_other", maintain_order="left_right")
    return both.filter(pl.col("told") != pl.col("told_other"))


def distinct_impressions(rows: pl.DataFrame) -> pl.DataFrame:
    """Keep each shown item once: rows that differ in request, position or id are different impressions."""
    key = [*_PAIR, "at", *(c for c in ("impression", "request", "position") if c in rows.columns)]
    return rows.unique(key, keep="first", maintain_order=True)


def make_impressions(rows: pl.DataFrame) -> pl.DataFrame:
    """Turn one day's rows of shown items into impressions; adds nothing that the log does not say.

    A row without a request is a response of one. Without a position it is its place among the rows of its
    request. A `request` that is not its `request_id` stays, for feedback that names it.

    Args: rows: with `request_id` for those that name a request (`keys.Requests`).
    """
    listed = pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("request_id", "user_id")
    place = pl.when(pl.col("request_id").is_null()).then(1).otherwise(listed)
    if rows["request_id"].null_count() == rows.height:
        place = pl.lit(1, pl.Int32)
    position = pl.col("position") if "position" in rows.columns else pl.lit(None, pl.Int32)
    propensity = pl.col("propensity") if "propensity" in rows.columns else pl.lit(None, pl.Float64)
    rows = rows.with_columns(position=pl.coalesce(position, place), propensity=propensity)
    if rows["request_id"].null_count():
        rows = rows.with_columns(request_id=pl.coalesce("request_id", keys.own_request()))
    exact = pl.when(pl.col("propensity").is_null()).then(pl.lit("unknown")).otherwise(pl.lit("exact"))
    return rows.select(
        pl.coalesce("impression", keys.impression()).alias("impression_id"),
        "request_id",
        "request",
        *_PAIR,
        "position",
        "propensity",
        *[c for c in rows.columns if c.startswith(CONTEXT_PREFIX)],
        shown_at="at",
        propensity_kind=exact,
        explored=pl.lit(value=False),
        sampled=pl.lit(value=False),
        sampling_rate=pl.lit(1.0),
    )


def make_derived_impressions(rows: pl.DataFrame) -> pl.DataFrame:
    """Turn chosen items into impressions of one item each, shown at the instant of the choice.

    One list of a chosen item and drawn ones would reveal the label by its length and order.
    """
    once = rows.unique(subset=[*_PAIR, "at"], keep="first", maintain_order=True)
    return make_impressions(
        once.with_columns(
            request=pl.lit(None, pl.String),
            request_id=pl.lit(None, pl.String),
            impression=pl.lit(None, pl.String),
            position=pl.lit(1, pl.Int32),
            propensity=pl.lit(None, pl.Float64),
        )
    )


def with_drawn(chosen: pl.DataFrame, drawn: pl.DataFrame) -> pl.DataFrame:
    """Add drawn items as impressions in the context of their choice: no context would reveal the label."""
    if drawn.is_empty():
        return chosen
    context = [c for c in chosen.columns if c.startswith(CONTEXT_PREFIX)]
    moments = chosen.select("user_id", "shown_at", *context).unique(["user_id", "shown_at"], keep="first")
    request = pl.format("{}-n", keys.own_request("shown_at"))
    others = drawn.join(moments, on=["user_id", "shown_at"], how="left").with_columns(
        request=pl.lit(None, pl.String),
        request_id=request,
        impression_id=pl.format("{}:1", request),
        position=pl.lit(1, pl.Int32),
        propensity=pl.lit(None, pl.Float64),
        propensity_kind=pl.lit("unknown"),
        explored=pl.lit(value=False),
        sampled=pl.lit(value=True),
    )
    return pl.concat([chosen, others.select(chosen.columns)])


def make_feedback(rows: pl.DataFrame, shown: pl.DataFrame, window: timedelta) -> pl.DataFrame:
    """Turn one day's events into feedback, each with the impression that it belongs to, or null.

    Args: shown: impression_id, request, request_id, user_id, item_id, shown_at of every impression in reach.
    """
    paired = pair(rows, shown, window)
    return paired.select(
        pl.coalesce("event", keys.own_event()).alias("feedback_id"),
        "impression_id",
        *_PAIR,
        "kind",
        "value",
        "unsure",
        occurred_at="at",
        received_at=pl.coalesce("received", "at"),
    )


def too_early(made: pl.DataFrame, shown: pl.DataFrame) -> pl.DataFrame:
    """Give the feedback that happened before the impression that it names, with `shown_at`.

    Args: made: with `unsure`, as `pair` adds it.
    """
    unsure = made.filter(pl.col("unsure") & pl.col("impression_id").is_not_null())
    if unsure.is_empty() or shown.is_empty():
        return unsure.clear()
    key = ["impression_id", "user_id"]
    both = unsure.join(shown.select(*key, "shown_at").unique(key, keep="any"), on=key)
    return both.filter(pl.col("occurred_at") < pl.col("shown_at"))


def pair(rows: pl.DataFrame, shown: pl.DataFrame, window: timedelta) -> pl.DataFrame:
    """Add `impression_id` to events, in their order, and `unsure`: no impression within the window before."""
    rows = rows.with_row_index("__order")
    if shown.is_empty():
        return rows.with_columns(impression_id=pl.col("impression"), unsure=pl.lit(value=True)).drop(
            "__order"
        )
    named = _by_request(rows, shown)
    instants = shown.select(*_PAIR, "shown_at", by_time="impression_id").sort("shown_at", "by_time")
    dated = named.sort("at", "__order").join_asof(
        instants,
        left_on="at",
        right_on="shown_at",
        by=_PAIR,
        strategy="backward",
        tolerance=window,
        check_sortedness=False,
    )
    found = dated.with_columns(
        impression_id=pl.coalesce("impression", "by_request", "by_time"), unsure=pl.col("by_time").is_null()
    )
    return found.sort("__order").drop("__order", "by_request", "by_time", "shown_at", strict=False)


def _by_request(rows: pl.DataFrame, shown: pl.DataFrame) -> pl.DataFrame:
    """Add `by_request`: the impression of the request, user and item that an event names.

    Where a request's id comes again, it is the latest one until then; else the first: clocks differ.
    """
    place = ["request", *_PAIR]
    if rows["request"].null_count() == rows.height:
        return rows.with_columns(by_request=pl.lit(None, pl.String))
    request = pl.coalesce("request", "request_id")
    listed = shown.select(*_PAIR, "shown_at", request=request, by_request="impression_id")
    first = listed.unique(place, keep="first", maintain_order=True)
    named = rows.join(first.drop("shown_at"), on=place, how="left")
    if first.height == listed.height:
        return named
    latest = named.sort("at", "__order").join_asof(
        listed.sort("shown_at", "by_request").rename({"by_request": "latest"}),
        left_on="at",
        right_on="shown_at",
        by=place,
        strategy="backward",
        check_sortedness=False,
    )
    return latest.with_columns(by_request=pl.coalesce("latest", "by_request")).drop("latest", "shown_at")


def reach(rows: pl.DataFrame, window: timedelta, timezone: str, days: Sequence[date]) -> list[date]:
    """List the days whose impressions the events of a day may belong to.

    An event that names its request may come later than the window; its list is looked for a week back.
    """
    if rows["request"].null_count() < rows.height:
        window = max(window, _REQUEST_REACH)
    bounds = rows.select(
        first=(pl.col("at").min() - window).dt.convert_time_zone(timezone).dt.date(),
        last=pl.col("at").max().dt.convert_time_zone(timezone).dt.date(),
    )
    first, last = bounds.row(0)
    return [day for day in days if first <= day <= last]
