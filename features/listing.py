"""The inputs of the model, feature by feature, as a config defines them."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from features.definitions import Categorical, FeatureSet, Number, define_features
from recsys.config import RunConfig

COLUMNS = ("name", "entity", "kind", "freshness", "from")


def list_features(config: RunConfig) -> list[dict[str, str]]:
    """Describe each feature of a config: name, entity, kind, freshness, and where it comes from."""
    features = define_features(config)
    rows = [_looked_up(f) for f in features.categorical]
    rows += [_row(m.name, m.entity, "multi-hot", m.freshness, m.column) for m in features.multi_hot]
    rows += [_number(n, n.entity) for n in features.numbers]
    rows += [_number(n, f"user x {c.group}") for c in features.crosses for n in c.numbers]
    return rows + _sequences_and_text(features, config)


def print_features(rows: Sequence[dict[str, str]]) -> None:
    """Print the list as one table."""
    table = Table(*COLUMNS, title=f"{len(rows)} features")
    for row in rows:
        table.add_row(*(row[column] for column in COLUMNS))
    Console(width=None if Console().is_terminal else 140).print(table)


def _looked_up(feature: Categorical) -> dict[str, str]:
    kind = f"number in {feature.bins} bins" if feature.bins else "categorical"
    return _row(feature.name, feature.entity, kind, feature.freshness, feature.column)


def _number(feature: Number, entity: str) -> dict[str, str]:
    source = f"{feature.column} / {feature.of}" if feature.of else feature.column
    return _row(feature.name, entity, f"number ({feature.transform})", feature.freshness, source)


def _sequences_and_text(features: FeatureSet, config: RunConfig) -> list[dict[str, str]]:
    own = config.features
    found = []
    if own.history_length and features.history:
        source = (
            f"last {own.history_length} of {', '.join(own.history_kinds)}, with kind, binned value and age"
        )
        found.append(_row("history", "user", "sequence", "live", source))
    if own.text_dim:
        model = own.text_model or "TF-IDF + SVD"
        found.append(_row("item_text", "item", f"text ({model})", "nightly", ", ".join(own.text_columns)))
    return found


def _row(name: str, entity: str, kind: str, freshness: str, source: str) -> dict[str, str]:
    return dict(zip(COLUMNS, (name, entity, kind, freshness, source), strict=True))
