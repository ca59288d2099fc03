"""Mean + item's bias + user's bias: what a rating is before anything of taste."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.quality.models.pair_data import Pairs
from benchmarks.quality.models.pair_model import PairModel
from benchmarks.quality.models.tabular_ranker import WIDE
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
        if not task.kind.probability:
            slope = 4 / (task.high - task.low)
            middle = (self.mean - (task.high + task.low) / 2) * slope
            torch.nn.init.constant_(model.ranker.heads.heads[name][-1].bias, middle)  # type: ignore[index]
        wide = model.tables.weight[WIDE]
        for ids, bias in ((model.sides.user_ids, self.user), (model.sides.item_ids, self.item)):
            wide[torch.from_numpy(ids[: bias.size, 0]), own] = torch.from_numpy(slope * bias).float()


def best_biases(
    train: Pairs,
    task: str,
    penalties: Sequence[float],
    shape: tuple[int, int],
    loss: Callable[[Biases], float],
    *,
    of_users: bool = True,
) -> tuple[float, Biases]:
    """Fit with each penalty and keep the one of the lowest loss, which may look at validation rows.

    Args: as `fit_biases`.
    """
    tried = [(p, fit_biases(train, task, p, shape, of_users=of_users)) for p in penalties]
    return min(tried, key=lambda one: loss(one[1]))


def rating_error(pairs: Pairs, task: str = "rating") -> Callable[[Biases], float]:
    """Give the RMSE on some rows as a loss."""
    return lambda biases: rmse(pairs.labels[task], biases.predict(pairs))


def fit_biases(
    train: Pairs, task: str, penalty: float, shape: tuple[int, int], *, of_users: bool = True
) -> Biases:
    """Fit both biases in turn, or the items' alone, each shrunk by `penalty` imaginary average ratings.

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
        if not of_users:
            break
        user = np.bincount(train.user, value - mean - item[train.item], shape[0]) / num_of_user
    return Biases(mean=float(mean), user=user, item=item, low=float(value.min()), high=float(value.max()))
