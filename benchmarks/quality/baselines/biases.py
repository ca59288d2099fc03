"""Mean + item's bias + user's bias: what a rating is before anything of taste."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.models.tabular_ranker import WIDE
from benchmarks.quality.models.pairs import PairModel, Pairs
from recsys.metrics.pointwise import rmse

SWEEPS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Biases:
    """Fitted by `fit_biases`."""

    mean: float
    user: np.ndarray
    """float64 [users]; 0 for one without training rows."""
    item: np.ndarray
    low: float
    """Range of the training labels."""
    high: float

    def predict(self, pairs: Pairs) -> np.ndarray:
        """Give values within the range [N]."""
        found: np.ndarray = self.mean + self.user[pairs.user] + self.item[pairs.item]
        return found.clip(self.low, self.high)

    def put(self, model: PairModel, name: str, slope: float = 1.0) -> None:
        """Let a new model's head start here: its linear part, in logits, is what `predict` gives.

        Args: slope: for a binary head, logits per unit of the biases; it has no meaning for others.
        """
        own, task = next((k, t) for k, t in enumerate(model.tasks) if t.name == name)
        if task.head == "regression":
            slope = 4 / (task.high - task.low)
            middle = (self.mean - (task.high + task.low) / 2) * slope
            torch.nn.init.constant_(model.ranker.heads.heads[name][-1].bias, middle)  # type: ignore[index]
        wide = model.tables.weight[WIDE]
        for ids, bias in ((model.sides.user_ids, self.user), (model.sides.item_ids, self.item)):
            wide[torch.from_numpy(ids[: bias.size, 0]), own] = torch.from_numpy(slope * bias).float()


FitBiases = Callable[[Pairs, str, float, tuple[int, int]], Biases]
"""(training rows, task, penalty, (users, items)) -> fitted."""


def best_biases(
    fit: FitBiases, parts: tuple[Pairs, Pairs], task: str, penalties: Sequence[float], shape: tuple[int, int]
) -> tuple[float, Biases]:
    """Fit with each penalty and keep the one of the lowest RMSE on validation.

    Args: parts: to learn from and to choose on; shape: users, items.
    """
    train, validation = parts
    tried = {penalty: fit(train, task, penalty, shape) for penalty in penalties}
    label = validation.labels[task]
    penalty = min(tried, key=lambda p: rmse(label, tried[p].predict(validation)))
    return penalty, tried[penalty]


def fit_biases(train: Pairs, task: str, penalty: float, shape: tuple[int, int]) -> Biases:
    """Fit both biases in turn, each shrunk by `penalty` imaginary average ratings.

    Args: shape: users, items.
    Source: Koren, Bell & Volinsky, IEEE Computer 2009.
    """
    value = train.labels[task].astype(np.float64)
    mean = value.mean()
    user, item = np.zeros(shape[0]), np.zeros(shape[1])
    num_of_user = np.bincount(train.user, minlength=shape[0]) + penalty
    num_of_item = np.bincount(train.item, minlength=shape[1]) + penalty
    for _ in range(SWEEPS):
        item = np.bincount(train.item, value - mean - user[train.user], shape[1]) / num_of_item
        user = np.bincount(train.user, value - mean - item[train.item], shape[0]) / num_of_user
    return Biases(mean=float(mean), user=user, item=item, low=float(value.min()), high=float(value.max()))


def item_means(train: Pairs, task: str, penalty: float, shape: tuple[int, int]) -> Biases:
    """Fit the items' biases alone."""
    value = train.labels[task].astype(np.float64)
    mean = value.mean()
    num_of_item = np.bincount(train.item, minlength=shape[1]) + penalty
    item = np.bincount(train.item, value - mean, shape[1]) / num_of_item
    return Biases(
        mean=float(mean), user=np.zeros(shape[0]), item=item, low=float(value.min()), high=float(value.max())
    )
