"""How the ranking sets of MovieLens train: heads for the order and the stars, from a softmax's start."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks.quality.baselines.biases import fit_biases
from benchmarks.quality.models.bags import BagSetting
from benchmarks.quality.models.catalogue_softmax import Start
from benchmarks.quality.models.fitting import Budget
from benchmarks.quality.models.pair_data import Pairs, Sides
from benchmarks.quality.models.pair_model import PairModel, PairSetting, train_pairs
from recsys.config import TrunkConfig
from recsys.tasks import TaskSpec

TASKS = (
    TaskSpec(name="interaction", feedback="rating", head="binary", window="1d"),
    TaskSpec(name="rating", feedback="rating", head="regression", window="1d", weight=0.3),
)
BIAS_PENALTY = 10.0
SOFTMAX_ONLY = "catalogue_softmax"
"""The row of the start alone."""
SHAPE = TrunkConfig(name="mmoe", num_experts=2, task_experts=1, hidden=(48, 24))
DRAWN_PER_ROW = 4
"""Negatives to train on."""


def ranking_setting(budget: Budget, dim: int, bags: BagSetting) -> PairSetting:
    """Give how every trunk is trained."""
    return PairSetting(
        tasks=TASKS,
        budget=budget,
        dim=dim,
        batch_size=0,
        weigh_product=True,
        sampled="interaction",
        negatives=DRAWN_PER_ROW,
        bags=bags,
    )


def train_ranking(
    sides: Sides,
    train: Pairs,
    trunk: str,
    setting: PairSetting,
    softmax: Start,
    seed: int,
    loss: Callable[[PairModel], float] | None,
    stop_after: int | None = None,
) -> tuple[PairModel, int]:
    """Train both heads: `interaction` starts from the softmax, `rating` from biases, the trunk from nothing.

    Args: loss, stop_after: as `train_pairs`.
    """
    biases = fit_biases(train, "rating", BIAS_PENALTY, sides.shape)

    def start(model: PairModel) -> None:
        softmax.put(model, "interaction", DRAWN_PER_ROW)
        biases.put(model, "rating")

    had = {"interaction": np.ones(train.size, np.float32), "rating": train.labels["rating"]}
    rows, shape = replace(train, labels=had), setting.trunks(SHAPE)[trunk]
    return train_pairs(sides, rows, shape, setting, seed, loss, start=start, stop_after=stop_after)


def candidate_pairs(user: np.ndarray, item: np.ndarray) -> Pairs:
    """Make rows of which nothing is known."""
    return Pairs(user=user, item=item, labels={t.name: np.full(user.size, np.nan, np.float32) for t in TASKS})
