"""FEATURE_KINDS: what the `kind` of a `[[feature]]` may be. One entry says everything that a kind is.

To add one: a file here with a class that derives from `IdFeature`, `BagFeature` or `NumberFeature`, and one
line in the table. No other code knows the kinds.
"""

from pydantic import ValidationError

from features.kinds.categorical import CATEGORICAL
from features.kinds.feature import Feature, FeatureKind
from features.kinds.multi_hot import MULTI_HOT
from features.kinds.number import NUMBER
from recsys.config import FeatureConfig, FeaturesConfig
from recsys.errors import ConfigError
from recsys.settings import explain

FEATURE_KINDS: dict[str, FeatureKind] = {
    "categorical": CATEGORICAL,
    "multi_hot": MULTI_HOT,
    "number": NUMBER,
}


def define_declared(declared: FeatureConfig, features: FeaturesConfig) -> Feature:
    """Check a `[[feature]]` and make the model's input of it.

    Raises: ConfigError for an unknown kind, an entity that the kind is not for, and options that it does not
    read; it lists what is known.
    """
    where = f"[[feature]] {declared.name!r} of entity {declared.entity!r}"
    kind = FEATURE_KINDS.get(declared.kind)
    if kind is None:
        raise ConfigError(f"{where}: kind = {declared.kind!r} is unknown; known: {', '.join(FEATURE_KINDS)}")
    if declared.entity not in kind.entities:
        others = (name for name, other in FEATURE_KINDS.items() if declared.entity in other.entities)
        raise ConfigError(
            f"{where}: kind = {declared.kind!r} is for {' and '.join(kind.entities)} only; kinds for "
            f"{declared.entity!r}: {', '.join(others)}"
        )
    try:
        options = kind.options.model_validate(declared.options)
    except ValidationError as error:
        raise ConfigError(explain(error, f"{where} of kind {declared.kind!r}", kind.options)) from error
    return kind.define(declared, options, features)
