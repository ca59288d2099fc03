"""The inputs of the model, feature by feature, as a config defines them."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from features.definitions import FeatureSet, define_features
from features.kinds.feature import Feature
from recsys.config import RunConfig

COLUMNS = ("name", "entity", "kind", "freshness", "from")


def list_features(config: RunConfig) -> list[dict[str, str]]:
    """Describe each feature of a config: name, entity, kind, freshness, and where it comes from."""
    features = define_features(config)
    rows = [_feature(f, f.entity) for f in features.all]
    rows += [_feature(f, f"user x {c.group}") for c in features.crosses for f in c.numbers]
    names = features.past.names if features.past else ()
    rows += [_row(name, "user x item", "number", "live", "what the user took, item-item") for name in names]
    return rows + _sequences_and_text(features, config)


def print_features(rows: Sequence[dict[str, str]]) -> None:
    """Print the list as one table."""
    table = Table(*COLUMNS, title=f"{len(rows)} features")
    for row in rows:
        table.add_row(*(row[column] for column in COLUMNS))
    Console(width=None if Console().is_terminal else 140).print(table)


def _feature(feature: Feature, entity: str) -> dict[str, str]:
    return _row(feature.name, entity, feature.label, feature.freshness, feature.source)


def _sequences_and_text(features: FeatureSet, config: RunConfig) -> list[dict[str, str]]:
    own = config.features
    found = []
    if own.history_length and features.history:
        kinds = (f"{k.name} (in bins of its value)" if k.values else k.name for k in features.history)
        source = f"last {own.history_length} of {', '.join(kinds)}, with kind and age"
        found.append(_row("history", "user", "sequence", "live", source))
    if own.text_dim:
        model = own.text_model or "TF-IDF + SVD"
        found.append(_row("item_text", "item", f"text ({model})", "nightly", ", ".join(own.text_columns)))
    return found


def _row(name: str, entity: str, kind: str, freshness: str, source: str) -> dict[str, str]:
    return dict(zip(COLUMNS, (name, entity, kind, freshness, source), strict=True))
