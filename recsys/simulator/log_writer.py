"""Writes the shop's log day by day: the canonical tables, and the true probabilities beside them.

`LOG/truth/date=…/simulated.parquet` has impression_id, p_click, p_purchase (per impression), expected_rating.
`LOG/truth/shop.json` holds what the shop is rebuilt from. Feedback is stored under the day on which it was
received, so late feedback makes partitions after the log's last day.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Final

import numpy as np
import polars as pl

from recsys.log import InteractionLog, business_day
from recsys.schema import INSTANT, PARTITION_INSTANT, with_absent_columns
from recsys.simulator.behaviour import SimulatedFeedback, draw_received_ms
from recsys.simulator.dials import DAY_MS, BoolArray, FloatArray, IntArray
from recsys.simulator.ground_truth import ImpressionArrays
from recsys.simulator.logging_policy import (
    CANDIDATE_SOURCES,
    POLICY_NAME,
    Candidates,
    Slates,
    draw_candidates,
    draw_slates,
    policy_parameters,
    utilities,
)
from recsys.simulator.population import DEVICES
from recsys.simulator.randomness import Stream, stream
from recsys.simulator.shop import SHOP_FILE, Shop, ShopFile

SURFACE: Final = "home"
STEM: Final = "simulated"
_HOUR_SHARES: Final = np.array(
    [2, 1, 1, 1, 1, 2, 3, 5, 5, 5, 5, 5, 6, 6, 5, 5, 5, 6, 7, 8, 9, 8, 6, 3], dtype=np.float64
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DayTables:
    """One simulated day: canonical tables, the true probabilities, and all feedback on its impressions."""

    requests: pl.DataFrame
    impressions: pl.DataFrame
    feedback: pl.DataFrame
    truth: pl.DataFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class _RequestArrays:
    """The users, devices and instants of R requests."""

    users: IntArray
    devices: IntArray
    requested_ms: IntArray


@dataclass(slots=True, kw_only=True)
class LogCounts:
    """Row counts of a log."""

    rows: dict[str, int] = field(default_factory=dict)

    def add(self, table: str, rows: int) -> None:
        """Add rows of a table or of a feedback kind."""
        self.rows[table] = self.rows.get(table, 0) + rows

    @property
    def click_rate(self) -> float:
        """Return clicks per impression."""
        return self.rows.get("click", 0) / max(1, self.rows.get("impressions", 0))

    @property
    def purchase_rate(self) -> float:
        """Return purchases per click."""
        return self.rows.get("purchase", 0) / max(1, self.rows.get("click", 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What another policy than the shop's own showed R requests of a day."""

    slates: Slates
    explored: BoolArray
    """[R]: the page was drawn."""
    policy: str
    policy_parameters: str
    """JSON."""
    bundle_version: str


Serve = Callable[[pl.DataFrame], Served]
"""Answers a day's requests [R] (user_id, requested_at, context_device), each with a page of one length."""


def write_log(shop: Shop, log: InteractionLog) -> Iterator[tuple[date, LogCounts]]:
    """Write the log of all the dials' days; yield (day, counts so far) after each."""
    counts = LogCounts()
    write_shop(shop, log)
    undelivered = pl.DataFrame()
    for number in range(shop.dials.days):
        day = shop.dials.date_of(number)
        tables = simulate_day(shop, day)
        counts.add("requests", tables.requests.height)
        counts.add("impressions", tables.impressions.height)
        counts.add("feedback", tables.feedback.height)
        for kind, rows in tables.feedback.group_by("kind").len().sort("kind").iter_rows():
            counts.add(kind, rows)
        undelivered = write_day(shop, log, day, tables, undelivered, counts)
        yield day, counts
    write_feedback(log, undelivered)


def write_day(
    shop: Shop,
    log: InteractionLog,
    day: date,
    tables: DayTables,
    undelivered: pl.DataFrame,
    counts: LogCounts,
) -> pl.DataFrame:
    """Write one day, with the feedback that it receives; give the feedback that is still to come."""
    _write_users_and_items(shop, log, day, counts)
    log.write("requests", day, tables.requests, STEM)
    log.write("impressions", day, tables.impressions, STEM)
    _write_truth(log, day, tables.truth)
    pending = pl.concat([undelivered, tables.feedback]) if undelivered.height else tables.feedback
    due = business_day("received_at", "UTC") <= day
    write_feedback(log, pending.filter(due))
    return pending.filter(~due)


