"""How much of a log speaks of the target policy, and when that is too little to trust a figure.

Legend: R lists, K places.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import NormalDist

import numpy as np
from pydantic import BaseModel, ConfigDict

from recsys.metrics.columns import Vector, effective_rows
from recsys.offpolicy.estimators import Weights

MIN_EFFECTIVE = 1000.0
MIN_POSITIVES = 100.0
MIN_COVERAGE = 0.8
AGREE_ERROR = 0.01
"""Chance that estimators of one value are called unequal, over all their pairs."""
UNBIASED = ("ips", "snips", "dr", "rips", "snrips", "cascade_dr")
"""They estimate one value; where they differ by more than chance, propensities or support are wrong."""


class Support(BaseModel):
    """What of the log stands behind a value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lists: int
    units: int
    effective: float
    """Kish's effective number of lists, at the place where it is least."""
    effective_by_place: tuple[float, ...]
    effective_positives: float
    """The same over places that earned something, by their prefix weights."""
    max_weight: float
    """Of a prefix; the mean is 1 where the log covers the target."""
    coverage: float
    """Share of the target's lists that the logging policy can show, estimated by the mean weight, at the
    place where it is least; more than 1 counts as 1."""
    clip: float
    clip_share: float
    """Share of lists with a weight above the clip."""
    places_supported: int
    """So many places from the top have enough effective lists and coverage by themselves."""


def support_of(weights: Weights, num_units: int) -> Support:
    """Measure the support of a target by the weights of its logged lists."""
    drawn = weights.drawn > 0
    sizes = [effective_rows(place) for place in weights.prefix.T]
    covered = [float(place.mean()) for place in weights.prefix.T]
    earned = drawn & (weights.reward > 0)
    enough = [s >= MIN_EFFECTIVE and c >= MIN_COVERAGE for s, c in zip(sizes, covered, strict=True)]
    return Support(
        lists=len(drawn),
        units=num_units,
        effective=min(sizes),
        effective_by_place=tuple(sizes),
        effective_positives=effective_rows(weights.prefix[earned]),
        max_weight=float(weights.prefix[drawn].max(initial=0.0)),
        coverage=min(1.0, *covered),
        clip=weights.clip,
        clip_share=float((weights.whole > weights.clip).mean()),
        places_supported=enough.index(False) if False in enough else len(enough),
    )


def problems_of(support: Support, draws: Mapping[str, Vector]) -> tuple[str, ...]:
    """Say why a value is not trustworthy; nothing where it is. Args: draws: `bootstrap_values`."""
    found = []
    if support.effective < MIN_EFFECTIVE:
        found.append(
            f"effective size {support.effective:,.0f} of {support.lists:,} lists is below "
            f"{MIN_EFFECTIVE:,.0f}"
        )
    if support.effective_positives < MIN_POSITIVES:
        found.append(
            f"{support.effective_positives:,.0f} effective positives are fewer than {MIN_POSITIVES:,.0f}"
        )
    if support.coverage < MIN_COVERAGE:
        found.append(
            f"the log covers {support.coverage:.0%} of the target's lists, less than {MIN_COVERAGE:.0%}"
        )
    return (*found, *_disagreements(draws))


def _disagreements(draws: Mapping[str, Vector]) -> Sequence[str]:
    """Name the estimators of one value that differ most beyond chance, and count the other pairs that do."""
    found = []
    pairs = list(combinations([name for name in UNBIASED if name in draws], 2))
    limit = NormalDist().inv_cdf(1.0 - AGREE_ERROR / (2 * len(pairs)))
    for a, b in pairs:
        difference = draws[b] - draws[a]
        difference = difference[np.isfinite(difference)]
        if not difference.size:
            continue
        # Of one place some are the same numbers: what is left of their difference is rounding.
        rounding = 1e-9 * float(np.abs(np.nan_to_num(draws[a])).max(initial=0.0))
        apart, error = float(difference.mean()), float(difference.std())
        if abs(apart) > rounding + limit * error:
            said = f"{a} and {b} disagree: they differ by {apart:.3g} ± {error:.2g}"
            found.append((abs(apart) / max(error, rounding, np.finfo(np.float64).tiny), said))
    if not found:
        return ()
    _, worst = max(found, key=lambda pair: pair[0])
    others = len(found) - 1
    return (f"{worst}; {others} more {'pair does' if others == 1 else 'pairs do'}" if others else worst,)
