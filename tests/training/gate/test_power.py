"""The stated rate is how often equal models pass: simulated nights of these standard errors say the same."""

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from recsys.config import GateConfig
from recsys.metrics.effect import Effect
from recsys.records import Verdict
from training.gate.non_inferiority import LEAST_TELLING, HeadComparison, check_comparisons
from training.gate.power import power_of

Z = NormalDist().inv_cdf(0.95)
MARGIN = 0.02
NIGHTS, USERS = 4000, 1000


def head(error: float, gain: float = 0.0, **changes: object) -> HeadComparison:
    """A comparison whose interval is that of a gain with this standard error."""
    effect = Effect(
        metric="list_auc",
        a=0.7,
        b=0.7 + gain,
        difference=gain,
        ci_low=gain - Z * error,
        ci_high=gain + Z * error,
        p_value=None,
        level=0.9,
        higher_is_better=True,
        users=USERS,
        rows=1000,
        replicates=200,
    )
    made = HeadComparison(name="head", effect=effect, adds=10 * MARGIN, config=GateConfig(), telling=500)
    return replace(made, **changes)


def promoted(errors: list[float], **changes: object) -> float:
    """Give the share of nights that an equal model passes."""
    gains = np.random.default_rng(5).normal(size=(NIGHTS, len(errors))) * errors
    nights = ([head(e, g, **changes) for e, g in zip(errors, row, strict=True)] for row in gains.tolist())
    return float(np.mean([all(c.outcome is Verdict.PROMOTE for c in check_comparisons(n)) for n in nights]))


@pytest.mark.parametrize(
    ("in_margins", "changes"),
    [
        ([0.3, 1.0], {}),
        ([0.8, 1.5, 3.0], {}),  # none decides: all pass, or one is better by chance
        ([0.8, 1.5, 3.0], {"telling": LEAST_TELLING - 1}),
        ([0.8, 1.5, 3.0], {"adds": 0.0}),
        ([0.8, 1.5], {"config": GateConfig(underpowered="promote")}),
    ],
)
def test_equal_models_pass_as_often_as_is_stated(in_margins, changes) -> None:
    errors = [share * MARGIN for share in in_margins]
    stated = power_of([head(error, **changes) for error in errors], [], USERS)[0].stated_rate
    assert promoted(errors, **changes) == pytest.approx(stated, abs=3 * np.sqrt(0.25 / NIGHTS))


def test_fewer_users_have_fewer_telling_lists() -> None:
    """Of nine lists nobody is shown to be better, so an equal model passes by its margin alone."""
    few, many = ([head(3 * MARGIN, telling=telling)] * 2 for telling in (2 * LEAST_TELLING - 3, 500))
    rates = [{at.users: at.stated_rate for at in power_of(heads, [], USERS)} for heads in (few, many)]
    assert rates[0][USERS] == rates[1][USERS]
    assert rates[0][500] < rates[1][500]
