"""FEATURES: the one place a feature is defined: name, entity, kind, freshness, and what it is computed from.

Nightly features come from the snapshot published before the request and never move during the day; live ones
(history, context, counters since the snapshot) are read at request time. The encoder evaluates these
definitions for training rows and for the online store alike, so the two cannot drift apart.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from features.kinds import define_declared
from features.kinds.categorical import Categorical
from features.kinds.feature import BagFeature, Feature, Freshness, IdFeature, NumberFeature
from features.kinds.number import Number, Transform
from recsys.config import Entity, RunConfig, default_config, load_config
from recsys.errors import ConfigError
from recsys.schema import SESSION_MERGED
from recsys.tasks import TaskSpec
from recsys.user_sources import PLACE, REPEAT, SCORE

ITEM_ID = "item_id"
LIFETIME = "life"
ORGANIC_BASE = "organic_base"
"""Column of the organic feedback that other organic feedback is a share of, such as views."""
LIVE = "live"
LIVE_AGE = "live_seconds"
"""Column of the seconds since the user's last feedback after the snapshot."""
HISTORY_AGE_BUCKETS = 20
"""Ages of events in powers of two minutes: under 1 min, 1-2, 2-4, … up to about a year."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cross:
    """A user's own aggregates by a column of the candidate: entity user×item, nightly."""

    group: str
    numbers: tuple[Number, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryKind:
    """A feedback kind whose events histories hold."""

    name: str
    values: tuple[float, float] | None = None
    """Range of the event's value, which histories then show in bins; None: they show the event alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What a candidate is told by what its user took before it was shown: entity user×item, live."""

    names: tuple[str, ...]
    """Of its numbers, as `recsys.user_sources.PastNumbers` orders them."""
    config: RunConfig
    """It says which events take an item, and how the table of items' neighbours is made."""


@dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """All model inputs of a config, in a fixed order, by the form in which the model reads them."""

    ids: tuple[IdFeature, ...]
    """The first one of the item is `item_id`: the model takes its row for the item's own."""
    bags: tuple[BagFeature, ...]
    numbers: tuple[NumberFeature, ...]
    crosses: tuple[Cross, ...]
    history: tuple[HistoryKind, ...]
    past: Past | None = None

    def ids_of(self, entity: Entity) -> tuple[IdFeature, ...]:
        """Select one entity's ids."""
        return self._by_entity[entity][0]

    def bags_of(self, entity: Entity) -> tuple[BagFeature, ...]:
        """Select one entity's lists of ids."""
        return self._by_entity[entity][1]

    def numbers_of(self, entity: Entity) -> tuple[NumberFeature, ...]:
        """Select one entity's numbers."""
        return self._by_entity[entity][2]

    def width_of(self, entity: Entity) -> int:
        """Count the columns of one entity's numbers."""
        return sum(f.width for f in self.numbers_of(entity))

    @property
    def looked_up(self) -> tuple[IdFeature | BagFeature, ...]:
        """Give everything that is looked up in an embedding table."""
        return (*self.ids, *self.bags)

    @property
    def all(self) -> tuple[Feature, ...]:
        """Give every feature but crosses, histories and text."""
        return (*self.looked_up, *self.numbers)

    @cached_property
    def _by_entity(
        self,
    ) -> dict[Entity, tuple[tuple[IdFeature, ...], tuple[BagFeature, ...], tuple[NumberFeature, ...]]]:
        entities: tuple[Entity, ...] = ("user", "item", "context")
        return {
            e: (
                tuple(f for f in self.ids if f.entity == e),
                tuple(f for f in self.bags if f.entity == e),
                tuple(f for f in self.numbers if f.entity == e),
            )
            for e in entities
        }


def read_config(path: Path | None) -> RunConfig:
    """Read a config file, or without one the simulated shop's, and check all of it, its features too.

    Every command reads its config here: `recsys.config` knows keys and ranges, not the kinds of features.

    Raises: ConfigError naming the file, what is wrong, and what is known.
    """
    if path is None:
        return default_config()
    config = load_config(path)
    check_features(config, path)
    return config


def check_features(config: RunConfig, file: Path) -> None:
    """Check the features of a config that was read with `recsys.config` alone.

    Raises: ConfigError naming the file.
    """
    try:
        define_features(config)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def define_features(config: RunConfig) -> FeatureSet:
    """List every feature of a config; nothing else in the project decides what a feature is.

    Raises: ConfigError when a [[feature]] is not what its kind allows, or two features have one name.
    """
    declared = [define_declared(a, config.features) for a in config.attributes]
    found = FeatureSet(
        ids=(*_standard_ids(config), *(f for f in declared if isinstance(f, IdFeature))),
        bags=tuple(f for f in declared if isinstance(f, BagFeature)),
        numbers=(
            Number(name="item_price", entity="item", freshness="nightly", transform="log", column="price"),
            *(f for f in declared if isinstance(f, NumberFeature)),
            *_counted(config),
        ),
        crosses=tuple(_cross(config, group) for group in config.features.cross_user_by),
        history=_history(config),
        past=Past(names=past_names(config), config=config) if past_names(config) else None,
    )
    names = [f.name for f in found.all]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"two features are called {name!r}: a [[feature]] takes a standard name; rename it"
            )
    return found


