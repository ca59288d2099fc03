"""Oracles of the simulated shop: true probabilities, and informed ones that learn users from the log.

An informed oracle is given every item's true factors, the scales and the priors. It estimates each user's
taste and three intercepts from the logged history: one Gaussian-prior regression per user over clicks
(logistic, all impressions), purchases (logistic, clicked impressions) and ratings (linear), by Newton's
method. It does not use content, position, context or attributes. One that knows appeal is also given how
much every item is liked by all users, and what its price costs it: what a model can learn from counts.
"""

from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np
import polars as pl
from scipy.special import expit

from recsys.errors import DataError
from recsys.log import InteractionLog
from recsys.metrics.columns import Lists
from recsys.metrics.list_auc import list_auc
from recsys.metrics.pointwise import rmse
from recsys.schema import IMPRESSION_KEY, REQUEST_KEY
from recsys.simulator.behaviour import CLICK_KIND, PURCHASE_KIND, RATING_KIND
from recsys.simulator.dials import FloatArray, IntArray, ShopDials
from recsys.simulator.ground_truth import half_star_mean
from recsys.simulator.population import CLICK, PURCHASE, RATING
from recsys.simulator.shop import Shop

_STEPS: Final = 30
_HALVINGS: Final = 20
_TOLERANCE: Final = 1e-3
_BLOCK_CELLS: Final = 4_000_000
_TASKS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleReport:
    """Figures of true probabilities (best) and of the informed oracle that knows appeal.

    NaN where no request has both labels, or all labels are missing.
    """

    click_best_list_auc: float
    click_informed_list_auc: float
    purchase_best_list_auc: float
    purchase_informed_list_auc: float
    rating_noise_rmse: float
    rating_informed_rmse: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UserEstimates:
    """Posterior modes by user number [U, rank + 3] (taste, one intercept per task); base values [3].

    knows_appeal: whether items' own appeal is added.
    """

    coefficients: FloatArray
    base: FloatArray
    knows_appeal: bool


def read_labelled(log: InteractionLog, first: date, last: date) -> pl.DataFrame:
    """Read impressions shown in first..last with the feedback received by the end of `last`.

    Adds click and purchase (0 or 1) and rating (null without one); attribution windows and refunds are
    ignored.
    """
    days = [day for day in log.days("impressions") if first <= day <= last]
    if not days:
        raise DataError(f"{log.root} has no impressions from {first} to {last}; choose days that the log has")
    columns = ["impression_id", "request_id", "user_id", "item_id", "shown_at", "position", "context_device"]
    impressions = pl.concat([log.read("impressions", day).select(columns) for day in days])
    received = [log.read("feedback", day) for day in log.days("feedback") if first <= day <= last]
    feedback = pl.concat(received) if received else log.read("feedback", last)
    return add_labels(impressions, feedback)


def add_labels(impressions: pl.DataFrame, feedback: pl.DataFrame) -> pl.DataFrame:
    """Add click, purchase and rating to impressions from their feedback."""
    kinds = {
        CLICK_KIND: pl.lit(1.0).alias("click"),
        PURCHASE_KIND: pl.lit(1.0).alias("purchase"),
        RATING_KIND: pl.col("value").alias("rating"),
    }
    for kind, value in kinds.items():
        one = feedback.filter(pl.col("kind") == kind, pl.col("impression_id").is_not_null())
        one = one.unique(IMPRESSION_KEY, keep="first", maintain_order=True).select(*IMPRESSION_KEY, value)
        impressions = impressions.join(one, on=IMPRESSION_KEY, how="left", maintain_order="left")
    return impressions.with_columns(pl.col("click", "purchase").fill_null(0.0))


def oracle_report(shop: Shop, history: pl.DataFrame, rows: pl.DataFrame) -> OracleReport:
    """Score rows with the truth and with the informed oracle that knows appeal.

    Args: history: `read_labelled` of days before the rows'; rows: impressions with click, purchase and
    rating. A row whose label is null is left out of that label's figures.
    """
    truth = shop.true_predictions(rows)
    informed = informed_predictions(shop, estimate_users(shop, history, knows_appeal=True), rows)
    return OracleReport(
        click_best_list_auc=known_list_auc(rows, "click", truth["p_click"]),
        click_informed_list_auc=known_list_auc(rows, "click", informed["click"]),
        purchase_best_list_auc=known_list_auc(rows, "purchase", truth["p_purchase"]),
        purchase_informed_list_auc=known_list_auc(rows, "purchase", informed["purchase"]),
        rating_noise_rmse=known_rmse(rows["rating"], truth["expected_rating"]),
        rating_informed_rmse=known_rmse(rows["rating"], informed["rating"]),
    )


