"""The small Open Bandit data: each policy's clicks estimated from the other policy's log.

Protocol of the published table (zr-obp `examples/obd/README.md`): rows are drawn with replacement 30 times,
the reward model is a logistic regression for each position, fitted on the drawn rows by two folds, and an
error is relative to the click rate of the target's own log. BTS's probabilities are those of its published
priors, by Monte Carlo.

Source: Saito, Aihara, Matsutani, Narita: Open Bandit Dataset and Pipeline, NeurIPS 2021 (datasets track).

Legend: N rows, A items, P positions.
"""

import itertools
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.errors import DataError
from recsys.offpolicy.estimators import Weights, estimator_terms
from recsys.offpolicy.evaluate import evaluate
from recsys.offpolicy.intervals import UnitSums
from recsys.offpolicy.logged import LoggedLists
from recsys.offpolicy.propensities import propensity_table
from recsys.offpolicy.target import Predictions, TargetPolicy
from recsys.simulator.dials import FloatArray, IntArray

CAMPAIGNS = ("all", "men", "women")
POLICIES = ("random", "bts")
BOOTSTRAPS = 30
PUBLISHED = {
    "dm": (0.157, 0.110),
    "ips": (0.311, 0.311),
    "snips": (0.312, 0.335),
    "dr": (0.292, 0.315),
    "switch_dr": (0.258, 0.161),
}
"""random -> bts, campaign all: mean and standard deviation of the relative error."""
_PRIORS = Path(__file__).parent / "bts_prior.toml"
_DRAWS = 20_000
_STRENGTH = 1000.0
"""Inverse of the penalty, as in the published run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """One policy's log of one campaign."""

    item: IntArray
    position: IntArray
    """[N], from 0."""
    click: FloatArray
    propensity: FloatArray
    user: FloatArray
    """[N, F] one-hot."""
    items: FloatArray
    """[A, 4]: the items' features, categories by number as in the published run."""

    def take(self, rows: IntArray) -> "Campaign":
        """Select rows."""
        return Campaign(
            item=self.item[rows],
            position=self.position[rows],
            click=self.click[rows],
            propensity=self.propensity[rows],
            user=self.user[rows],
            items=self.items,
        )


def check_folder(data: Path) -> None:
    """Check that all logs are there. Raises: DataError, naming the first file that is not."""
    for policy, campaign in itertools.product(POLICIES, CAMPAIGNS):
        _files(data, policy, campaign)


def read_campaign(data: Path, policy: str, campaign: str) -> Campaign:
    """Read a log. Raises: DataError when it is not below data."""
    log, context = _files(data, policy, campaign)
    frame, items = pl.read_csv(log), pl.read_csv(context).sort("item_id")
    kinds = items.select(pl.col(f"item_feature_{n}").rank("dense") for n in (1, 2, 3)).to_numpy()
    price = items["item_feature_0"].to_numpy()[:, None]
    return Campaign(
        item=frame["item_id"].to_numpy().astype(np.int64),
        position=frame["position"].rank("dense").to_numpy().astype(np.int64) - 1,
        click=frame["click"].to_numpy().astype(np.float64),
        propensity=frame["propensity_score"].to_numpy(),
        user=frame.select(f"user_feature_{n}" for n in range(4)).to_dummies().to_numpy().astype(np.float64),
        items=np.concatenate([price, kinds], axis=1).astype(np.float64),
    )


def _files(data: Path, policy: str, campaign: str) -> list[Path]:
    """Find a log and its items' features."""
    folder = data / policy / campaign
    files: list[Path] = []
    for name in (campaign, "item_context"):
        found = sorted(folder.glob(f"{name}.csv*"))
        if not found:
            raise DataError(
                f"{folder} has no {name}.csv.gz; pass the folder with random/ and bts/ of Open Bandit"
            )
        files.append(found[0])
    return files


def policy_chances(policy: str, campaign: str, num_items: int, rng: np.random.Generator) -> FloatArray:
    """Give the probability of each item at each position [A, P]."""
    if policy == "random":
        return np.full((num_items, 3), 1.0 / num_items)
    prior = tomllib.loads(_PRIORS.read_text())[campaign]
    theta = rng.beta(prior["alpha"], prior["beta"], size=(_DRAWS, num_items))
    top = np.argsort(-theta, axis=1)[:, :3]
    counts = [np.bincount(top[:, place], minlength=num_items) for place in range(3)]
    return np.stack(counts, axis=1) / _DRAWS


