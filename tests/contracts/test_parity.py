"""Ten thousand random (user, time) pairs: what a server reads is what a training row holds, bit for bit."""

import dataclasses
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from features.build import build_snapshots, item_rows
from features.definitions import reversals
from features.encode import Encoder
from features.fit import FitFrames, fit_encoder
from features.online import OnlineFeatures, item_group
from features.packing import pack_users
from features.sequences import history_slices, minutes_of
from features.store import Event, open_store
from recsys.config import StoreConfig
from recsys.inputs import Bag
from recsys.log import InteractionLog, period_end
from recsys.stages import Stages
from training.crosses import cross_numbers
from training.data import encode_day

PAIRS = 10_000
FEW = 500


@pytest.fixture(scope="module")
def parity_config(make_config):
    tasks = [t.model_dump(mode="json") for t in make_config().tasks]
    value = {"head": "regression", "window": "1d", "space": "observed", "low": 0}
    tasks.append({"name": "watch", "feedback": "watch", **value, "high": 600, "step": 0.1})
    tasks.append({"name": "share", "feedback": "share", **value, "high": 1, "step": 0.01})
    return make_config(
        task=tasks,
        feature=[
            {"name": "device", "entity": "context", "kind": "categorical"},
            {"name": "country", "entity": "user", "kind": "categorical"},
            {"name": "age", "entity": "user", "kind": "number", "log": True},
            {"name": "income", "entity": "user", "kind": "number", "bins": 5},
            {"name": "likes", "entity": "user", "kind": "multi_hot"},
        ],
        features={
            "ingestion_lag": "2s",
            "history_kinds": ["click", "purchase", "rating", "watch", "share"],
            "history_length": 10,
            "cross_user_by": [
                "category",
                "attribute_maker",
                "item_id",
            ],  # the second is a number that is an id
            "organic_base": "view",
        },
    )


@pytest.fixture(scope="module")
def day(shop_log, parity_config, tmp_path_factory):
    """Build five days whose last one has a request of a random user at 10,000 random instants."""
    root = tmp_path_factory.mktemp("parity")
    log = InteractionLog(root / "log")
    days = shop_log.days("impressions")[:5]
    altered = {"users": _with_attributes, "items": _with_makers, "feedback": _with_organic}
    for table in ("impressions", "feedback", "items", "users"):
        for d in (d for d in shop_log.days(table) if d <= days[-1]):
            rows = shop_log.read(table, d)
            log.write(table, d, altered[table](rows) if table in altered else rows)
    log.write("feedback", days[-1], _busier(_with_organic(shop_log.read("feedback", days[-1]))))
    log.write("impressions", days[-1], _random_requests(shop_log, days, days[-1]))
    chain = build_snapshots(log, days[-1], parity_config, Stages(root / "stages"))
    assert chain[-1].manifest["rows"]["impressions"] == PAIRS
    return root, chain


def _with_attributes(users):
    position = pl.int_range(pl.len())
    return users.with_columns(
        attribute_age=pl.when(position % 4 > 0).then(20.5 + position / 7),
        attribute_income=pl.when(position % 9 > 0).then((position % 11) / 3.7),
        attribute_likes=pl.when(position % 3 > 0).then(
            pl.concat_list((position % 4).cast(pl.String), pl.lit("x"))
        ),
    )


def _with_makers(items):
    number = pl.col("item_id").str.extract(r"(\d+)$").cast(pl.Int64)
    return items.with_columns(attribute_maker=pl.when(number % 9 > 0).then(number % 5))


def _with_watch(feedback):
    """Give every click seconds and a share of its own, or none, some beyond the range of the task."""
    clicks = feedback.filter(pl.col("kind") == "click")
    seconds = (pl.int_range(pl.len()) * 7.31) ** 1.4 % 640
    parts = [
        clicks.with_columns(
            feedback_id=pl.col("feedback_id") + f"-{kind}",
            kind=pl.lit(kind),
            value=pl.when(pl.int_range(pl.len()) % 11 > 0).then(seconds / longest),
        )
        for kind, longest in (("watch", 1), ("share", 600))
    ]
    return pl.concat([feedback, *parts])


def _with_organic(feedback):
    """Add what users did on their own: a view for every click, and every third time a click with it."""
    clicks = feedback.filter(pl.col("kind") == "click").with_columns(impression_id=None)
    views = clicks.with_columns(feedback_id=pl.col("feedback_id") + "-view", kind=pl.lit("view"))
    again = clicks.gather_every(3).with_columns(feedback_id=pl.col("feedback_id") + "-organic")
    return pl.concat([_with_watch(feedback), views, again])


