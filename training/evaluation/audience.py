"""Who gets a ranked list on a period, from which catalogue, and what would have been right.

A user is in the audience with feedback before the period (a past) and a positive label of the retrieval task
in it. Their state is that of the period's start: nothing of the period itself is known but the context of
their first request. The catalogue is every item available at some moment of the period, never a sample.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import polars as pl

from features.build import item_rows
from features.days import Days
from features.live_state import LiveState
from recsys.config import RunConfig, period_start
from recsys.log import period_end
from recsys.schema import IMPRESSION_KEY
from recsys.snapshot import DaySnapshot
from recsys.tasks import TaskSpec
from training.data import scoring


@dataclass(frozen=True, slots=True)
class Opening(DaySnapshot):
    """A period as a request at its very start sees it: yesterday's events, one row per user."""

    tables: Mapping[str, pl.DataFrame]

    def table(self, name: str, part: int | None = None, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Give one of the tables that encoding reads, whole; a choice of users has no parts."""
        assert part is None, part
        assert columns is None, columns
        return self.tables[name]

    def examples(self, part: int | None = None) -> pl.DataFrame:
        """Give the requests; their slices are of all events."""
        return self.table("examples", part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """The users [U] of one period, their catalogue [I] and their relevant items."""

    opening: Opening
    previous: DaySnapshot
    requests: pl.DataFrame
    """The first impression of each user in the period, in the order of U."""
    catalogue: pl.DataFrame
    available: np.ndarray
    """bool [I]."""
    hidden: tuple[np.ndarray, np.ndarray]
    """(user, item) pairs that may not be listed: what the policy would not show again."""
    offsets: np.ndarray
    """User u's relevant item rows are codes[offsets[u] : offsets[u + 1]]; unknown items lie past I."""
    codes: np.ndarray
    again: tuple[np.ndarray, np.ndarray] | None
    """The same, offsets and codes, of relevant items that the user had given the task's feedback before.

    None: nobody asked."""

    @property
    def day(self) -> date:
        """Name the period."""
        return self.opening.day

    @property
    def num_users(self) -> int:
        """Count the users."""
        return self.requests.height

    @property
    def num_hidden(self) -> int:
        """Count the wanted items that the policy hides from the user who wanted them."""
        wanted = np.repeat(np.arange(self.num_users), np.diff(self.offsets))
        stride = max(self.catalogue.height, int(self.codes.max(initial=0)) + 1)
        hidden = np.unique(self.hidden[0] * stride + self.hidden[1])
        return int(np.isin(wanted * stride + self.codes, hidden).sum())

    def without_exclusion(self) -> "Audience":
        """Give the same users, from whom nothing is hidden."""
        nobody = np.zeros(0, np.int64)
        return replace(self, hidden=(nobody, nobody))

    def allowed(self, users: slice) -> np.ndarray:
        """Give which items may be listed to some of the users: bool [U, I]."""
        found = np.repeat(self.available[None], len(range(*users.indices(self.num_users))), axis=0)
        inside = (self.hidden[0] >= users.start) & (self.hidden[0] < users.stop)
        found[self.hidden[0][inside] - users.start, self.hidden[1][inside]] = False
        return found


def find_audience(
    days: Days, i: int, config: RunConfig, *, max_users: int | None, seed: int, again: bool = True
) -> Audience:
    """Find the audience of day i > 0; with more than max_users of them, a seeded choice.

    Args: again: tell what they had before as well, for which the feedback of all days before i is read.
    """
    task = config.retrieval_task
    assert task is not None, "without a binary task nothing is retrieved"
    past = days[i - 1].table("users").filter(pl.col("last_feedback_at").is_not_null())["user_id"]
    relevant = _wanted(days, i, task)
    users = _choose(relevant.filter(pl.col("user_id").is_in(past.implode()))["user_id"], max_users, [seed, i])
    return _audience_of(days, i, config, users, relevant, again=again)


def shown_audience(days: Days, i: int, config: RunConfig, *, max_users: int, seed: int) -> Audience:
    """Take everybody whom day i > 0 showed anything, or a seeded choice of them, whatever they did then."""
    task = config.retrieval_task
    assert task is not None, "without a binary task nothing is retrieved"
    shown = pl.concat([rows.select("user_id") for rows in _examples(days[i])])["user_id"]
    users = _choose(shown, max_users, [seed, i])
    return _audience_of(days, i, config, users, _wanted(days, i, task), again=False)


def coming_audience(previous: DaySnapshot, day: date, requests: pl.DataFrame, config: RunConfig) -> Audience:
    """Take requests [U] that are still to be answered, on a day that has no snapshot yet.

    A user may come several times; nothing is known of what will be wanted, and no item is new.
    Args: previous: the day before; requests: request_id, user_id, shown_at and the context's columns.
    """
    examples, items = previous.table("examples"), previous.table("items")
    rows = requests.with_columns(
        impression_id=pl.format("{}:1", "request_id"), item_id=pl.lit(items["item_id"][0])
    )
    blank = examples.clear().drop(LiveState.of(config).columns, strict=False)
    asked = pl.concat([blank, rows.select(c for c in blank.columns if c in rows.columns)], how="diagonal")
    asked = asked.with_columns(pl.lit(1).cast(asked["position"].dtype).alias("position"))
    users = requests["user_id"].unique().sort()
    tail = previous.table("tail").join(users.to_frame("user_id"), on="user_id", how="semi")
    tail = tail.sort("user_id", "received_at", "feedback_id")
    state = LiveState.of(config).find(asked, tail, previous.table("feedback").clear())
    tables = {
        "examples": asked.hstack(state),
        "events": tail,
        "new_items": previous.table("new_items").clear(),
    }
    seen = previous.table("seen").filter(
        pl.col("kind").is_in(list(config.policy.excluded_kinds)), pl.col("user_id").is_in(users.implode())
    )
    user, item = _hidden(users, seen, items["item_id"])
    places = pl.DataFrame({"user": item_codes(requests["user_id"], users)}).with_row_index("place")
    hidden = places.join(pl.DataFrame({"user": user, "item": item}), on="user")
    return Audience(
        opening=Opening(day, previous.path, tables),
        previous=previous,
        requests=asked,
        catalogue=items,
        available=_available(items, day, config),
        hidden=(hidden["place"].cast(pl.Int64).to_numpy(), hidden["item"].to_numpy()),
        offsets=np.zeros(requests.height + 1, np.int64),
        codes=np.zeros(0, np.int64),
        again=None,
    )


def _audience_of(
    days: Days, i: int, config: RunConfig, users: pl.Series, relevant: pl.DataFrame, *, again: bool
) -> Audience:
    snapshot, previous, task = days[i], days[i - 1], config.retrieval_task
    assert task is not None, "without a binary task nothing is retrieved"
    parts = [
        rows.join(users.to_frame(), on="user_id", how="semi", maintain_order="left")
        for rows in _examples(snapshot)
    ]
    requests = (
        users.to_frame()
        .join(pl.concat(parts).drop(LiveState.of(config).columns, strict=False), on="user_id", how="left")
        .sort("user_id", "shown_at", "request_id", "position")
        .unique("user_id", keep="first", maintain_order=True)
    )
    catalogue = item_rows(previous, snapshot)
    seen = _seen(days, i, config, users, everything=again)
    tail = previous.table("tail").join(users.to_frame(), on="user_id", how="semi", maintain_order="left")
    offsets, codes = _relevant(requests["user_id"], relevant, catalogue["item_id"])
    had = None
    if again:
        taken = relevant.join(_given(days, i, [task.feedback], users), on=["user_id", "item_id"], how="semi")
        had = _relevant(requests["user_id"], taken, catalogue["item_id"])
    return Audience(
        opening=_open(snapshot, requests, tail, config),
        previous=previous,
        requests=requests,
        catalogue=catalogue,
        available=_available(catalogue, snapshot.day, config),
        hidden=_hidden(requests["user_id"], seen, catalogue["item_id"]),
        offsets=offsets,
        codes=codes,
        again=had,
    )


def _wanted(days: Days, i: int, task: TaskSpec) -> pl.DataFrame:
    """List what each user of day i had a positive label for: user_id, item_id, each pair once."""
    positive = pl.concat(
        [
            rows.filter(pl.col(task.label) > 0.5).select(IMPRESSION_KEY)
            for rows in days.labels_in_pieces(i, scoring.PIECE_ROWS)
        ]
    )
    pairs = [
        rows.join(positive, on=IMPRESSION_KEY, how="semi").select("user_id", "item_id")
        for rows in _examples(days[i])
    ]
    return pl.concat(pairs).unique()


def _given(days: Days, i: int, kinds: Sequence[str], users: pl.Series) -> pl.DataFrame:
    """List the items that some users gave feedback of some kinds before day i: user_id, item_id."""
    mine = pl.col("kind").is_in(list(kinds)) & pl.col("user_id").is_in(users.implode())
    # Share by share: all days' feedback at once would not fit into memory.
    parts = [
        snapshot.table("feedback", part, columns=("user_id", "item_id", "kind"))
        .filter(mine)
        .select("user_id", "item_id")
        .unique()
        for snapshot in days[:i]
        for part in range(snapshot.num_parts)
    ]
    return pl.concat(parts).unique()


def _seen(days: Days, i: int, config: RunConfig, users: pl.Series, *, everything: bool) -> pl.DataFrame:
    """List what a bundle's policy does not show some users again: user_id, item_id.

    Args: everything: also of kinds that the snapshots do not keep, because the night's own policy shows them
    again: a champion of another policy is measured by its own. For these all days' feedback is read.
    """
    kinds, kept = set(config.policy.excluded_kinds), days[i - 1].table("seen")
    known = kept.filter(pl.col("kind").is_in(list(kinds)) & pl.col("user_id").is_in(users.implode()))
    found = known.select("user_id", "item_id")
    others = sorted(kinds - set(kept["kind"].unique()))
    if everything and others:
        found = pl.concat([found, _given(days, i, others, users)])
    return found.unique(maintain_order=True)


def _examples(snapshot: DaySnapshot) -> Iterator[pl.DataFrame]:
    """Read a day's examples in any order, so many at a time where they are many."""
    if snapshot.manifest["rows"]["impressions"] <= scoring.PIECE_ROWS:
        yield snapshot.table("examples")
        return
    for part in range(snapshot.num_parts):
        yield from snapshot.slices("examples", part, scoring.PIECE_ROWS)


def item_codes(wanted: pl.Series, items: pl.Series) -> np.ndarray:
    """Find each id's row in the catalogue; -1 where it has none."""
    found: np.ndarray = _rows(wanted, items).fill_null(-1).to_numpy()
    return found


def category_codes(catalogue: pl.DataFrame) -> np.ndarray:
    """Number the categories of items [I]; -1 where an item has none."""
    codes = catalogue["category"].rank("dense").cast(pl.Int64) - 1
    found: np.ndarray = codes.fill_null(-1).to_numpy()
    return found


def _choose(users: pl.Series, max_users: int | None, seed: Sequence[int]) -> pl.Series:
    found = users.unique().sort()
    if max_users is None or found.len() <= max_users:
        return found
    chosen = np.random.default_rng(seed).choice(found.len(), max_users, replace=False)
    return found.gather(np.sort(chosen))


def _open(snapshot: DaySnapshot, requests: pl.DataFrame, tail: pl.DataFrame, config: RunConfig) -> Opening:
    state = LiveState.of(config).find(requests, tail, snapshot.table("feedback").clear())
    tables = {
        "examples": requests.hstack(state),
        "events": tail,
        "new_items": snapshot.table("new_items"),
    }
    return Opening(snapshot.day, snapshot.path, tables)


def _available(catalogue: pl.DataFrame, day: date, config: RunConfig) -> np.ndarray:
    until = period_end(day, config.timezone)
    since = period_end(period_start(day, config.period) - timedelta(days=1), config.timezone)
    begun = (pl.col("available_from") < until).fill_null(value=True)
    lasting = (pl.col("available_until") > since).fill_null(value=True)
    found: np.ndarray = catalogue.select(begun & lasting).to_series().to_numpy()
    return found


def _hidden(users: pl.Series, seen: pl.DataFrame, items: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Pair users with the items that they have seen, ever: the tail would forget the older ones."""
    user, item = _rows(seen["user_id"], users), item_codes(seen["item_id"], items)
    return user.to_numpy()[item >= 0], item[item >= 0]


def _relevant(users: pl.Series, relevant: pl.DataFrame, items: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    found = relevant.with_columns(
        user=_rows(relevant["user_id"], users), item=_rows(relevant["item_id"], items)
    ).filter(pl.col("user").is_not_null())
    # An item the catalogue does not have is still one the user wanted: a number that no list can hold.
    found = found.sort("user", "item_id").with_columns(
        pl.col("item").fill_null(items.len() + pl.int_range(pl.len()))
    )
    counts = np.bincount(found["user"].to_numpy(), minlength=users.len())
    return np.concatenate([[0], np.cumsum(counts)]), found["item"].to_numpy().astype(np.int64)


def _rows(wanted: pl.Series, known: pl.Series) -> pl.Series:
    table = pl.DataFrame({"id": known, "row": np.arange(known.len(), dtype=np.int64)})
    return wanted.alias("id").to_frame().join(table, on="id", how="left", maintain_order="left")["row"]
