"""FEATURES: the one place a feature is defined: name, entity, kind, freshness, and what it is computed from.

Nightly features come from the snapshot published before the request and never move during the day; live ones
(history, context, counters since the snapshot) are read at request time. The encoder evaluates these
definitions for training rows and for the online store alike, so the two cannot drift apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from recsys.config import Entity, FeatureConfig, RunConfig
from recsys.errors import ConfigError
from recsys.schema import SESSION_MERGED
from recsys.tasks import TaskSpec

Freshness = Literal["nightly", "live"]
Transform = Literal["raw", "log", "rate", "mean"]
LIFETIME = "life"
LIVE = "live"
LIVE_AGE = "live_seconds"
"""Column of the seconds since the user's last feedback after the snapshot."""
HISTORY_AGE_BUCKETS = 20
"""Ages of events in powers of two minutes: under 1 min, 1-2, 2-4, … up to about a year."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Categorical:
    """An id looked up in an embedding table."""

    name: str
    entity: Entity
    freshness: Freshness
    column: str
    """Column of the entity's frame, or of the request's context."""
    vocabulary: str
    """Features naming the same vocabulary share numbers and one table."""
    dim: int
    bins: int = 0
    """0: the column holds ids. Else: a number, cut into so many bins, each bin an id of its own."""
    log: bool = False
    """Take sign(x)·log(1+|x|) before binning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiHot:
    """A list of ids; the feature is the mean of their rows, zeros for an empty list."""

    name: str
    entity: Entity
    freshness: Freshness
    column: str
    vocabulary: str
    dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A number, transformed and then standardised with statistics of training days only.

    raw: x. log: sign(x)·log(1+|x|). rate: logit of (x + s·p) / (of + s), p the overall rate.
    mean: (unit·x + s·m) / (of + s), m the overall mean.
    """

    name: str
    entity: Entity
    freshness: Freshness
    transform: Transform
    column: str
    of: str = ""
    unit: float = 1.0
    """What one unit of a mean's column is worth: aggregates hold whole steps of a value."""


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
class FeatureSet:
    """All model inputs of a config, in a fixed order."""

    categorical: tuple[Categorical, ...]
    multi_hot: tuple[MultiHot, ...]
    numbers: tuple[Number, ...]
    crosses: tuple[Cross, ...]
    history: tuple[HistoryKind, ...]

    def categorical_of(self, entity: Entity) -> tuple[Categorical, ...]:
        """Select one entity's categorical features."""
        return tuple(f for f in self.categorical if f.entity == entity)

    def multi_hot_of(self, entity: Entity) -> tuple[MultiHot, ...]:
        """Select one entity's multi-hot features."""
        return tuple(f for f in self.multi_hot if f.entity == entity)

    def numbers_of(self, entity: Entity) -> tuple[Number, ...]:
        """Select one entity's numbers."""
        return tuple(f for f in self.numbers if f.entity == entity)

    @property
    def looked_up(self) -> tuple[Categorical | MultiHot, ...]:
        """Give everything that is looked up in an embedding table."""
        return (*self.categorical, *self.multi_hot)


def define_features(config: RunConfig) -> FeatureSet:
    """List every feature of a config; nothing else in the project decides what a feature is.

    Raises: ConfigError when two features have one name.
    """
    found = FeatureSet(
        categorical=tuple(_categorical(config)),
        multi_hot=tuple(_multi_hot(config)),
        numbers=tuple(_numbers(config)),
        crosses=tuple(_cross(config, group) for group in config.features.cross_user_by),
        history=_history(config),
    )
    names = [f.name for f in (*found.looked_up, *found.numbers)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"two features are called {name!r}: a [[feature]] takes a standard name; rename it"
            )
    return found


def windows(config: RunConfig) -> tuple[str, ...]:
    """Name the aggregation windows: days as text, then the lifetime."""
    return (*(str(days) for days in config.features.window_days), LIFETIME)


def live_count(task: TaskSpec) -> str:
    """Name the column that counts a task's feedback since the snapshot."""
    return f"{LIVE}_{task.name}_count"


def reversals(tasks: Sequence[TaskSpec]) -> dict[str, str]:
    """Map each kind that can be taken back to the kind that does so."""
    return {t.feedback: t.reversal for t in tasks if t.reversal is not None}