def _busier(feedback):
    """Repeat the day's events for other users and instants, with reversals, ties and one retried event."""
    moved = feedback.with_columns(
        feedback_id=pl.col("feedback_id") + "-again",
        user_id=pl.col("user_id").reverse(),
        received_at=pl.col("received_at").dt.truncate("10m").clip(lower_bound=pl.col("occurred_at")),
        impression_id=None,
    )
    undone = moved.filter(pl.col("kind") == "purchase").with_columns(
        feedback_id=pl.col("feedback_id") + "-undone", kind=pl.lit("refund")
    )
    early = pl.col("received_at").dt.date() == pl.lit(feedback["received_at"][0].date())
    return pl.concat([feedback, moved, undone, feedback.head(20)]).filter(early)


def _random_requests(log, days, last):
    rng = np.random.default_rng(7)
    known = pl.concat([log.read("impressions", d) for d in days])
    users = [*known["user_id"].unique().sort().to_list(), "a stranger", "another one"]
    items = pl.concat([log.read("items", d) for d in log.days("items")])["item_id"].unique().sort().to_list()
    start = datetime(last.year, last.month, last.day, tzinfo=UTC)
    moments = rng.integers(0, 86_400_000, PAIRS)
    # A third of the requests stand within milliseconds of an event becoming visible.
    received = log.read("feedback", last)["received_at"].dt.epoch("ms").to_numpy()
    near = rng.choice(received, PAIRS) - int(start.timestamp() * 1000) + 2000 + rng.integers(-1, 2, PAIRS)
    moments = np.where(rng.random(PAIRS) < 1 / 3, np.clip(near, 0, 86_399_999), moments)
    base = known.head(1).drop("impression_id", "request_id", "user_id", "item_id", "shown_at", "position")
    return pl.DataFrame(
        {
            "impression_id": [f"p{n}:1" for n in range(PAIRS)],
            "request_id": [f"p{n}" for n in range(PAIRS)],
            "user_id": rng.choice(users, PAIRS),
            "item_id": rng.choice(items, PAIRS),
            "shown_at": [start + timedelta(milliseconds=int(m)) for m in moments],
            "position": pl.Series([1] * PAIRS, dtype=pl.Int32),
            "context_device": rng.choice(["phone", "tv", "toaster"], PAIRS),
        },
        schema_overrides={"shown_at": known.schema["shown_at"]},
    ).join(base.drop("context_device"), how="cross")


@pytest.fixture(scope="module")
def encoder(day, parity_config):
    frames = FitFrames.read(day[1][3], day[1][:4], parity_config)
    return Encoder.from_config(parity_config, fit_encoder(parity_config, frames, None, 0))


@pytest.fixture(scope="module")
def offline(day, encoder, parity_config):
    chain = day[1]
    return encode_day(encoder, chain, chain.last, parity_config.tasks)


@pytest.fixture(scope="module")
def store(day, encoder, tmp_path_factory):
    chain = day[1]
    # A user whose read takes longer than the timeout is answered as an unknown one: here none may be.
    opened = open_store(StoreConfig(read_timeout_ms=60_000), tmp_path_factory.mktemp("store"))
    opened.publish("v", pack_users(chain[-2], encoder), {}, 0)
    feedback = pl.concat([s.table("feedback") for s in chain[-2:]])
    rows = feedback.with_columns(received_at_ms=pl.col("received_at").dt.epoch("ms"))
    names = list(Event._fields)
    opened.append(Event(**row) for row in rows.select(names).iter_rows(named=True))
    return opened


HISTORY = ("history_items", "history_kinds", "history_ages", "history_minutes")


def _served(online, offline, items, rows):
    """Read the pairs one by one as a server would; give every value by name."""
    groups = [
        dict(zip(items["item_id"], item_group(items, c.group), strict=True))
        for c in online.encoder.features.crosses
    ]
    found: dict[str, list[np.ndarray]] = {}
    bags: list[list[np.ndarray]] = []
    for row in rows:
        impression = offline.frame.row(int(row), named=True)
        at_ms = int(offline.shown_at[row])
        user = online.user(impression["user_id"], at_ms)
        assert not user.degraded
        context = online.context({"device": impression["context_device"]}, at_ms, user.live)
        crosses = []
        for cross, group in zip(user.inputs.crosses, groups, strict=True):
            key = group.get(impression["item_id"])
            crosses.append(cross.numbers[cross.keys.index(key) if key in cross.keys else -1])
        values = {
            "ids": user.inputs.ids,
            "numbers": user.inputs.numbers,
            "context_ids": context.ids,
            "context_numbers": context.numbers,
            "crosses": np.concatenate(crosses),
        }
        for name, value in values.items():
            found.setdefault(name, []).append(value)
        inputs = user.inputs
        bags.append([*(getattr(inputs, name) for name in HISTORY), *inputs.bags])
    joined = {name: np.stack(values) for name, values in found.items()}
    names = [*HISTORY, *(f"bag_{n}" for n in range(len(bags[0]) - len(HISTORY)))]
    return joined | {name: _bag([b[n] for b in bags]) for n, name in enumerate(names)}


