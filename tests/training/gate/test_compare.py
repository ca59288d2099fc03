"""All comparisons of a night: which days they read, what the fused order adds, what the night could tell."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from recsys.config import GateConfig, default_config
from recsys.fusion import Fusion, Term
from recsys.records import Verdict
from training.gate import GateRows, compare_bundles, decide
from training.gate.list_value import NAME

CLICK, PURCHASE, _ = default_config().tasks
TASKS = [CLICK, PURCHASE]
TODAY = date(2026, 1, 30)
GATED = {"click": TODAY, "purchase": TODAY}
FUSION = Fusion(terms={"click": Term(weight=1.0), "purchase": Term(weight=2.0)})
USERS, ROWS = 400, 16_000


def scored(noise=0.0, score=None, yesterday=0.0):
    """Lists of ten on two days; noise spoils the click head's order, `yesterday` that of the day before."""
    rng = np.random.default_rng(0)
    click = rng.uniform(0.05, 0.5, ROWS)
    bought = rng.random(ROWS) < 0.02
    day = [TODAY - timedelta(days=1)] * (ROWS // 2) + [TODAY] * (ROWS // 2)
    labels = {"label_click": (rng.random(ROWS) < click).astype(float), "label_purchase": bought.astype(float)}
    spoiled = np.random.default_rng(1).normal(0, 1, ROWS)
    order = click + noise * spoiled + np.where(np.arange(ROWS) < ROWS // 2, yesterday, 0.0) * spoiled
    fused = order if score is None else click + score * spoiled
    predicted = {
        f"{held}prediction_{task}": values
        for task, values in (("click", np.clip(order, 0.001, 0.999)), ("purchase", np.full(ROWS, 0.02)))
        for held in ("", "list_")
    }
    return pl.DataFrame(
        {
            "impression_id": [f"r{n}:1" for n in range(ROWS)],
            "user_id": [f"u{n // 10 % USERS}" for n in range(ROWS)],
            "date": day,
            "weight": np.ones(ROWS),
            "list_group": np.arange(ROWS) // 10,
            "examination": np.ones(ROWS),
            **labels,
            **predicted,
            "score": fused,
            "list_score": fused,
        }
    )


def compare(challenger, champion, live=FUSION, anchor=None, **gate):
    rows = GateRows(challenger=challenger, champion=champion, anchor=anchor, gated=GATED)
    config = GateConfig(**{"replicates": 60, "max_ece": 1.0, **gate})
    return compare_bundles(TASKS, rows, FUSION, live, config, 0)


def outcomes(found):
    return {check.name: check.outcome for check in found.checks}


VALUE = f"{NAME} (click + purchase)"
ORDER = "click AUC inside lists"


def test_equal_bundles_pass_and_the_rare_head_only_vetoes():
    found = compare(scored(), scored())
    assert decide("c", "d", found.checks).verdict is Verdict.PROMOTE
    assert {ORDER, VALUE} < outcomes(found).keys()
    assert found.list_value == pytest.approx(
        next(c.numbers["challenger"] for c in found.checks if c.name == VALUE)
    )


def test_a_fused_order_that_loses_is_held_where_every_head_is_as_it_was():
    found = compare(scored(score=0.15), scored())
    assert outcomes(found)[ORDER] is Verdict.PROMOTE
    assert outcomes(found)[VALUE] is not Verdict.PROMOTE


def test_what_a_list_is_worth_is_not_compared_where_the_weights_are_others():
    found = compare(scored(score=0.15), scored(), live=Fusion(terms={"click": Term(weight=1.0)}))
    assert VALUE not in outcomes(found)
    assert outcomes(found)[NAME] is Verdict.PROMOTE


def test_orders_are_compared_by_both_days_and_limits_by_the_evaluated_one():
    spoiled = scored(yesterday=0.5)
    found = compare(spoiled, scored())
    assert outcomes(found)[ORDER] is Verdict.HOLD
    ece = [
        next(c for c in compare(rows, None).checks if c.name == "click ECE") for rows in (spoiled, scored())
    ]
    assert ece[0].detail == ece[1].detail
    assert found.power[0].users == USERS


@pytest.mark.parametrize(
    ("underpowered", "verdict"), [("hold", Verdict.HOLD_UNDERPOWERED), ("promote", Verdict.PROMOTE)]
)
def test_a_night_that_can_compare_nothing_is_held(underpowered, verdict):
    found = compare(scored(), scored(), min_rows=ROWS + 1, underpowered=underpowered)
    assert decide("c", "d", found.checks).verdict is verdict
    first = compare(scored(), None, min_rows=ROWS + 1)
    assert decide(None, "d", first.checks).verdict is Verdict.PROMOTE, "nothing is live that could be worse"


@pytest.mark.parametrize(
    ("underpowered", "verdict"), [("hold", Verdict.HOLD_UNDERPOWERED), ("promote", Verdict.PROMOTE)]
)
def test_a_night_that_has_too_few_labels_to_tell_is_held_unless_the_config_says_otherwise(
    underpowered, verdict
):
    few = scored(noise=0.05)[-1000:], scored()[-1000:]
    found = compare(*few, margin=0.01, underpowered=underpowered)
    assert decide("c", "d", found.checks).verdict is verdict, found.checks


def test_the_anchor_is_compared_by_the_same_rule_and_named():
    creeping, best = scored(noise=0.06), scored()
    found = compare(creeping, creeping, anchor=best)
    said = outcomes(found)
    assert said[ORDER] is Verdict.PROMOTE
    assert said[f"{ORDER}, anchor"] is not Verdict.PROMOTE
    detail = next(c.detail for c in found.checks if c.name == f"{ORDER}, anchor")
    assert "anchor 0." in detail


def test_the_power_follows_from_the_standard_errors():
    found = compare(scored(noise=0.01), scored())
    by_users = {at.users: at for at in found.power}
    assert [*by_users] == [USERS, 500, 2_000, 20_000]
    rates = [by_users[users].stated_rate for users in by_users]
    assert rates == sorted(rates)
    assert ORDER in by_users[20_000].deciding
    error = next(c.numbers["standard_error"] for c in found.checks if c.name == ORDER)
    check = next(c for c in found.checks if c.name == ORDER)
    adds = check.numbers["margin"] / 0.1
    tonight, many = by_users[USERS], by_users[20_000]
    assert tonight.detectable[ORDER] == pytest.approx(
        (0.1 * adds - (1.645 - 1.2816) * error) / adds, rel=1e-3
    )
    small = error * np.sqrt(USERS / 20_000)
    assert many.detectable[ORDER] == pytest.approx((0.1 * adds - (1.645 - 1.2816) * small) / adds, rel=1e-3)


def test_without_a_champion_there_is_no_power_to_state():
    assert compare(scored(), None).power == ()