def write_shop(shop: Shop, log: InteractionLog) -> None:
    """Write the file that `Shop.from_log` reads."""
    path = log.root / "truth" / SHOP_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = ShopFile(seed=shop.seed, dials=shop.dials)
    path.write_text(kept.model_dump_json(indent=2) + "\n", encoding="utf-8")


def simulate_day(shop: Shop, day: date, serve: Serve | None = None) -> DayTables:
    """Simulate one day. The result depends on the shop and the date only, not on other simulated days.

    Args: serve: answers the requests in place of the shop's own policy; who asks, and when, stays as it is.
    """
    number = shop.dials.day_number(day)
    rng = stream(shop.seed, Stream.LOG, number)
    count = int(rng.poisson(shop.dials.requests_per_day))
    users = shop.draw_users(number, count, rng)
    requested_ms = number * DAY_MS + shop.dials.first_ms + _times_of_day(count, rng)
    candidates = draw_candidates(shop, number, count, rng)
    utility = utilities(shop, number, users, candidates)
    slates = draw_slates(candidates, utility, shop.dials.page_size, rng)
    devices = _devices(shop, users, rng)
    requested = _RequestArrays(users=users, devices=devices, requested_ms=requested_ms)
    requests = _requests(shop, day, requested, candidates, rng)
    explored: BoolArray = np.zeros(count, dtype=np.bool_)
    if serve is not None:
        served = serve(requests)
        requests, slates, explored = _served_requests(requests, served), served.slates, served.explored
    arrays = _arrays(
        slates, number, users, devices, (requested_ms - shop.dials.first_ms) % DAY_MS // 3_600_000
    )
    impressions = _impressions(requests, slates, explored)
    probabilities = shop.truth.probabilities(arrays)
    shown_ms = np.repeat(requested_ms, slates.items.shape[1])
    simulated = shop.draw_feedback(probabilities, arrays.items, shown_ms, rng)
    truth = pl.DataFrame(
        {
            "impression_id": impressions["impression_id"],
            "p_click": probabilities.click,
            "p_purchase": probabilities.click * probabilities.purchase_given_click,
            "expected_rating": shop.truth.expected_rating(probabilities),
        }
    )
    feedback = _feedback(shop, impressions, simulated, rng)
    return DayTables(requests=requests, impressions=impressions, feedback=feedback, truth=truth)


def _times_of_day(count: int, rng: np.random.Generator) -> IntArray:
    hours = rng.choice(24, size=count, p=_HOUR_SHARES / _HOUR_SHARES.sum())
    times: IntArray = np.sort(hours * 3_600_000 + rng.integers(3_600_000, size=count))
    return times


def _devices(shop: Shop, users: IntArray, rng: np.random.Generator) -> IntArray:
    other = rng.integers(len(DEVICES), size=len(users))
    devices: IntArray = np.where(rng.random(len(users)) < 0.2, other, shop.users.device[users])
    return devices


def _arrays(
    slates: Slates, number: int, users: IntArray, devices: IntArray, hours: IntArray
) -> ImpressionArrays:
    count, size = slates.items.shape
    return ImpressionArrays(
        users=np.repeat(users, size),
        items=slates.items.ravel(),
        days=np.full(count * size, number, dtype=np.int64),
        hours=np.repeat(hours, size),
        devices=np.repeat(devices, size),
        positions=np.tile(np.arange(1, size + 1, dtype=np.int64), count),
    )


def _requests(
    shop: Shop, day: date, requested: _RequestArrays, candidates: Candidates, rng: np.random.Generator
) -> pl.DataFrame:
    count = len(requested.users)
    logged = np.flatnonzero(rng.random(count) < shop.dials.candidates_logged)
    item_names = np.array(shop.item_ids(candidates.available), dtype=object)
    source_names = np.array(CANDIDATE_SOURCES, dtype=object)
    sets: list[list[str] | None] = [None] * count
    sources: list[list[str] | None] = [None] * count
    for row in logged:
        first = candidates.first[row]
        sets[row] = item_names[candidates.place[row, first]].tolist()
        sources[row] = source_names[candidates.source[row, first]].tolist()
    return pl.DataFrame(
        {"number": np.arange(count), "user": requested.users, "requested_at": requested.requested_ms}
    ).select(
        request_id=pl.format(f"r{day:%Y%m%d}-{{}}", pl.col("number").cast(pl.String).str.zfill(6)),
        user_id=_id("user", "u"),
        session_id=pl.lit(None, dtype=pl.String),
        surface=pl.lit(SURFACE),
        requested_at=pl.col("requested_at").cast(INSTANT),
        filters=pl.lit(None, dtype=pl.String),
        page_size=pl.lit(shop.dials.page_size, dtype=pl.Int32),
        policy=pl.lit(POLICY_NAME),
        policy_parameters=pl.lit(json.dumps(policy_parameters(shop.dials))),
        bundle_version=pl.lit(None, dtype=pl.String),
        degradation=pl.lit(None, dtype=pl.List(pl.String)),
        candidates=pl.Series(sets, dtype=pl.List(pl.String)),
        candidate_sources=pl.Series(sources, dtype=pl.List(pl.String)),
        context_device=pl.Series([DEVICES[d] for d in requested.devices], dtype=pl.String),
    )


