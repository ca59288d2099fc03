"""`recsys data features`: what the model is fed, feature by feature, as a config defines it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from features.definitions import Categorical, FeatureSet, Number, define_features
from recsys.config import RunConfig, default_config, load_config
from recsys.stages import require_place, write_json

COLUMNS = ("name", "entity", "kind", "freshness", "from")


def features_command(
    config: Annotated[Path | None, typer.Option(help="TOML file; default: the simulated shop's.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the list here.")] = None,
) -> None:
    """List every feature with its entity, kind, freshness, and the columns it is computed from."""
    require_place(json_file)
    rows = list_features(load_config(config) if config else default_config())
    if json_file is not None:
        write_json(json_file, rows)
    table = Table(*COLUMNS, title=f"{len(rows)} features")
    for row in rows:
        table.add_row(*(row[column] for column in COLUMNS))
    Console(width=None if Console().is_terminal else 140).print(table)


def list_features(config: RunConfig) -> list[dict[str, str]]:
    """Describe each feature of a config: name, entity, kind, freshness, and where it comes from."""
    features = define_features(config)
    rows = [_looked_up(f) for f in features.categorical]
    rows += [_row(m.name, m.entity, "multi-hot", m.freshness, m.column) for m in features.multi_hot]
    rows += [_number(n, n.entity) for n in features.numbers]
    rows += [_number(n, f"user x {c.group}") for c in features.crosses for n in c.numbers]
    return rows + _sequences_and_text(features, config)


def _looked_up(feature: Categorical) -> dict[str, str]:
    kind = f"number in {feature.bins} bins" if feature.bins else "categorical"
    return _row(feature.name, feature.entity, kind, feature.freshness, feature.column)


def _number(feature: Number, entity: str) -> dict[str, str]:
    source = f"{feature.column} / {feature.of}" if feature.of else feature.column
    return _row(feature.name, entity, f"number ({feature.transform})", feature.freshness, source)


def _sequences_and_text(features: FeatureSet, config: RunConfig) -> list[dict[str, str]]:
    own = config.features
    found = []
    if own.history_length and features.history_kinds:
        source = f"last {own.history_length} of {', '.join(own.history_kinds)}, with kind and age"
        found.append(_row("history", "user", "sequence", "live", source))
    if own.text_dim:
        model = own.text_model or "TF-IDF + SVD"
        found.append(_row("item_text", "item", f"text ({model})", "nightly", ", ".join(own.text_columns)))
    return found


def _row(name: str, entity: str, kind: str, freshness: str, source: str) -> dict[str, str]:
    return dict(zip(COLUMNS, (name, entity, kind, freshness, source), strict=True))