def windows(config: RunConfig) -> tuple[str, ...]:
    """Name the aggregation windows: days as text, then the lifetime."""
    return (*(str(days) for days in config.features.window_days), LIFETIME)


def is_lifetime(feature: NumberFeature) -> bool:
    """Tell whether an aggregate is of the whole log up to the day."""
    return feature.name.endswith(f"_{LIFETIME}")


def organic_tasks(tasks: Sequence[TaskSpec], base: str) -> tuple[TaskSpec, ...]:
    """List the tasks whose organic feedback is a share of a base kind, which may be none."""
    return tuple(t for t in tasks if base and t.kind.aggregate == "rate" and t.feedback != base)


def live_count(task: TaskSpec) -> str:
    """Name the column that counts a task's feedback since the snapshot."""
    return f"{LIVE}_{task.name}_count"


def reversals(tasks: Sequence[TaskSpec]) -> dict[str, str]:
    """Map each kind that can be taken back to the kind that does so."""
    return {t.feedback: t.reversal for t in tasks if t.reversal is not None}


def live_kinds(config: RunConfig) -> frozenset[str]:
    """Name the feedback kinds that change what the next request sees: history, counters, reversals."""
    counted = (t.feedback for t in config.tasks) if config.features.live_counters else ()
    never_again = config.policy.excluded_kinds
    taken_back = reversals(config.tasks).values()
    return frozenset(
        {
            *config.features.history_kinds,
            *counted,
            *never_again,
            *config.taken_kinds,
            *taken_back,
            SESSION_MERGED,
        }
    )


def known_kinds(config: RunConfig) -> frozenset[str]:
    """Name all feedback kinds that a config speaks of; a server accepts no others."""
    base = config.features.organic_base
    labels = (task.feedback for task in config.tasks)
    return live_kinds(config).union(labels, [base] if base else [], config.serving.more_kinds)


def _standard_ids(config: RunConfig) -> list[Categorical]:
    features = config.features
    # Of the catalogue every id has a number: an unlisted one is best described by its content, so it is
    # number 0, not a bucket shared with other ids.
    found = [
        _standard("item_id", "item", features.item_id_dim),
        _standard("category", "item", features.category_dim),
        _standard("hour", "context", 4, ids=tuple(str(h) for h in range(24))),
        _standard("weekday", "context", 4, ids=tuple(str(d) for d in range(1, 8))),
    ]
    if features.user_id_dim:
        found.insert(0, _user_id(config))
    return found


def _standard(name: str, entity: Entity, dim: int, ids: tuple[str, ...] = ()) -> Categorical:
    freshness: Freshness = "live" if entity == "context" else "nightly"
    return Categorical(
        name=name, entity=entity, freshness=freshness, column=name, vocabulary=name, dim=dim,
        min_count=1, hash_buckets=0, ids=ids,
    )  # fmt: skip


def _user_id(config: RunConfig) -> Categorical:
    features = config.features
    return Categorical(
        name="user_id", entity="user", freshness="nightly", column="user_id", vocabulary="user_id",
        dim=features.user_id_dim, min_count=features.min_count, hash_buckets=features.hash_buckets,
        counted_by=(f"impressions_{LIFETIME}", *(f"{t.name}_count_{LIFETIME}" for t in config.tasks)),
    )  # fmt: skip