def known_list_auc(rows: pl.DataFrame, label: str, prediction: pl.Series) -> float:
    """Return the AUC inside requests over the rows whose label is known; NaN when no request has both."""
    known = rows[label].is_not_null()
    if not known.any():
        return float("nan")
    requests = rows.select(pl.struct(REQUEST_KEY).rank("dense").cast(pl.Int64).alias("list"))["list"]
    lists = Lists.unplaced(requests.filter(known).to_numpy())
    return list_auc(rows[label].filter(known), prediction.filter(known), lists)


def known_rmse(label: pl.Series, prediction: pl.Series) -> float:
    """Return the RMSE over the rows whose label is known; NaN when there is none."""
    known = label.is_not_null()
    return rmse(label.filter(known), prediction.filter(known)) if known.any() else float("nan")


def informed_predictions(shop: Shop, estimates: UserEstimates, rows: pl.DataFrame) -> pl.DataFrame:
    """Predict click and purchase (probabilities per impression) and rating (stars), in the order of rows."""
    users, items = shop.user_numbers(rows["user_id"]), shop.item_numbers(rows["item_id"])
    predictors = []
    for task in (CLICK, PURCHASE, RATING):
        design = _design(shop, task, items)
        own = _appeal(shop, task, items) if estimates.knows_appeal else 0.0
        predictors.append(estimates.base[task] + own + _dot(design, estimates.coefficients[users]))
    click = expit(predictors[CLICK])
    noise = _rating_noise(shop.dials, knows_appeal=estimates.knows_appeal)
    stars = half_star_mean(predictors[RATING], np.sqrt(noise))
    return pl.DataFrame({"click": click, "purchase": click * expit(predictors[PURCHASE]), "rating": stars})


def estimate_users(shop: Shop, history: pl.DataFrame, *, knows_appeal: bool) -> UserEstimates:
    """Estimate each user's taste and intercepts from labelled impressions; without any: the prior mean.

    Source: Laplace approximation of Bayesian logistic regression (Bishop, PRML 2006, 4.5), shared over tasks.
    """
    dials = shop.dials
    users, items = shop.user_numbers(history["user_id"]), shop.item_numbers(history["item_id"])
    click = history["click"].to_numpy()
    purchase = history["purchase"].to_numpy()
    rating = history["rating"].cast(pl.Float64).to_numpy()
    clicked, rated = np.flatnonzero(click > 0), np.flatnonzero(~np.isnan(rating))
    base = np.array([dials.click_base, dials.purchase_base, dials.rating_base])
    picked = [np.arange(len(users)), clicked, rated]
    rows = np.concatenate(picked)
    task = np.repeat(np.arange(_TASKS), [len(p) for p in picked])
    label = np.concatenate([click, purchase[clicked], rating[rated]])
    coefficients = np.zeros((len(shop.users.arrival_day), dials.rank + _TASKS))
    order = np.argsort(users[rows], kind="stable")
    rows, task, label = rows[order], task[order], label[order]
    own = _appeals(shop, task, items[rows]) if knows_appeal else np.zeros(len(rows))
    for part in _user_blocks(users[rows], dials.rank + _TASKS):
        number, user = np.unique(users[rows[part]], return_inverse=True)
        block = _Block(
            design=_designs(shop, task[part], items[rows[part]]),
            task=task[part],
            label=label[part],
            user=user,
            starts=np.flatnonzero(np.diff(user, prepend=-1)),
            offset=base[task[part]] + own[part],
            precision=_prior_precision(dials),
            noise=_rating_noise(dials, knows_appeal=knows_appeal),
        )
        coefficients[number] = _posterior_modes(block)
    # Rated items are liked better than most, so the mean residual of the ratings is estimated too.
    predictor = base[RATING] + _dot(_design(shop, RATING, items[rated]), coefficients[users[rated]])
    predictor += _appeal(shop, RATING, items[rated]) if knows_appeal else 0.0
    base[RATING] += (rating[rated] - predictor).mean() if rated.size else 0.0
    return UserEstimates(coefficients=coefficients, base=base, knows_appeal=knows_appeal)


def _design(shop: Shop, task: int, items: IntArray) -> FloatArray:
    dials = shop.dials
    scale = (dials.click_taste, dials.purchase_taste, dials.rating_taste)[task]
    design = np.zeros((len(items), dials.rank + _TASKS))
    design[:, : dials.rank] = scale * shop.items.factors[task, items]
    design[:, dials.rank + task] = 1.0
    return design


def _designs(shop: Shop, task: IntArray, items: IntArray) -> FloatArray:
    design = np.empty((len(items), shop.dials.rank + _TASKS))
    for each in (CLICK, PURCHASE, RATING):
        of_task = task == each
        design[of_task] = _design(shop, each, items[of_task])
    return design