def _served_requests(requests: pl.DataFrame, served: Served) -> pl.DataFrame:
    """Say who answered; the shop's own candidates had no part in it."""
    return requests.with_columns(
        policy=pl.lit(served.policy),
        policy_parameters=pl.lit(served.policy_parameters),
        bundle_version=pl.lit(served.bundle_version),
        candidates=pl.lit(None, dtype=pl.List(pl.String)),
        candidate_sources=pl.lit(None, dtype=pl.List(pl.String)),
    )


def _impressions(requests: pl.DataFrame, slates: Slates, explored: BoolArray) -> pl.DataFrame:
    count, size = slates.items.shape
    rows = pl.Series(np.repeat(np.arange(count, dtype=np.uint32), size))
    frame = requests.select("request_id", "user_id", "requested_at", "context_device")[rows]
    return frame.with_columns(
        item=pl.Series(slates.items.ravel()),
        position=pl.Series(np.tile(np.arange(1, size + 1, dtype=np.int32), count)),
        propensity=pl.Series(slates.propensity.ravel()),
        explored=pl.Series(np.repeat(explored, size)),
    ).select(
        impression_id=pl.format("{}:{}", "request_id", "position"),
        request_id="request_id",
        user_id="user_id",
        item_id=_id("item", "i"),
        shown_at="requested_at",
        position="position",
        propensity="propensity",
        propensity_kind=pl.lit("exact"),
        explored="explored",
        sampled=pl.lit(False),
        sampling_rate=pl.lit(1.0),
        context_device="context_device",
    )


def _feedback(
    shop: Shop, impressions: pl.DataFrame, simulated: SimulatedFeedback, rng: np.random.Generator
) -> pl.DataFrame:
    frames = []
    for events in simulated.events:
        received_ms = draw_received_ms(shop.dials, events.occurred_ms, rng)
        shown = impressions.select("impression_id", "user_id", "item_id")[pl.Series(events.row)]
        frames.append(
            shown.with_columns(_event_columns(events.kind, events.value, events.occurred_ms, received_ms))
        )
    columns = [
        "feedback_id",
        "impression_id",
        "user_id",
        "item_id",
        "kind",
        "value",
        "occurred_at",
        "received_at",
    ]
    stacked = pl.concat(frames)
    return stacked.select(
        pl.format("{}:{}", "impression_id", "kind").alias("feedback_id"), *columns[1:]
    ).sort("received_at", "feedback_id")


def _event_columns(
    kind: str, value: FloatArray, occurred_ms: IntArray, received_ms: IntArray
) -> list[pl.Series | pl.Expr]:
    return [
        pl.lit(kind).alias("kind"),
        pl.Series("value", value).fill_nan(None),
        pl.Series("occurred_at", occurred_ms).cast(INSTANT),
        pl.Series("received_at", received_ms).cast(INSTANT),
    ]


def _write_users_and_items(shop: Shop, log: InteractionLog, day: date, counts: LogCounts) -> None:
    for table, frame in (("users", shop.users_frame(day)), ("items", shop.items_frame(day))):
        if frame.height:
            log.write(table, day, frame, STEM)
        counts.add(table, frame.height)


def write_feedback(log: InteractionLog, feedback: pl.DataFrame) -> None:
    """File feedback under the days on which it was received."""
    if feedback.height:
        instant = PARTITION_INSTANT["feedback"]
        whole = with_absent_columns("feedback", feedback).sort(instant, "feedback_id")
        log.write_by_day("feedback", whole, business_day(instant, "UTC"), STEM)


def _write_truth(log: InteractionLog, day: date, truth: pl.DataFrame) -> None:
    target = log.root / "truth" / f"date={day}" / f"{STEM}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    truth.write_parquet(target, compression="zstd", compression_level=1)


def _id(column: str, prefix: str) -> pl.Expr:
    return pl.lit(prefix) + pl.col(column).cast(pl.String).str.zfill(6)
