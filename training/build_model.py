"""Config and fitted encoder -> ranker and tables, as a cold start begins with them, and their sizes."""

from collections.abc import Sequence
from dataclasses import asdict

from features.encode import Encoder
from features.kinds.feature import BagFeature, IdFeature, NumberFeature
from recsys.config import RunConfig
from recsys.encoding import EncoderState
from recsys.model.embeddings import LocalTables, TableSpec
from recsys.model.input_sizes import Inputs
from recsys.model.ranker import Ranker
from recsys.tasks import TaskSpec


def build_model(
    config: RunConfig,
    state: EncoderState,
    tasks: Sequence[TaskSpec] | None = None,
    *,
    loaded: bool = False,
) -> tuple[Ranker, LocalTables]:
    """Build a ranker and its tables as a cold start begins with them.

    Args: loaded: all weights are loaded next, so no table is drawn.
    """
    seed = None if loaded else config.training.seed
    tables = LocalTables(table_specs(config, state), config.training.sparse_learning_rate, seed)
    return build_ranker(config, state, tasks), tables


def build_ranker(config: RunConfig, state: EncoderState, tasks: Sequence[TaskSpec] | None = None) -> Ranker:
    """Build a ranker as a cold start begins with it."""
    return Ranker(ranker_inputs(config, state), config.tasks if tasks is None else tasks, config.model)


def table_specs(config: RunConfig, state: EncoderState) -> tuple[TableSpec, ...]:
    """Derive the embedding tables from the features."""
    by_name = {f.vocabulary: f.dim for f in Encoder.from_config(config, state).features.looked_up}
    return tuple(TableSpec(name=n, size=state.vocabularies[n].size, dim=d) for n, d in by_name.items())


def ranker_inputs(config: RunConfig, state: EncoderState) -> Inputs:
    """Derive the ranker's input sizes from the features; item_id comes first among the item's tables."""
    encoder = Encoder.from_config(config, state)
    features = encoder.features

    def tables(found: Sequence[IdFeature | BagFeature]) -> tuple[tuple[str, str, int], ...]:
        return tuple((f.name, f.vocabulary, f.dim) for f in found)

    def numbers(found: Sequence[NumberFeature]) -> tuple[tuple[str, int], ...]:
        return tuple((f.name, f.width) for f in found)

    return Inputs(
        user_tables=tables(features.ids_of("user")),
        item_tables=tables(features.ids_of("item")),
        context_tables=tables(features.ids_of("context")),
        user_bags=tables(features.bags_of("user")),
        item_bags=tables(features.bags_of("item")),
        user_numbers=numbers(features.numbers_of("user")),
        item_numbers=numbers(features.numbers_of("item")),
        context_numbers=numbers(features.numbers_of("context")),
        cross_numbers=tuple(n for cross in features.crosses for n in numbers(cross.numbers)),
        history_kinds=encoder.history_kinds,
        text_dim=config.features.text_dim,
        past_numbers=tuple((name, 1) for name in features.past.names) if features.past else (),
    )


def inputs_json(inputs: Inputs) -> dict[str, object]:
    """Give the input sizes as JSON values for the manifest."""
    return {k: [list(t) for t in v] if isinstance(v, tuple) else v for k, v in asdict(inputs).items()}
