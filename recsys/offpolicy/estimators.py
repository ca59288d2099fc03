"""Estimators of a target policy's mean reward per list, as ratios of sums over lists.

Every one is a sum over P parts of (sum of numerators) / (sum of denominators), so one bootstrap serves all.
w_k is target over logging propensity at place k, w_1:k their product down to it (a prefix), w = w_1:K.

| name | value of a list | source |
| --- | --- | --- |
| ips | w · Σ r | Horvitz & Thompson 1952; Strehl et al., NeurIPS 2010 |
| clipped_ips | min(w, c) · Σ r; biased low | Ionides 2008 (c = √lists) |
| snips | ips over the mean of w | Swaminathan & Joachims, NeurIPS 2015 |
| dm | prediction of the target's list; as wrong as the model | Dudík et al., ICML 2011 |
| dr | dm + w · (Σ r − prediction of the shown list) | Dudík et al., ICML 2011 |
| switch_dr | dr, and dm alone where w > c | Wang et al., ICML 2017 |
| rips | Σ_k w_1:k · r_k: a place does not depend on those below | McInerney et al., KDD 2020 |
| snrips | rips, each place over the mean of w_1:k | McInerney et al., KDD 2020 |
| cascade_dr | Σ_k w_1:k · (r_k − q_k) + w_1:k−1 · E q_k | Kiyohara et al., WSDM 2022 |
| iips | Σ_k w_k · r_k; only where places are drawn apart | Li et al., KDD 2018 |

For lists of one place rips is ips, snrips is snips and cascade_dr is dr.

Legend: R lists, K places, P parts.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recsys.metrics.columns import Vector
from recsys.offpolicy.logged import LoggedLists
from recsys.offpolicy.target import Predictions, TargetPolicy


@dataclass(frozen=True, slots=True)
class Terms:
    """An estimator's sums before they are summed: value = Σ_P Σ_R numerator / Σ_R denominator."""

    numerator: Vector
    """[R, P]."""
    denominator: Vector
    """[R, P]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What estimators read: rewards of drawn places, and how much more often the target shows a list."""

    reward: Vector
    """[R, K]; 0 where nothing was drawn."""
    place: Vector
    """[R, K]: w_k."""
    prefix: Vector
    """[R, K]: w_1:k."""
    drawn: Vector
    """[R, K]: 1.0 where the policy had a choice."""
    clip: float
    predictions: Predictions | None

    @classmethod
    def of(cls, logged: LoggedLists, target: TargetPolicy, clip: float | None = None) -> "Weights":
        """Weigh the logged lists. Args: clip: largest weight of a list; None: the root of their number.

        Raises: DataError when the shapes do not fit.
        """
        target.check(logged.reward.shape)
        place: Vector = np.where(logged.drawn, target.probability / logged.propensity, 1.0)
        return cls(
            reward=np.where(logged.drawn, logged.reward, 0.0),
            place=place,
            prefix=np.multiply.accumulate(place, axis=1),
            drawn=logged.drawn.astype(np.float64),
            clip=float(np.sqrt(len(place))) if clip is None else clip,
            predictions=target.predictions,
        )

    @property
    def whole(self) -> Vector:
        """Give the weight of each whole list [R]."""
        return self.prefix[:, -1]


def estimator_terms(weights: Weights, *, places_apart: bool) -> dict[str, Terms]:
    """Give the terms of every estimator that these lists and this target allow."""
    found = {name: terms(weights) for name, terms in _BY_WEIGHTS.items()}
    if weights.predictions is not None:
        model = weights.predictions
        found |= {name: terms(weights, model) for name, terms in _BY_MODEL.items()}
    if places_apart:
        found["iips"] = _per_list((weights.place * weights.reward).sum(axis=1))
    return found


def _ips(weights: Weights) -> Terms:
    return _per_list(weights.whole * weights.reward.sum(axis=1))


def _clipped_ips(weights: Weights) -> Terms:
    return _per_list(np.minimum(weights.whole, weights.clip) * weights.reward.sum(axis=1))


def _snips(weights: Weights) -> Terms:
    total = weights.whole * weights.reward.sum(axis=1)
    return Terms(total[:, None], weights.whole[:, None])


def _rips(weights: Weights) -> Terms:
    return _per_list((weights.prefix * weights.reward).sum(axis=1))


def _snrips(weights: Weights) -> Terms:
    """Normalise each place by its own weights. A list that has ended counts in no place below its end."""
    share = weights.drawn.mean(axis=0)
    earned, weight = weights.prefix * weights.reward * share, weights.prefix * weights.drawn
    return Terms(earned[:, share > 0], weight[:, share > 0])


def _dm(_: Weights, model: Predictions) -> Terms:
    return _per_list(model.direct)


def _dr(weights: Weights, model: Predictions) -> Terms:
    return _per_list(model.direct + weights.whole * _residual(weights, model))


def _switch_dr(weights: Weights, model: Predictions) -> Terms:
    used = np.where(weights.whole <= weights.clip, weights.whole, 0.0)
    return _per_list(model.direct + used * _residual(weights, model))


def _cascade_dr(weights: Weights, model: Predictions) -> Terms:
    above = np.concatenate([np.ones((len(weights.prefix), 1)), weights.prefix[:, :-1]], axis=1)
    # Of a place without a choice the item is given: what the target expects there is what was shown.
    earned = weights.prefix * (weights.reward - (model.shown + model.rest)) + above * model.expected
    return _per_list((earned * weights.drawn).sum(axis=1))


def _residual(weights: Weights, model: Predictions) -> Vector:
    residual: Vector = weights.reward.sum(axis=1) - (model.shown * weights.drawn).sum(axis=1)
    return residual


def _per_list(value: Vector) -> Terms:
    """Average a value of each list [R]."""
    return Terms(value[:, None], np.ones((value.size, 1)))


_BY_WEIGHTS: dict[str, Callable[[Weights], Terms]] = {
    "ips": _ips,
    "clipped_ips": _clipped_ips,
    "snips": _snips,
    "rips": _rips,
    "snrips": _snrips,
}
_BY_MODEL: dict[str, Callable[[Weights, Predictions], Terms]] = {
    "dm": _dm,
    "dr": _dr,
    "switch_dr": _switch_dr,
    "cascade_dr": _cascade_dr,
}
