"""How Coat's rows are trained: our trunks with and without weights and features, and simple models."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.quality.baselines.biases import fit_biases
from benchmarks.quality.coat.reader import Coat, Part
from benchmarks.quality.models.fitting import Budget
from benchmarks.quality.models.pairs import Pairs, PairSetting, Sides, numbered, train_pairs
from recsys.config import TrunkConfig
from recsys.metrics.pointwise import rmse
from recsys.model.trunks import TRUNKS
from recsys.tasks import TaskSpec

LIKED = 4.0
"""Stars from which a coat is liked, the second head."""
SHAPE = TrunkConfig(name="mmoe", num_experts=2, task_experts=1, hidden=(32, 16))
BUDGET = Budget(epochs=6, learning_rate=2e-3, sparse_learning_rate=0.04, weight_decay=1e-4)
DIM = 16
BATCH_SIZE = 4096
ROW_DROPOUT = 0.1
BASELINES = ("mean", "mean_ips", "bias_model")
BIAS_PENALTIES = (1.0, 5.0, 20.0)

Predict = Callable[[Pairs], dict[str, np.ndarray]]
"""Rows [N] -> head -> predictions [N]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """How a row of the table is trained."""

    trunk: str
    weights: str = ""
    """"" (none), "published" or "estimated" propensities."""
    features: bool = True

    @property
    def name(self) -> str:
        """Name the row: trunk, "_ids" without features, "_ips" or "_ips_estimated"."""
        weights = {"": "", "published": "_ips", "estimated": "_ips_estimated"}[self.weights]
        return f"{self.trunk}{'' if self.features else '_ids'}{weights}"


_ASKED = (
    *(
        ("mmoe", weights, features)
        for features in (True, False)
        for weights in ("", "published", "estimated")
    ),
    *((trunk, "", True) for trunk in TRUNKS if trunk != "mmoe"),
    ("single_task", "published", True),
)
VARIANTS = {v.name: v for v in (Variant(trunk=t, weights=w, features=f) for t, w, f in _ASKED)}


def train_row(data: Coat, name: str, part: Part, seed: int) -> Predict:
    """Train one of our variants or fit a baseline on a run's part."""
    if name in VARIANTS:
        return train_variant(data, VARIANTS[name], part, seed)
    train, validation = (coat_pairs(data, mask, data.stars) for mask in (part.train, part.validation))
    return _fit_baseline(name, train, validation, data.stars.shape)


def train_variant(data: Coat, variant: Variant, part: Part, seed: int) -> Predict:
    """Train a row of ours; SNIPS of the validation ratings chooses its epoch, whatever its weights.

    Pairs held out or for validation are in no batch; all others are, rated or not.
    """
    stars = np.where(part.train, data.stars, np.nan).astype(np.float32)
    train = coat_pairs(data, ~(part.validation | part.held_out), stars)
    if variant.weights != "published":
        train = Pairs(user=train.user, item=train.item, labels=train.labels)
    validation = coat_pairs(data, part.validation, data.stars)
    setting = _setting(variant)
    model, _ = train_pairs(
        coat_sides(data, features=variant.features),
        train,
        setting.trunks(SHAPE)[variant.trunk],
        setting,
        seed,
        lambda m: rating_snips(validation, m.predict),
    )
    return model.predict


def rating_snips(pairs: Pairs, predict: Predict) -> float:
    """Estimate what predictions of some self-selected ratings say of the RMSE on pairs drawn at random."""
    assert pairs.propensity is not None
    return snips_rmse(pairs.labels["rating"], predict(pairs)["rating"], pairs.propensity)


def snips_rmse(stars: np.ndarray, prediction: np.ndarray, propensity: np.ndarray) -> float:
    """Estimate the RMSE on pairs drawn at random from pairs that users chose, self-normalised.

    Args: all [N]; propensity in (0, 1): that the pair is rated.
    Source: Swaminathan & Joachims, NeurIPS 2015; for ratings Schnabel et al., ICML 2016.
    """
    return rmse(stars, prediction, 1 / propensity)


def coat_sides(data: Coat, *, features: bool) -> Sides:
    """Number users and coats, and their features' columns where wanted."""
    users, items = data.stars.shape
    user_ids, start = numbered([np.arange(users), *(data.user_columns.T if features else ())], 0)
    item_ids, start = numbered([np.arange(items), *(data.item_columns.T if features else ())], start)
    return Sides(user_ids=user_ids, item_ids=item_ids, num_ids=start)


def coat_pairs(data: Coat, mask: np.ndarray, stars: np.ndarray) -> Pairs:
    """Make rows of the pairs in a mask [U, I]; both labels are NaN where `stars` [U, I] are."""
    user, item = np.nonzero(mask)
    given = stars[mask]
    liked = np.where(np.isnan(given), np.nan, given >= LIKED).astype(np.float32)
    return Pairs(
        user=user, item=item, labels={"rating": given, "liked": liked}, propensity=data.propensity[mask]
    )


def _setting(variant: Variant) -> PairSetting:
    debias = "ips" if variant.weights else None
    kinds = (("rating", "regression", 1.0), ("liked", "binary", 0.3))
    tasks = tuple(
        TaskSpec(name=n, feedback="rating", head=h, window="1d", weight=w, space="observed", debias=debias)
        for n, h, w in kinds
    )
    return PairSetting(tasks=tasks, budget=BUDGET, dim=DIM, batch_size=BATCH_SIZE, row_dropout=ROW_DROPOUT)


def _fit_baseline(name: str, train: Pairs, validation: Pairs, shape: tuple[int, int]) -> Predict:
    """Fit a simple model of the stars; it has no head for `liked`."""
    if name == "bias_model":

        def fitted(penalty: float) -> Predict:
            biases = fit_biases(train, "rating", penalty, shape)
            return lambda pairs: {"rating": biases.predict(pairs)}

        return min((fitted(p) for p in BIAS_PENALTIES), key=lambda predict: rating_snips(validation, predict))
    assert train.propensity is not None
    weight = None if name == "mean" else 1 / train.propensity
    value = float(np.average(train.labels["rating"], weights=weight))
    return lambda pairs: {"rating": np.full(pairs.size, value)}
