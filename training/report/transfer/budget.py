"""The models that are trained for one head alone, all together as large as the shared one."""

from collections.abc import Sequence

import torch

from features.kinds import define_declared
from features.kinds.feature import BagFeature, IdFeature
from recsys.config import FeatureConfig, FeaturesConfig, RunConfig
from recsys.encoding import EncoderState
from recsys.errors import ConfigError
from recsys.model.ranker import Ranker
from recsys.tasks import TaskSpec
from training.build_model import ranker_inputs, table_specs

TOLERANCE = 0.1


def count_parameters(config: RunConfig, state: EncoderState, tasks: Sequence[TaskSpec]) -> int:
    """Count a model's parameters, rows of its tables included, without allocating them."""
    with torch.device("meta"):
        ranker = Ranker(ranker_inputs(config, state), tasks, config.model)
    return sum(p.numel() for p in ranker.parameters()) + sum(
        spec.size * spec.dim for spec in table_specs(config, state)
    )


def alone(task: TaskSpec) -> TaskSpec:
    """Give a task that stands for itself: no parent's product, no transfer, a loss that counts."""
    return task.model_copy(update={"parent": None, "transfer_from": None, "weight": task.weight or 1.0})


def matched(
    config: RunConfig, state: EncoderState, task: TaskSpec, wanted: int
) -> tuple[RunConfig, TaskSpec]:
    """Scale every width of a model of one head by one factor, until it has the wanted number of parameters.

    Widths are those of tables, towers, attention, trunk and head. Features stay those of all the tasks, as
    the shared model has them; the retrieval loss is left out: it is a task of its own.
    Raises: ConfigError when rounding keeps the model further away than the tolerance.
    """
    config = config.model_copy(update={"retrieval": config.retrieval.model_copy(update={"weight": 0.0})})
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        chosen, head = _scaled(config, middle), _head(alone(task), middle)
        if count_parameters(chosen, state, [head]) < wanted:
            low = middle
        else:
            high = middle
    options = [(_scaled(config, f), _head(alone(task), f)) for f in (low, high)]
    best = min(options, key=lambda option: abs(count_parameters(option[0], state, [option[1]]) - wanted))
    size = count_parameters(best[0], state, [best[1]])
    if abs(size - wanted) > TOLERANCE * wanted:
        raise ConfigError(
            f"no model of {task.name!r} alone has its share of {wanted:,} parameters: the nearest has "
            f"{size:,}; give the shared model wider tables and layers"
        )
    return best


def _scaled(config: RunConfig, factor: float) -> RunConfig:
    features, model = config.features, config.model
    return config.model_copy(
        update={
            "attributes": tuple(_declared(a, config.features, factor) for a in config.attributes),
            "features": features.model_copy(
                update={
                    name: _width(getattr(features, name), factor)
                    for name in ("item_id_dim", "user_id_dim", "category_dim")
                }
            ),
            "model": model.model_copy(
                update={
                    "trunk": model.trunk.model_copy(
                        update={"hidden": tuple(_width(w, factor) for w in model.trunk.hidden)}
                    ),
                    "embedding_dim": max(2, _width(model.embedding_dim, factor)),
                    **{
                        name: _width(getattr(model, name), factor)
                        for name in ("head_hidden", "tower_hidden", "attention_dim")
                    },
                }
            ),
        }
    )


def _declared(declared: FeatureConfig, features: FeaturesConfig, factor: float) -> FeatureConfig:
    feature = define_declared(declared, features)
    if isinstance(feature, IdFeature | BagFeature):
        return declared.model_copy(update={"dim": _width(feature.dim, factor)})
    return declared


def _head(task: TaskSpec, factor: float) -> TaskSpec:
    if task.hidden is None:
        return task
    return task.model_copy(update={"hidden": tuple(_width(w, factor) for w in task.hidden)})


def _width(width: int, factor: float) -> int:
    return max(1, round(width * factor)) if width else 0