def _appeal(shop: Shop, task: int, items: IntArray) -> FloatArray:
    """Return what items [N] add to a task's logit, or stars, for every user alike."""
    dials = shop.dials
    scale = (dials.click_appeal, dials.purchase_appeal, dials.rating_appeal)[task]
    own: FloatArray = scale * shop.items.appeal[task, items]
    return own - dials.purchase_price * shop.items.log_price[items] if task == PURCHASE else own


def _appeals(shop: Shop, task: IntArray, items: IntArray) -> FloatArray:
    own = np.empty(len(items))
    for each in (CLICK, PURCHASE, RATING):
        of_task = task == each
        own[of_task] = _appeal(shop, each, items[of_task])
    return own


def _user_blocks(users: IntArray, width: int) -> list[IntArray]:
    """Cut rows, sorted by user, into blocks of whole users that fit in memory."""
    starts = np.flatnonzero(np.diff(users, prepend=-1))
    limit = max(1, _BLOCK_CELLS // width)
    cuts = [0]
    for start in starts[1:]:
        if start - cuts[-1] >= limit:
            cuts.append(int(start))
    return [np.arange(a, b) for a, b in zip(cuts, [*cuts[1:], len(users)], strict=True) if b > a]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """Rows of B whole users: design [N, D], task [N], label [N], user [N] in 0..B-1 ascending, starts [B].

    offset [N]: of the logit, or stars, whatever the user; precision [D]: of the prior; noise: variance of a
    rating around its prediction.
    """

    design: FloatArray
    task: IntArray
    label: FloatArray
    user: IntArray
    starts: IntArray
    offset: FloatArray
    precision: FloatArray
    noise: float

    def predictors(self, coefficients: FloatArray) -> FloatArray:
        """Return logits, and stars for ratings [N]."""
        predictor: FloatArray = self.offset + _dot(self.design, coefficients[self.user])
        return predictor

    def log_posterior(self, coefficients: FloatArray) -> FloatArray:
        """Return each user's log posterior [B], up to a constant."""
        predictor = self.predictors(coefficients)
        binary = self.label * predictor - np.logaddexp(0.0, predictor)
        linear = -((self.label - predictor) ** 2) / (2 * self.noise)
        rows = np.where(self.task == RATING, linear, binary)
        posterior: FloatArray = np.add.reduceat(rows, self.starts) - coefficients**2 @ self.precision / 2
        return posterior

    def newton_step(self, coefficients: FloatArray) -> FloatArray:
        """Return each user's Newton step [B, D]."""
        predictor, linear = self.predictors(coefficients), self.task == RATING
        probability = expit(predictor)
        residual = np.where(linear, (self.label - predictor) / self.noise, self.label - probability)
        weight = np.where(linear, 1.0 / self.noise, probability * (1.0 - probability))
        gradient = (
            np.add.reduceat(self.design * residual[:, None], self.starts) - coefficients * self.precision
        )
        hessian = _second_moments(self.design, weight, self.starts) + np.diag(self.precision)
        step = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        return step.astype(np.float64, copy=False)


def _posterior_modes(block: _Block) -> FloatArray:
    """Find each user's posterior mode [B, D] by Newton steps, halved while the posterior gets worse."""
    coefficients = np.zeros((len(block.starts), block.design.shape[1]))
    best = block.log_posterior(coefficients)
    for _ in range(_STEPS):
        step = block.newton_step(coefficients)
        for _ in range(_HALVINGS):
            posterior = block.log_posterior(coefficients + step)
            worse = posterior < best - 1e-9
            if not worse.any():
                break
            step[worse] /= 2
        else:
            step[worse] = 0.0
            posterior = np.where(worse, best, posterior)
        coefficients, best = coefficients + step, posterior
        if np.abs(step).max() < _TOLERANCE:
            break
    return coefficients


def _second_moments(design: FloatArray, weight: FloatArray, starts: IntArray) -> FloatArray:
    ends = np.append(starts[1:], len(design))
    moments = np.empty((len(starts), design.shape[1], design.shape[1]))
    weighted = design * weight[:, None]
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        np.matmul(weighted[start:end].T, design[start:end], out=moments[number])
    return moments


def _prior_precision(dials: ShopDials) -> FloatArray:
    spread = np.array([dials.click_user, dials.purchase_user, dials.rating_user])
    return np.concatenate([np.ones(dials.rank), 1.0 / np.maximum(spread, 0.01) ** 2])


def _rating_noise(dials: ShopDials, *, knows_appeal: bool) -> float:
    """Return the variance of a rating around its prediction from the tastes, and appeal where it is known."""
    appeal = 0.0 if knows_appeal else dials.rating_appeal**2
    return dials.rating_residual**2 + dials.rating_noise**2 + appeal


def _dot(left: FloatArray, right: FloatArray) -> FloatArray:
    product: FloatArray = np.einsum("nd,nd->n", left, right)
    return product