def _bag(lists):
    return Bag(np.concatenate(lists), np.concatenate([[0], np.cumsum([x.size for x in lists])]))


def _trained(encoded, config, rows):
    """Give the same values as a training row holds them."""
    users, features = encoded.users.take(encoded.user_row[rows]), config.features
    lag_ms = 1000 * features.ingestion_lag
    history = history_slices(
        encoded.start[rows],
        encoded.stop[rows],
        features.history_length,
        encoded.shown_at[rows],
        lag_ms,
        encoded.events,
    )
    contexts = encoded.contexts.take(rows)
    minutes = minutes_of(encoded.events.at[history.events])
    parts = (history.items, history.kinds, history.ages, minutes)
    return {
        "ids": users.ids,
        "numbers": users.numbers,
        "context_ids": contexts.ids,
        "context_numbers": contexts.numbers,
        "crosses": cross_numbers(encoded.crosses, encoded.user_row[rows], encoded.item_row[rows]),
        **{name: Bag(v, history.offsets) for name, v in zip(HISTORY, parts, strict=True)},
        **{f"bag_{n}": bag for n, bag in enumerate(users.bags)},
    }


def _compare(day, offline, online, config, rows):
    chain = day[1]
    served = _served(online, offline, item_rows(chain[-2], chain[-1]), rows)
    trained = _trained(offline, config, rows)
    assert list(served) == list(trained)
    for name, value in trained.items():
        if isinstance(value, Bag):
            np.testing.assert_array_equal(served[name].values, value.values, err_msg=name)
            np.testing.assert_array_equal(served[name].offsets, value.offsets, err_msg=name)
        else:
            np.testing.assert_array_equal(served[name], value, err_msg=name)


def _online(day, store, config, encoder):
    at_ms = int(period_end(day[1][-2].day, "UTC").timestamp() * 1000)
    return OnlineFeatures(store, "v", config, encoder, at_ms)


def test_ten_thousand_pairs_are_equal_bit_for_bit(day, offline, store, parity_config, encoder):
    rows = np.arange(PAIRS)
    _compare(day, offline, _online(day, store, parity_config, encoder), parity_config, rows)
    trained = _trained(offline, parity_config, rows)
    assert (np.diff(trained["history_kinds"].offsets) > 0).mean() > 0.5, "the comparison must cover histories"
    bins = set(range(4, encoder.num_history_kinds + 1))
    assert len(bins) > 24, "half stars, seconds and shares"
    assert bins <= set(np.unique(trained["history_kinds"].values)), "… every bin of a value"
    events = offline.events
    assert (events.void < events.void.max()).any(), "… and what was taken back"
    for name in ("numbers", "context_numbers", "crosses"):
        assert (np.ptp(trained[name], axis=0) > 0).mean() > 0.7, f"… and {name} that vary"


def _other_transform(online):
    numbers = tuple(
        dataclasses.replace(f, transform="raw") if f.name == "user_click_count_life" else f
        for f in online.encoder.features.numbers
    )
    online.encoder = _with_features(online.encoder, numbers=numbers)


def _other_cross(online):
    cross = online.encoder.features.crosses[0]
    numbers = tuple(
        dataclasses.replace(f, column="click_count_7") if f.column == "click_count_life" else f
        for f in cross.numbers
    )
    changed = (dataclasses.replace(cross, numbers=numbers),)
    online.encoder = _with_features(online.encoder, crosses=changed)


def _other_organic(online):
    cross = online.encoder.features.crosses[0]
    numbers = tuple(
        dataclasses.replace(f, of="organic_base_1") if f.column == "click_organic_life" else f
        for f in cross.numbers
    )
    changed = (dataclasses.replace(cross, numbers=numbers),)
    online.encoder = _with_features(online.encoder, crosses=changed)


def _with_features(encoder, **changes):
    return dataclasses.replace(encoder, features=dataclasses.replace(encoder.features, **changes))


def _other_lag(online):
    features = online.config.features.model_copy(update={"ingestion_lag": 1})
    online.config = online.config.model_copy(update={"features": features})


def _no_reversals(online):
    assert online._undone_by == reversals(online.config.tasks)
    online._undone_by = {}


def _other_day(online):
    online.snapshot_at_ms -= 1 + 86_400_000 // 2


@pytest.mark.parametrize(
    "change",
    [_other_transform, _other_cross, _other_organic, _other_lag, _no_reversals, _other_day],
    ids=lambda f: f.__name__,
)
def test_a_definition_changed_on_one_side_is_found(day, offline, store, parity_config, encoder, change):
    online = _online(day, store, parity_config, encoder)
    change(online)
    rows = np.random.default_rng(1).permutation(PAIRS)[:FEW]
    with pytest.raises(AssertionError):
        _compare(day, offline, online, parity_config, rows)
