"""Which heads decide a night, which only veto, and how often equal models and models at the margin pass."""

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from recsys.config import GateConfig
from recsys.metrics.effect import Effect
from recsys.records import Verdict
from training.gate.non_inferiority import LEAST_TELLING, HeadComparison, check_comparisons

Z = NormalDist().inv_cdf(0.95)
ADDS = 0.2
MARGIN = 0.1 * ADDS
DECIDES, RARE = MARGIN / 2.93, MARGIN / 0.5


def head(gain: float, error: float, *, higher_is_better: bool = True) -> HeadComparison:
    """A head whose champion adds ADDS, with a difference and its standard error."""
    sign = 1.0 if higher_is_better else -1.0
    low, high = sorted((sign * (gain - Z * error), sign * (gain + Z * error)))
    effect = Effect(
        metric="list_auc",
        a=0.7,
        b=0.7 + sign * gain,
        difference=sign * gain,
        ci_low=low,
        ci_high=high,
        p_value=None,
        level=0.9,
        higher_is_better=higher_is_better,
        users=100,
        rows=1000,
        replicates=200,
    )
    return HeadComparison(name="click", effect=effect, adds=ADDS, config=GateConfig())


def outcomes(*heads: HeadComparison) -> list[Verdict]:
    return [check.outcome for check in check_comparisons(list(heads))]


@pytest.mark.parametrize("better", [True, False])
@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        (0.0, Verdict.PROMOTE),
        (-1.3 * DECIDES, Verdict.HOLD_UNDERPOWERED),  # its interval holds the margin's loss
        (-MARGIN - 2 * DECIDES, Verdict.HOLD),
    ],
)
def test_a_head_that_decides_must_pass(gain, verdict, better) -> None:
    assert outcomes(head(gain, DECIDES * 0.999, higher_is_better=better)) == [verdict]


def test_a_head_with_few_labels_needs_to_pass_only_where_no_other_decides() -> None:
    rare = head(-0.2 * RARE, RARE)
    assert outcomes(rare) == [Verdict.HOLD_UNDERPOWERED]
    assert outcomes(rare, rare) == [Verdict.HOLD_UNDERPOWERED] * 2
    assert '[gate] underpowered = "promote"' in check_comparisons([rare])[0].detail, (
        "what a small shop can do"
    )
    assert outcomes(head(0.0, DECIDES * 0.999), rare) == [Verdict.PROMOTE] * 2
    assert outcomes(head(2 * RARE, RARE)) == [Verdict.PROMOTE], "shown to be no worse without power"


def test_a_head_that_is_shown_to_be_better_is_evidence_although_it_does_not_decide() -> None:
    rare, shared = head(-0.2 * RARE, RARE), NormalDist().inv_cdf(1 - 0.05 / 2)
    assert outcomes(head((shared + 0.1) * RARE, RARE), rare) == [Verdict.PROMOTE] * 2
    assert outcomes(head((shared - 0.1) * RARE, RARE), rare)[1] is Verdict.HOLD_UNDERPOWERED
    nothing_to_lose = replace(head((shared + 0.1) * RARE, RARE), adds=0.0)
    assert outcomes(nothing_to_lose, rare) == [Verdict.PROMOTE] * 2
    few = replace(nothing_to_lose, telling=LEAST_TELLING - 1)
    assert outcomes(few, rare)[1] is Verdict.HOLD_UNDERPOWERED, "of nine positives an interval is too short"
    assert outcomes(replace(few, telling=LEAST_TELLING), rare) == [Verdict.PROMOTE] * 2


def test_a_head_with_few_labels_still_vetoes_what_is_shown_to_be_worse() -> None:
    sure = head(0.0, DECIDES * 0.999)
    shared = NormalDist().inv_cdf(1 - 0.05 / 2)
    assert outcomes(sure, head(-(shared + 0.1) * RARE, RARE)) == [Verdict.PROMOTE, Verdict.HOLD]
    assert outcomes(sure, head(-(shared - 0.1) * RARE, RARE)) == [Verdict.PROMOTE] * 2


def test_a_head_that_lost_half_vetoes_where_chance_would_not_show_it() -> None:
    sure, half = head(0.0, DECIDES * 0.999), ADDS / 2
    many = [sure] * 30  # so that alpha, shared, asks for more than half
    assert outcomes(*many, head(-half * 1.05, half / (Z + 0.05)))[-1] is Verdict.HOLD
    assert outcomes(*many, head(-half * 1.05, half / (Z - 0.05)))[-1] is Verdict.PROMOTE


def test_a_head_without_an_interval_holds_for_want_of_labels() -> None:
    alone = head(0.0, DECIDES)
    unknown = HeadComparison(
        name="purchase",
        effect=alone.effect.model_copy(update={"ci_low": None, "ci_high": None}),
        adds=ADDS,
        config=GateConfig(),
    )
    assert outcomes(unknown) == [Verdict.HOLD_UNDERPOWERED]
    assert outcomes(head(0.0, DECIDES * 0.999), unknown) == [Verdict.PROMOTE] * 2


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0.88, 0.92), (1.0, 0.03, 0.07)])
def test_equal_models_pass_in_nine_nights_of_ten_and_those_at_the_margin_in_one_of_twenty(
    share, low, high
) -> None:
    gains = np.random.default_rng(3).normal(-share * MARGIN, DECIDES, 4000)
    passed = np.mean([outcomes(head(float(gain), DECIDES * 0.9999)) == [Verdict.PROMOTE] for gain in gains])
    assert low < passed < high


def test_the_check_says_how_often_an_equal_model_passes() -> None:
    (check,) = check_comparisons([head(0.0, DECIDES)])
    assert check.numbers["equal_passes"] == pytest.approx(0.9, abs=0.002)
    assert "an equal model passes 90% of such nights" in check.detail
    assert check.numbers["standard_error"] == pytest.approx(DECIDES)
