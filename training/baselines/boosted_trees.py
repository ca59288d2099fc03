"""LightGBM as a baseline, the same on every run: one thread, deterministic, stopped by held-out rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recsys.errors import ConfigError
from training.baselines.design import Design

MAX_TREES = 600
MAX_CATEGORIES = 1_000
"""Id columns with more values are left out: a tree cannot use the ids of users and items."""
_FIXED: dict[str, object] = {"num_threads": 1, "deterministic": True, "verbosity": -1}

Settings = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeRows:
    """Rows [N] for trees: features [N, F], labels and weights [N]."""

    features: np.ndarray
    label: np.ndarray
    weight: np.ndarray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trees:
    """A fitted model, what it was fitted with, and how good it was on the held-out rows."""

    model: Any
    settings: Settings
    categories: Sequence[int]
    count: int
    """Trees that count: the best number on the held-out rows."""
    scores: Mapping[str, float]
    """Metric of the settings -> its value on the held-out rows."""

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Give probabilities, or values, [N]."""
        return np.asarray(self.model.predict(features, num_iteration=self.count))


def grow(
    rows: TreeRows, held_out: TreeRows, settings: Settings, *, categories: Sequence[int], patience: int
) -> Trees:
    """Fit until the held-out rows have not gained for `patience` trees.

    Args: categories: columns whose values are codes; -1 is none. settings: LightGBM's own, with an objective.
    Raises: ConfigError when LightGBM is not installed.
    """
    lightgbm = require_lightgbm()
    stop = lightgbm.early_stopping(patience, verbose=False)
    data = [_dataset(lightgbm, part, categories) for part in (rows, held_out)]
    model = lightgbm.train(_FIXED | settings, data[0], MAX_TREES, valid_sets=[data[1]], callbacks=[stop])
    return Trees(
        model=model,
        settings=settings,
        categories=categories,
        count=max(1, model.best_iteration),
        scores=model.best_score["valid_0"],
    )


def grow_again(trees: Trees, rows: TreeRows) -> Trees:
    """Fit the same settings and number of trees on other rows."""
    lightgbm = require_lightgbm()
    data = _dataset(lightgbm, rows, trees.categories)
    return replace(trees, model=lightgbm.train(_FIXED | trees.settings, data, trees.count), scores={})


@dataclass(frozen=True, slots=True)
class TreeColumns:
    """Which columns of a design trees read: all numbers, and ids of few values."""

    small: np.ndarray
    """bool [id columns]."""
    num_numbers: int

    @classmethod
    def of(cls, design: Design) -> "TreeColumns":
        """Choose them by the training rows' design."""
        small = np.array([size <= MAX_CATEGORIES for size in design.sizes])
        return cls(small, design.numbers.shape[1])

    @property
    def categories(self) -> range:
        """Give the places of the ids."""
        return range(self.num_numbers, self.num_numbers + int(self.small.sum()))

    def features(self, design: Design) -> np.ndarray:
        """Lay rows out: float32 [N, F], numbers first."""
        ids = design.ids[:, self.small].astype(np.float32)
        return np.concatenate([design.numbers, ids], axis=1)


def require_lightgbm() -> Any:
    """Import LightGBM.

    Raises: ConfigError when it is not installed.
    """
    try:
        import lightgbm
    except ImportError as error:
        raise ConfigError("this needs lightgbm; install it with `pip install 'recsys-mtl[bench]'`") from error
    return lightgbm


def _dataset(lightgbm: Any, rows: TreeRows, categories: Sequence[int]) -> Any:
    columns = list(categories)
    return lightgbm.Dataset(rows.features, rows.label, weight=rows.weight, categorical_feature=columns)
