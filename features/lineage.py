"""What a bundle's encoder has fitted -> what of it still holds under another config."""

from dataclasses import fields

from features.definitions import FeatureSet, define_features
from features.kinds.feature import Feature
from recsys.config import RunConfig
from recsys.encoding import EncoderState

_NOT_FITTED = ("freshness", "dim", "min_count", "hash_buckets", "ids", "counted_by")
"""What may change of a feature without a change of what was fitted; a vocabulary keeps its buckets."""


def still_fitted(old: EncoderState, before: RunConfig, now: RunConfig) -> EncoderState:
    """Leave out what a changed definition makes wrong: it is fitted anew, and what it fed starts fresh.

    Args: before: the config that `old` was fitted by. A feature that is gone takes its statistics along.
    """
    was, will = define_features(before), define_features(now)
    fitted_by, wanted = _definitions(was), _definitions(will)
    same = {name for name, definition in wanted.items() if fitted_by.get(name) == definition}
    of_vocabulary = {f.vocabulary: f.name for f in will.looked_up}
    text_keys = ("text_columns", "text_dim", "text_model")
    text_stays = all(getattr(before.features, key) == getattr(now.features, key) for key in text_keys)
    ranges = {kind.name: kind.values for kind in was.history}
    kinds = {kind.name for kind in will.history if ranges.get(kind.name) == kind.values}
    return EncoderState(
        vocabularies={v: kept for v, kept in old.vocabularies.items() if of_vocabulary.get(v) in same},
        numbers={name: kept for name, kept in old.numbers.items() if name in same},
        history={kind: edges for kind, edges in old.history.items() if kind in kinds},
        text=old.text if text_stays else None,
    )


def _definitions(features: FeatureSet) -> dict[str, tuple[object, ...]]:
    crosses = (number for cross in features.crosses for number in cross.numbers)
    return {feature.name: _definition(feature) for feature in (*features.all, *crosses)}


def _definition(feature: Feature) -> tuple[object, ...]:
    """Give what decides how a feature's values are read and fitted."""
    keys = [field.name for field in fields(feature) if field.name not in _NOT_FITTED]
    return (type(feature), *((key, getattr(feature, key)) for key in keys))
