"""What `recsys tune model` may change: keys of the config, their values, a config with drawn ones."""

import json
from collections.abc import Mapping
from typing import Any

import optuna

from recsys.config import RunConfig, parse_config
from recsys.config.tune import Choice, Dimension
from recsys.errors import ConfigError
from recsys.model.trunks import TRUNKS
from training.balancing import build_balancer
from training.night.run import check_names

Space = Mapping[str, Dimension]
_BALANCER = "training.balancer."
_SECTIONS = ("model", "training", "retrieval")
_TASK_KEYS = (
    "weight", "hidden", "loss", "learning_rate_scale", "list_weight", "debias", "transfer_from",
)  # fmt: skip
_FIXED = (
    "training.seed", "training.max_days", "training.stream_odds", "training.warm_scale", "training.refit",
    "training.threads",
    "retrieval.task", "retrieval.num_candidates", "retrieval.popular_candidates",
    "retrieval.repeat_candidates", "retrieval.fresh_candidates", "retrieval.exact_items",
    "retrieval.index_min_recall",
)  # fmt: skip
"""They choose the data, change only other nights, or only the server."""


def default_space(config: RunConfig) -> dict[str, Dimension]:
    """Give what is searched when `[tune.space]` says nothing."""
    space = {
        "training.learning_rate": Dimension(low=3e-4, high=1e-2, log=True),
        "training.sparse_learning_rate": Dimension(low=0.02, high=0.5, log=True),
        "training.batch_size": Dimension(choices=(512, 1024, 2048, 4096)),
        "training.weight_decay": Dimension(low=1e-7, high=1e-3, log=True),
        "model.trunk.name": Dimension(choices=tuple(sorted(TRUNKS))),
        "model.trunk.hidden": Dimension(choices=((64,), (128, 64), (256, 128))),
        "model.trunk.num_experts": Dimension(choices=(2, 4, 8)),
        "model.dropout": Dimension(low=0.0, high=0.3),
        "model.id_dropout": Dimension(low=0.0, high=0.3),
    }
    # A method that does not read the options of [training.balancer] as set could not be built.
    methods = tuple(name for name in ("fixed", "uncertainty", "dwa") if _reads_options(config, name))
    if len(methods) > 1:
        space["training.balancing"] = Dimension(choices=methods)
    if config.retrieval_task is not None and config.retrieval.weight:
        space["retrieval.weight"] = Dimension(low=0.1, high=2.0, log=True)
    # A common factor of all weights is a learning rate: the first task's stays.
    for task in config.tasks[1:]:
        if task.weight:
            space[f"task.{task.name}.weight"] = Dimension(
                low=task.weight / 10, high=task.weight * 10, log=True
            )
    return space


def space_of(config: RunConfig) -> dict[str, Dimension]:
    """Give `[tune.space]`, or the default one.

    Raises: ConfigError for a key that cannot be searched, or a value that the config refuses.
    """
    space = dict(config.tune.space) or default_space(config)
    for key, dimension in space.items():
        _require_searchable(key, config)
        ends = dimension.choices or (_number(dimension, dimension.low), _number(dimension, dimension.high))
        for value in ends:
            _require_known(with_values(config, {key: value}))
    _require_options_read(config, space)
    return space


def _require_known(config: RunConfig) -> None:
    """Refuse a name that a trial could not build. Raises: ConfigError."""
    try:
        check_names(config)
    except ConfigError as error:
        raise ConfigError(f"[tune.space] has a value that cannot be trained: {error}") from error


def _require_options_read(config: RunConfig, space: Space) -> None:
    """Refuse options of a balancing method beside methods that do not read them. Raises: ConfigError."""
    options = {k: d.choices[-1] if d.choices else d.high for k, d in space.items() if k.startswith(_BALANCER)}
    for method in space["training.balancing"].choices if "training.balancing" in space else ():
        for key, value in options.items():
            assert value is not None
            _require_known(with_values(config, {"training.balancing": method, key: value}))


def _reads_options(config: RunConfig, method: str) -> bool:
    try:
        build_balancer(method, {}, config.training.balancer)
    except ConfigError:
        return False
    return True


def suggest(trial: optuna.trial.BaseTrial, space: Space) -> dict[str, Choice]:
    """Draw a value for every key; lists are kept in a study as their JSON."""
    found: dict[str, Choice] = {}
    for key, d in space.items():
        if d.choices:
            named: list[Any] = [json.dumps(c) if isinstance(c, tuple) else c for c in d.choices]
            found[key] = d.choices[named.index(trial.suggest_categorical(key, named))]
            continue
        assert d.low is not None
        assert d.high is not None
        if d.whole:
            found[key] = trial.suggest_int(key, int(d.low), int(d.high), log=d.log)
        else:
            found[key] = trial.suggest_float(key, d.low, d.high, log=d.log)
    return found


def with_values(config: RunConfig, values: Mapping[str, Choice]) -> RunConfig:
    """Give the config with other values.

    Raises: ConfigError for an unknown key or a value out of range.
    """
    data = config.model_dump(mode="json", by_alias=True)
    for key, value in values.items():
        *path, last = key.split(".")
        section: Any = data
        for part in path:
            section = _inside(section, part)
            if section is None:
                raise ConfigError(f"[tune.space] {key!r} is no key of the config: there is no {part!r}")
        section[last] = list(value) if isinstance(value, tuple) else value
    return parse_config(data, "[tune.space]")


def _inside(section: Any, part: str) -> Any:
    """Step into a table, or into the task of a name."""
    if isinstance(section, list):
        return next((row for row in section if row.get("name") == part), None)
    return section.get(part) if isinstance(section, dict) else None


def _require_searchable(key: str, config: RunConfig) -> None:
    parts = key.split(".")
    is_task = len(parts) == 3 and parts[0] == "task" and parts[2] in _TASK_KEYS
    if key in _FIXED or not (is_task or parts[0] in _SECTIONS):
        tasks = ", ".join(task.name for task in config.tasks)
        raise ConfigError(
            f"[tune.space] {key!r} cannot be searched: features and days are built once and stay; take "
            f"keys of {', '.join(_SECTIONS)}, or task.NAME.KEY with NAME of {tasks} and KEY of "
            f"{', '.join(_TASK_KEYS)}"
        )


def _number(dimension: Dimension, value: float | None) -> float | int:
    assert value is not None
    return int(value) if dimension.whole else value