def measure_open_bandit(
    data: Path, seed: int, on_part: Callable[[int, int], None] = lambda _done, _all: None
) -> dict[str, Any]:
    """Estimate each policy from the other's log, in all campaigns; with the published errors beside."""
    found: dict[str, Any] = {}
    parts = [(a, b, c) for a, b in (POLICIES, POLICIES[::-1]) for c in CAMPAIGNS]
    for number, (logging, target, campaign) in enumerate(parts):
        rng = np.random.default_rng([seed, number])
        log = read_campaign(data, logging, campaign)
        own = read_campaign(data, target, campaign)
        chances = policy_chances(target, campaign, len(log.items), rng)
        found[f"{logging} -> {target}, {campaign}"] = _one(log, own.click, chances, rng)
        on_part(number + 1, len(parts))
    return {
        "published": {name: list(pair) for name, pair in PUBLISHED.items()},
        "propensities": _propensities(data, seed),
        "parts": found,
    }


def _one(log: Campaign, own: FloatArray, chances: FloatArray, rng: np.random.Generator) -> dict[str, Any]:
    truth = float(own.mean())
    value = evaluate(*_lists(log, chances, rng), generator=rng)
    errors: dict[str, list[float]] = {name: [] for name in value.estimates}
    for _ in range(BOOTSTRAPS):
        logged, target = _lists(log.take(rng.integers(log.item.size, size=log.item.size)), chances, rng)
        terms = estimator_terms(Weights.of(logged, target), places_apart=False)
        for name, part in terms.items():
            errors[name].append(abs(UnitSums(part.numerator, part.denominator).value() - truth) / truth)
    return {
        "truth": truth,
        "truth_error": float(own.std() / np.sqrt(own.size)),
        "clicks": int(log.click.sum()),
        "value": value.model_dump(),
        "trustworthy": value.trustworthy,
        "relative_error": {n: [float(np.mean(e)), float(np.std(e))] for n, e in errors.items()},
    }


def _lists(log: Campaign, chances: FloatArray, rng: np.random.Generator) -> tuple[LoggedLists, TargetPolicy]:
    shown, expected = cross_fitted(log, chances, rng)
    model = Predictions.of_one_place(shown, expected)
    return (
        LoggedLists.of_lists(log.click, log.propensity),
        TargetPolicy.of(chances[log.item, log.position], model),
    )


def cross_fitted(
    log: Campaign, chances: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Predict the shown item [N], and the mean over the target's choice [N], by a model of the other fold."""
    from sklearn.linear_model import LogisticRegression

    shown, expected = np.empty(log.item.size), np.empty(log.item.size)
    fold = rng.permutation(log.item.size) % 2
    for own, place in itertools.product((0, 1), range(chances.shape[1])):
        at = log.position == place
        fit, use = np.flatnonzero(at & (fold != own)), np.flatnonzero(at & (fold == own))
        if not log.click[fit].any():  # a drawn fold without a click says that there are none
            shown[use] = expected[use] = 0.0
            continue
        rows = np.concatenate([log.user[fit], log.items[log.item[fit]]], axis=1)
        model = LogisticRegression(C=_STRENGTH, max_iter=5000).fit(rows, log.click[fit])
        of_user, of_item = np.split(model.coef_[0], [log.user.shape[1]])
        base = log.user[use] @ of_user + model.intercept_[0]
        chance = 1.0 / (1.0 + np.exp(-(base[:, None] + (log.items @ of_item)[None, :])))
        shown[use] = chance[np.arange(use.size), log.item[use]]
        expected[use] = chance @ chances[:, place]
    return shown, expected


def _propensities(data: Path, seed: int) -> dict[str, Any]:
    """Hold what each policy says of itself, at every item and position, against what its log shows."""
    found = {}
    for number, (policy, campaign) in enumerate((p, c) for p in POLICIES for c in CAMPAIGNS):
        log = read_campaign(data, policy, campaign)
        chances = policy_chances(policy, campaign, len(log.items), np.random.default_rng([seed, 9, number]))
        predicted = chances[:, log.position].T
        shown = np.arange(len(log.items))[None, :] == log.item[:, None]
        found[f"{policy}, {campaign}"] = [
            r.model_dump() for r in propensity_table(predicted.ravel(), shown.ravel(), 5)
        ]
    return found
