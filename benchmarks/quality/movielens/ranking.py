"""What both ranking sets of MovieLens train: heads for the order and the stars, from a softmax's start."""

import numpy as np

from benchmarks.quality.baselines.biases import Biases
from benchmarks.quality.models.catalogue_softmax import Start
from benchmarks.quality.models.pairs import PairModel
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
"""Negatives to learn from."""


def begin(model: PairModel, start: Start, biases: Biases) -> None:
    """Start `interaction` from the softmax and `rating` from the bias model; the trunk from nothing."""
    start.put(model, "interaction", DRAWN_PER_ROW)
    biases.put(model, "rating")


def unknown(num: int) -> dict[str, np.ndarray]:
    """Give labels of rows of which nothing is known."""
    return {t.name: np.full(num, np.nan, np.float32) for t in TASKS}
