"""The order that is served is held where a weight of the score turns it around, and nowhere else."""

import numpy as np
import polars as pl
import pytest

from recsys.config import GateConfig, default_config
from recsys.fusion import Fusion, Term
from recsys.records import Verdict
from training.gate.served_order import check_served_order

CLICK, PURCHASE, RATING = default_config().tasks
NUM_ROWS = 4_000


def scored(seed=0, **weights):
    """Rows in lists of ten, whose clicks and purchases follow predictions of their own, and a fused score."""
    rng = np.random.default_rng(seed)
    click, purchase = rng.uniform(0.02, 0.5, NUM_ROWS), rng.uniform(0.02, 0.4, NUM_ROWS)
    fusion = Fusion(terms={task: Term(weight=weight) for task, weight in weights.items()})
    score = fusion.score({"click": click.astype(np.float32), "purchase": purchase.astype(np.float32)})
    return pl.DataFrame(
        {
            "impression_id": [f"r{n}:1" for n in range(NUM_ROWS)],
            "user_id": [f"u{n % 400}" for n in range(NUM_ROWS)],
            "weight": np.ones(NUM_ROWS),
            "list_group": np.arange(NUM_ROWS) // 10,
            "examination": np.ones(NUM_ROWS),
            "label_click": (rng.random(NUM_ROWS) < click).astype(float),
            "label_purchase": (rng.random(NUM_ROWS) < purchase).astype(float),
            "label_rating": np.full(NUM_ROWS, np.nan),
            "score": score,
            "list_score": score,
        }
    )


def outcomes(challenger, champion, **gate):
    checks = check_served_order([CLICK, PURCHASE, RATING], challenger, champion, GateConfig(**gate), 0)
    return {check.name.split()[0]: check.outcome for check in checks}


P, H = Verdict.PROMOTE, Verdict.HOLD


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"click": 1.0, "purchase": 1.0}, {"click": P, "purchase": P}),
        ({"click": 1.0, "purchase": 1.3}, {"click": P, "purchase": P}),
        ({"click": -1.0, "purchase": 1.0}, {"click": H, "purchase": P}),
        ({"click": 1.0, "purchase": -1.0}, {"click": P, "purchase": H}),
        ({"click": -1.0, "purchase": -1.0}, {"click": H, "purchase": H}),
    ],
)
def test_weights_of_the_wrong_sign_are_held_and_other_ones_are_not(weights, expected):
    assert outcomes(scored(**weights), scored(click=1.0, purchase=1.0)) == expected


def test_a_score_that_runs_against_a_head_on_purpose_goes_on():
    """As against complaints: there a rise is the loss."""
    against = scored(click=-1.0, purchase=1.0)
    assert outcomes(against, against) == {"click": P, "purchase": P}
    assert outcomes(scored(click=1.0, purchase=1.0), against)["click"] is H


def test_an_order_that_is_worn_out_may_be_mended_although_chance_put_it_below_chance():
    noise = pl.Series(np.random.default_rng(8).random(NUM_ROWS))
    worn = scored(click=1.0, purchase=1.0).with_columns(score=noise, list_score=noise)
    (check,) = check_served_order([CLICK], scored(click=1.0, purchase=1.0), worn, GateConfig(), 0)
    assert 0.48 < check.numbers["champion"] < 0.5 < check.numbers["challenger"] - 0.05
    assert check.outcome is P, check.detail


def test_few_labels_do_not_say_that_an_order_runs_against_them_on_purpose():
    """Two orders that are nearly one differ by a sure figure; that the champion's is below chance is not."""
    rows = scored(click=1.0, purchase=1.0)[:600]
    noise = pl.Series(np.random.default_rng(3).random(600))
    mended = noise + 0.1 * rows["label_click"]
    worn, better = (rows.with_columns(score=order, list_score=order) for order in (noise, mended))
    (check,) = check_served_order([CLICK], better, worn, GateConfig(), 0)
    assert check.numbers["champion"] < 0.5 - 4 * check.numbers["standard_error"]
    assert check.numbers["challenger"] - check.numbers["champion"] > check.numbers["allowed"]
    assert check.outcome is P, check.detail


def test_what_is_not_clear_does_not_go_live_either():
    turned, live = (scored(click=weight, purchase=1.0)[:150] for weight in (-0.3, 0.3))
    (found,) = check_served_order([CLICK], turned, live, GateConfig(min_rows=100), 0)
    assert found.numbers["champion"] - found.numbers["challenger"] > found.numbers["allowed"]
    assert found.outcome is Verdict.HOLD_UNDERPOWERED


def test_an_unclear_loss_of_a_head_with_few_labels_is_excused_where_another_head_passes():
    """A rare head's AUC moves by more than is allowed in many nights of equal models."""
    few = pl.when(pl.int_range(pl.len()) < 150).then("label_purchase")
    live = scored(click=1.0, purchase=0.2).with_columns(label_purchase=few)
    noise = pl.Series(np.random.default_rng(5).normal(0.0, 0.08, NUM_ROWS))
    other = live.with_columns(pl.col("score", "list_score") + noise)
    (alone,) = check_served_order([PURCHASE], other, live, GateConfig(min_rows=100), 0)
    assert alone.outcome is Verdict.HOLD_UNDERPOWERED
    assert outcomes(other, live, min_rows=100) == {"click": P, "purchase": P}
    _, excused = check_served_order([CLICK, PURCHASE], other, live, GateConfig(min_rows=100), 0)
    assert excused.detail.endswith("; too few labels to tell: it shows no loss")
    turned = other.with_columns(-pl.col("score", "list_score"))
    assert outcomes(turned, live, min_rows=100)["purchase"] is not P, "where click does not pass either"


def test_the_share_may_be_chosen():
    half = scored(click=1.0, purchase=1.0), scored(click=1.0, purchase=0.0)
    assert outcomes(half[1], half[0])["purchase"] is H
    assert outcomes(half[1], half[0], min_served_share=0.0)["purchase"] is P


@pytest.mark.parametrize(("click", "expected"), [(1.0, P), (-1.0, H)])
def test_a_first_night_may_not_run_against_its_first_head(click, expected):
    assert outcomes(scored(click=click, purchase=0.0), None) == {"click": expected}


@pytest.mark.parametrize("click", [1.0, -1.0])
def test_a_first_night_without_a_floor_for_its_heads_has_none_for_its_score(click):
    assert outcomes(scored(click=click, purchase=0.0), None, min_list_auc=0.0) == {"click": P}


def test_few_rows_and_equal_labels_are_not_evaluated():
    turned, live = scored(click=-1.0), scored(click=1.0)
    assert outcomes(turned, live, min_rows=NUM_ROWS + 1) == {}
    assert "click" not in outcomes(turned.with_columns(label_click=0.0), live)


def test_what_is_held_says_what_to_do():
    (found, *_) = check_served_order([CLICK], scored(click=-1.0), scored(click=1.0), GateConfig(), 0)
    assert found.name == "click AUC inside lists of the served score"
    assert "look at [fusion], or allow it with a lower [gate] min_served_share" in found.detail