def live_kinds(config: RunConfig) -> frozenset[str]:
    """Name the feedback kinds that change what the next request sees: history, counters, reversals."""
    counted = (t.feedback for t in config.tasks) if config.features.live_counters else ()
    never_again = config.policy.exclude_seen_kinds
    taken_back = reversals(config.tasks).values()
    return frozenset({*config.features.history_kinds, *counted, *never_again, *taken_back, SESSION_MERGED})


def _categorical(config: RunConfig) -> list[Categorical]:
    features = config.features
    found = [
        _standard("item_id", "item", features.item_id_dim),
        _standard("category", "item", features.category_dim),
        _standard("hour", "context", 4),
        _standard("weekday", "context", 4),
    ]
    if features.user_id_dim:
        found.insert(0, _standard("user_id", "user", features.user_id_dim))
    found += [
        Categorical(
            name=f"{a.entity}_{a.name}",
            entity=a.entity,
            freshness=_freshness(a),
            column=a.column,
            vocabulary=f"{a.entity}_{a.name}",
            dim=a.dim,
            bins=a.bins,
            log=a.log,
        )
        for a in config.attributes
        if a.kind == "categorical" or a.bins
    ]
    return found


def _standard(name: str, entity: Entity, dim: int) -> Categorical:
    freshness: Freshness = "live" if entity == "context" else "nightly"
    return Categorical(name=name, entity=entity, freshness=freshness, column=name, vocabulary=name, dim=dim)


def _multi_hot(config: RunConfig) -> list[MultiHot]:
    return [
        MultiHot(
            name=f"{a.entity}_{a.name}",
            entity=a.entity,
            freshness=_freshness(a),
            column=a.column,
            vocabulary=f"{a.entity}_{a.name}",
            dim=a.dim,
        )
        for a in config.attributes
        if a.kind == "multi_hot"
    ]


def _freshness(declared: FeatureConfig) -> Freshness:
    """Attributes stand as of the snapshot; what a request brings along is of the moment."""
    return "live" if declared.entity == "context" else "nightly"


def _numbers(config: RunConfig) -> list[Number]:
    found = [Number(name="item_price", entity="item", freshness="nightly", transform="log", column="price")]
    found += [
        Number(
            name=f"{a.entity}_{a.name}",
            entity=a.entity,
            freshness=_freshness(a),
            transform="log" if a.log else "raw",
            column=a.column,
        )
        for a in config.attributes
        if a.kind == "number" and not a.bins
    ]
    found += [
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
    """List counts, rates and means per window, and the recency; columns carry the prefix, names the stem.

    Counts are of all feedback; a rate is of impressions, so it counts what names one.
    """
    found = []
    for window in windows(config):
        impressions = f"{prefix}impressions_{window}"
        found.append(_nightly(entity, f"{stem}impressions_{window}", "log", impressions))
        for task in config.tasks:
            count = f"{prefix}{task.name}_count_{window}"
            found.append(_nightly(entity, f"{stem}{task.name}_count_{window}", "log", count))
            if task.kind.aggregate == "rate":
                shown = f"{prefix}{task.name}_shown_{window}"
                found.append(_nightly(entity, f"{stem}{task.name}_rate_{window}", "rate", shown, impressions))
            else:
                name, total = f"{stem}{task.name}_mean_{window}", f"{prefix}{task.name}_halves_{window}"
                found.append(_nightly(entity, name, "mean", total, count, unit=task.step))
    found.append(_nightly(entity, f"{stem}hours_since_feedback", "log", f"{prefix}hours_since_feedback"))
    return found


def _cross(config: RunConfig, group: str) -> Cross:
    return Cross(group=group, numbers=tuple(_aggregates(config, "user", "", f"user_by_{group}__")))


def _nightly(
    entity: Entity, name: str, transform: Transform, column: str, of: str = "", *, unit: float = 1.0
) -> Number:
    return Number(
        name=name, entity=entity, freshness="nightly", transform=transform, column=column, of=of, unit=unit
    )


def _live(column: str) -> Number:
    """A live counter is a value of the request: the user's snapshot does not move during the day."""
    return Number(name=f"user_{column}", entity="context", freshness="live", transform="log", column=column)


def _history(config: RunConfig) -> tuple[HistoryKind, ...]:
    ranges = {t.feedback: (t.low, t.high) for t in config.tasks if t.kind.history == "bins"}
    return tuple(HistoryKind(name=k, values=ranges.get(k)) for k in config.features.history_kinds)
