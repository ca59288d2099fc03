"""Offline metrics against the truth: which policies are compared, how alike the orders are, what is wrong.

Legend: P policies, U requests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

NEAR = 0.15
"""Policies within this share of the best learned one are compared: others nobody mistakes."""
ENOUGH = 0.8
"""A metric whose order is as near to the true one in every regime may lead."""
CHOSEN_SEEDS = 3
"""So many of the first seeds choose metrics; the others confirm."""
_Z = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """One seed of one regime."""

    seed: int
    regime: str
    kinds: Mapping[str, str]
    """Policy -> kind."""
    values: Mapping[str, np.ndarray]
    """Policy -> true value of each request's page [U]."""
    parts: Mapping[str, Mapping[str, float]]
    """Policy -> clicks, purchases and stars."""
    metrics: Mapping[str, Mapping[str, float]]
    """Metric -> policy -> figure."""
    shuffled: Mapping[str, Mapping[str, float]]
    """The same, of shuffled labels."""
    facts: Mapping[str, float]

    def mean(self, policy: str) -> float:
        """Give a policy's true value."""
        return float(self.values[policy].mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How a metric orders some policies, beside the truth."""

    rank_correlation: float
    """Spearman's; NaN with fewer than three policies, or where the metric is the same for all."""
    wrong: int
    """Pairs in the wrong order, of those whose true difference has a 95 % interval without 0."""
    pairs: int


def near_policies(cells: Sequence[CellResult]) -> list[str]:
    """List the policies of a regime that are worth comparing, by their mean over seeds."""
    kinds = cells[0].kinds
    means = {name: float(np.mean([cell.mean(name) for cell in cells])) for name in kinds}
    best = max(means[name] for name, kind in kinds.items() if kind == "learned")
    real = [name for name, kind in kinds.items() if kind in ("learned", "simple", "shop")]
    return [name for name in real if means[name] >= (1 - NEAR) * best]


def agreement(cell: CellResult, figures: Mapping[str, float], policies: Sequence[str]) -> Agreement:
    """Compare a metric's figures with the truth of one cell."""
    from scipy.stats import spearmanr

    known = [name for name in policies if not np.isnan(figures[name])]
    if not known:
        return Agreement(rank_correlation=float("nan"), wrong=0, pairs=0)
    figure = np.array([figures[name] for name in known])
    true = np.array([cell.mean(name) for name in known])
    difference, error = _differences(cell, known)
    clear = np.triu(np.abs(difference) > _Z * error, 1)
    wrong = clear & ((figure[:, None] - figure[None]) * difference <= 0)
    alike = len(known) < 3 or np.ptp(figure) == 0 or np.ptp(true) == 0
    correlation = float("nan") if alike else float(spearmanr(figure, true).statistic)
    return Agreement(rank_correlation=correlation, wrong=int(wrong.sum()), pairs=int(clear.sum()))


def _differences(cell: CellResult, policies: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Give the differences of policies' true values, and their standard errors, paired by request: [P, P]."""
    values = np.stack([cell.values[name] for name in policies])
    mean, cov = values.mean(axis=1), np.atleast_2d(np.cov(values))
    own = np.diag(cov)
    variance = np.maximum(own[:, None] + own[None] - 2 * cov, 0.0)
    return mean[:, None] - mean[None], np.sqrt(variance / values.shape[1])


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Give a 95 % t-interval of a mean; of one value, NaN."""
    from scipy.stats import t

    if len(values) < 2:
        return float("nan"), float("nan")
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
    wide = float(t.ppf(0.975, len(values) - 1)) * error
    return mean - wide, mean + wide


def normal_interval(values: np.ndarray) -> tuple[float, float]:
    """Give a 95 % normal interval of the mean of requests' values [U]."""
    error = _Z * float(values.std(ddof=1)) / np.sqrt(values.size)
    return float(values.mean()) - error, float(values.mean()) + error


def true_values(cells: Sequence[CellResult], oracle: str, chance: str) -> dict[str, dict[str, float | str]]:
    """Say of each policy its mean over seeds, its interval, and how far it is from chance to the oracle.

    The interval is over seeds; of a single seed, over its requests.
    """
    mean = {name: float(np.mean([c.mean(name) for c in cells])) for name in cells[0].kinds}
    found: dict[str, dict[str, float | str]] = {}
    for name, kind in cells[0].kinds.items():
        low, high = (
            interval([c.mean(name) for c in cells])
            if len(cells) > 1
            else normal_interval(cells[0].values[name])
        )
        found[name] = {
            "kind": kind,
            "mean": mean[name],
            "low": low,
            "high": high,
            "share_of_oracle": (mean[name] - mean[chance]) / (mean[oracle] - mean[chance]),
            **{
                part: float(np.mean([c.parts[name][part] for c in cells]))
                for part in ("clicks", "purchases", "stars")
            },
        }
    return found


def paired(cells: Sequence[CellResult], policy: str, other: str) -> dict[str, float]:
    """Give the share by which one policy's true value is above another's, paired; its interval."""
    shares = [c.mean(policy) / c.mean(other) - 1 for c in cells]
    low, high = interval(shares)
    if len(cells) == 1:
        difference = (cells[0].values[policy] - cells[0].values[other]) / cells[0].mean(other)
        low, high = normal_interval(difference)
    return {"mean": float(np.mean(shares)), "low": low, "high": high}


def metrics_of_regime(
    cells: Sequence[CellResult], seeds: Sequence[int]
) -> dict[str, dict[str, float | None]]:
    """Compare every metric with the truth over a regime's policies, on the choosing and confirming seeds."""
    policies = near_policies(cells)
    choosing = set(seeds[:CHOSEN_SEEDS])
    found: dict[str, dict[str, float | None]] = {}
    for metric in cells[0].metrics:
        alike = {c.seed: agreement(c, c.metrics[metric], policies) for c in cells}
        by_chance = [agreement(c, c.shuffled[metric], policies).rank_correlation for c in cells]
        first = [alike[s].rank_correlation for s in alike if s in choosing]
        rest = [alike[s].rank_correlation for s in alike if s not in choosing]
        pairs = sum(a.pairs for a in alike.values())
        found[metric] = {
            "rank_correlation": _mean(first),
            "confirmed": _mean(rest),
            "lowest": _mean([min(a.rank_correlation for a in alike.values())]),
            "wrong_pairs": sum(a.wrong for a in alike.values()) / pairs if pairs else None,
            "pairs": float(pairs),
            "policies": float(len(policies)),
            "random_labels": _mean(by_chance),
        }
    return found


def metrics_of_all(
    regimes: Mapping[str, Mapping[str, Mapping[str, float | None]]],
) -> dict[str, dict[str, object]]:
    """Say of each metric how alike it is where it is least so, and whether it may lead for lists."""
    found: dict[str, dict[str, object]] = {}
    for metric in next(iter(regimes.values())):
        of = [regime[metric] for regime in regimes.values()]
        chosen, confirmed = _least([o["rank_correlation"] for o in of]), _least([o["confirmed"] for o in of])
        found[metric] = {
            "rank_correlation": chosen,
            "confirmed": confirmed,
            "wrong_pairs": _most([o["wrong_pairs"] for o in of]),
            "primary": all(value is not None and value >= ENOUGH for value in (chosen, confirmed)),
        }
    return found


def _mean(values: Sequence[float]) -> float | None:
    """Average; None without values, or where one is not defined."""
    return float(np.mean(values)) if values and not np.isnan(values).any() else None


def _least(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return min(known) if len(known) == len(values) else None


def _most(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return max(known) if len(known) == len(values) else None
