"""FEATURES: the one place a feature is defined: name, entity, kind, freshness, and what it is computed from.

Nightly features come from the snapshot published before the request and never move during the day; live ones
(history, context) are read at request time. The encoder evaluates these definitions for training rows and
for the online store alike, so the two cannot drift apart.
"""

from dataclasses import dataclass
from typing import Literal

from recsys.config import Entity, RunConfig
from recsys.errors import ConfigError
from recsys.tasks import TaskSpec

Freshness = Literal["nightly", "live"]
Transform = Literal["raw", "log", "rate", "mean"]
LIFETIME = "life"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A number, transformed and then standardised with statistics of training days only.

    raw: x. log: sign(x)·log(1+|x|). rate: logit of (x + s·p) / (of + s), p the overall rate.
    mean: (x + s·m) / (of + s), m the overall mean.
    """

    name: str
    entity: Entity
    freshness: Freshness
    transform: Transform
    column: str
    of: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSet:
    """All model inputs of a config, in a fixed order."""

    categorical: tuple[Categorical, ...]
    numbers: tuple[Number, ...]
    history_kinds: tuple[str, ...]
    """One entry per kind code - 1; kinds with a value have one entry per whole step of it: `rating=4`."""

    def categorical_of(self, entity: Entity) -> tuple[Categorical, ...]:
        """Select one entity's categorical features."""
        return tuple(f for f in self.categorical if f.entity == entity)

    def numbers_of(self, entity: Entity) -> tuple[Number, ...]:
        """Select one entity's numbers."""
        return tuple(f for f in self.numbers if f.entity == entity)


def define_features(config: RunConfig) -> FeatureSet:
    """List every feature of a config; nothing else in the project decides what a feature is.

    Raises: ConfigError when two features have one name.
    """
    found = FeatureSet(
        categorical=tuple(_categorical(config)),
        numbers=tuple(_numbers(config)),
        history_kinds=tuple(_history_kinds(config)),
    )
    names = [c.name for c in found.categorical] + [n.name for n in found.numbers]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"two features are called {name!r}: a [[feature]] takes a standard name; rename it"
            )
    return found


def windows(config: RunConfig) -> tuple[str, ...]:
    """Name the aggregation windows: days as text, then the lifetime."""
    return (*(str(days) for days in config.features.window_days), LIFETIME)


def _categorical(config: RunConfig) -> list[Categorical]:
    features = config.features
    found = [
        Categorical(
            name="item_id", entity="item", freshness="nightly", column="item_id", vocabulary="item_id",
            dim=features.item_id_dim,
        ),
        Categorical(
            name="category", entity="item", freshness="nightly", column="category", vocabulary="category",
            dim=features.category_dim,
        ),
        Categorical(name="hour", entity="context", freshness="live", column="hour", vocabulary="hour", dim=4),
        Categorical(
            name="weekday", entity="context", freshness="live", column="weekday", vocabulary="weekday", dim=4
        ),
    ]  # fmt: skip
    if features.user_id_dim:
        found.insert(
            0,
            Categorical(
                name="user_id", entity="user", freshness="nightly", column="user_id", vocabulary="user_id",
                dim=features.user_id_dim,
            ),
        )  # fmt: skip
    found += [
        Categorical(
            name=f"{a.entity}_{a.name}",
            entity=a.entity,
            freshness="live" if a.entity == "context" else "nightly",
            column=a.column,
            vocabulary=f"{a.entity}_{a.name}",
            dim=a.dim,
        )
        for a in config.attributes
        if a.kind == "categorical"
    ]
    return found


def _numbers(config: RunConfig) -> list[Number]:
    found = [Number(name="item_price", entity="item", freshness="nightly", transform="log", column="price")]
    found += [
        Number(
            name=f"{a.entity}_{a.name}",
            entity=a.entity,
            freshness="live" if a.entity == "context" else "nightly",
            transform="log" if a.log else "raw",
            column=a.column,
        )
        for a in config.attributes
        if a.kind == "number"
    ]
    found += [
        feature for entity, prefix in _aggregated(config) for feature in _aggregates(config, entity, prefix)
    ]
    found.append(_nightly("user", "user_hours_since_feedback", "log", "hours_since_feedback"))
    found.append(_nightly("item", "item_hours_since_feedback", "log", "hours_since_feedback"))
    found.append(_nightly("item", "item_age_hours", "log", "age_hours"))
    return found


def _aggregated(config: RunConfig) -> list[tuple[Entity, str]]:
    groups: list[tuple[Entity, str]] = [("item", f"by_{group}__") for group in config.features.group_items_by]
    return [("user", ""), ("item", ""), *groups]


def _aggregates(config: RunConfig, entity: Entity, prefix: str) -> list[Number]:
    found = []
    for window in windows(config):
        impressions = f"{prefix}impressions_{window}"
        stem = f"{entity}_{prefix}"
        found.append(_nightly(entity, f"{stem}impressions_{window}", "log", impressions))
        for task in config.tasks:
            count = f"{prefix}{task.name}_count_{window}"
            found.append(_nightly(entity, f"{stem}{task.name}_count_{window}", "log", count))
            if task.is_binary:
                found.append(_nightly(entity, f"{stem}{task.name}_rate_{window}", "rate", count, impressions))
            else:
                total = f"{prefix}{task.name}_halves_{window}"
                found.append(_nightly(entity, f"{stem}{task.name}_mean_{window}", "mean", total, count))
    return found


def _nightly(entity: Entity, name: str, transform: Transform, column: str, of: str = "") -> Number:
    return Number(name=name, entity=entity, freshness="nightly", transform=transform, column=column, of=of)


def _history_kinds(config: RunConfig) -> list[str]:
    valued = {t.feedback: t for t in config.tasks if not t.is_binary}
    found: list[str] = []
    for kind in config.features.history_kinds:
        found += _steps(kind, valued[kind]) if kind in valued else [kind]
    return found


def _steps(kind: str, task: TaskSpec) -> list[str]:
    return [f"{kind}={value}" for value in range(round(task.low), round(task.high) + 1)]