def _counted(config: RunConfig) -> list[Number]:
    """List what is counted of the log: aggregates, the item's age, live counters."""
    found = [
        feature
        for entity, prefix in _aggregated(config)
        for feature in _aggregates(config, entity, prefix, f"{entity}_{prefix}")
    ]
    found.append(_nightly("item", "item_age_hours", "log", "age_hours"))
    if config.features.live_counters:
        found += [_live(live_count(task)) for task in config.tasks]
        found.append(_live(LIVE_AGE))
    return found


def _aggregated(config: RunConfig) -> list[tuple[Entity, str]]:
    if not config.features.aggregates:
        return []
    groups: list[tuple[Entity, str]] = [("item", f"by_{group}__") for group in config.features.group_items_by]
    return [("user", ""), ("item", ""), *groups]


def _aggregates(config: RunConfig, entity: Entity, prefix: str, stem: str) -> list[Number]:
    """List counts, rates and means per window, and the recency; columns carry the prefix, names the stem."""
    found = [f for window in windows(config) for f in _of_window(config, entity, prefix, stem, window)]
    found.append(_nightly(entity, f"{stem}hours_since_feedback", "log", f"{prefix}hours_since_feedback"))
    return found


def _of_window(config: RunConfig, entity: Entity, prefix: str, stem: str, window: str) -> Iterator[Number]:
    """List the counts, rates and means of one window.

    Counts are of all feedback; a rate is of impressions, so it counts what names one; an organic rate is of
    what names none.
    """
    base = config.features.organic_base
    impressions = f"{prefix}impressions_{window}"
    yield _nightly(entity, f"{stem}impressions_{window}", "log", impressions)
    for task in config.tasks:
        count = f"{prefix}{task.name}_count_{window}"
        yield _nightly(entity, f"{stem}{task.name}_count_{window}", "log", count)
        if task.kind.aggregate == "rate":
            shown = f"{prefix}{task.name}_shown_{window}"
            yield _nightly(entity, f"{stem}{task.name}_rate_{window}", "rate", shown, impressions)
        else:
            name, total = f"{stem}{task.name}_mean_{window}", f"{prefix}{task.name}_steps_{window}"
            yield _nightly(entity, name, "mean", total, count, unit=task.step)
    if base:
        yield _nightly(entity, f"{stem}{ORGANIC_BASE}_{window}", "log", f"{prefix}{ORGANIC_BASE}_{window}")
    for task in organic_tasks(config.tasks, base):
        name, organic = (f"{task.name}_organic_rate_{window}", f"{prefix}{task.name}_organic_{window}")
        yield _nightly(entity, f"{stem}{name}", "rate", organic, f"{prefix}{ORGANIC_BASE}_{window}")


def _cross(config: RunConfig, group: str) -> Cross:
    """Count by a column of the candidate; by the item itself in the longest window alone (`in_windows`)."""
    stem, lengths = f"user_by_{group}__", config.features.window_days
    if group == ITEM_ID and lengths:
        return Cross(group=group, numbers=tuple(_of_window(config, "user", "", stem, str(max(lengths)))))
    return Cross(group=group, numbers=tuple(_aggregates(config, "user", "", stem)))


def _nightly(
    entity: Entity, name: str, transform: Transform, column: str, of: str = "", *, unit: float = 1.0
) -> Number:
    return Number(
        name=name, entity=entity, freshness="nightly", transform=transform, column=column, of=of, unit=unit
    )


def _live(column: str) -> Number:
    """A live counter is a value of the request: the user's snapshot does not move during the day."""
    return Number(name=f"user_{column}", entity="context", freshness="live", transform="log", column=column)


def past_names(config: RunConfig) -> tuple[str, ...]:
    """Name the numbers that a candidate has by what its user took before; none where no ranker reads them."""
    if not config.item_item.feature:
        return ()
    return (SCORE, PLACE, REPEAT) if config.policy.repeat == "learn" else (SCORE, PLACE)


def _history(config: RunConfig) -> tuple[HistoryKind, ...]:
    ranges = {t.feedback: (t.low, t.high) for t in config.tasks if t.kind.history == "bins"}
    return tuple(HistoryKind(name=k, values=ranges.get(k)) for k in config.features.history_kinds)
