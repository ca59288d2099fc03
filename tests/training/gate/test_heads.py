"""What holds a night: bad calibration beside the live bundle's, or none; heads that cannot be evaluated."""

import numpy as np
import polars as pl
import pytest

from recsys.calibration import Identity, Platt, SamplingShift
from recsys.config import GateConfig, default_config
from recsys.records import Check, Verdict
from recsys.tasks import TaskSpec
from training.gate import check_calibration
from training.gate.heads import check_heads

CLICK: TaskSpec = default_config().tasks[0]
ROWS = 4_000


def scored(bias: float, label: np.ndarray | None = None, order: np.ndarray | None = None) -> pl.DataFrame:
    """Rows whose probabilities are off by a factor; `order` puts the rows of each list in order."""
    rng = np.random.default_rng(0)
    chance = rng.uniform(0.02, 0.3, ROWS)
    drawn = (rng.random(ROWS) < chance).astype(float)
    return pl.DataFrame(
        {
            "impression_id": [f"r{n}:1" for n in range(ROWS)],
            "user_id": [f"u{n % 400}" for n in range(ROWS)],
            "weight": np.ones(ROWS),
            "list_group": np.arange(ROWS) // 10,
            "examination": np.ones(ROWS),
            "label_click": drawn if label is None else label,
            "prediction_click": chance * bias,
            "list_prediction_click": chance if order is None else order,
        }
    )


def check(name: str, checks: list[Check]) -> Check:
    return next(one for one in checks if one.name == name)


@pytest.mark.parametrize(
    ("challenger", "champion", "outcome"),
    [
        (1.0, 1.0, Verdict.PROMOTE),
        (2.5, 1.0, Verdict.HOLD),
        (2.5, 3.0, Verdict.PROMOTE),
        (3.0, 2.5, Verdict.HOLD),
        (2.5, None, Verdict.HOLD),
    ],
)
def test_calibration_may_be_as_bad_as_the_live_bundles_and_no_worse(challenger, champion, outcome) -> None:
    live = None if champion is None else scored(champion)
    found = check("click ECE", check_heads([CLICK], scored(challenger), live, GateConfig(), 0))
    assert found.outcome is outcome, found.detail


def test_users_who_share_an_impression_id_are_compared_with_themselves() -> None:
    """Joined by the id alone, each row met the champion's prediction for the other user as well."""
    shared = pl.Series("impression_id", [f"r{n // 2}:1" for n in range(ROWS)])
    challenger, champion = scored(2.5), scored(3.0)
    alone = check_heads([CLICK], challenger, champion, GateConfig(), 0)
    mixed = [rows.with_columns(shared) for rows in (challenger, champion)]
    assert check_heads([CLICK], *mixed, GateConfig(), 0) == alone


@pytest.mark.parametrize("champion", [True, False])
def test_a_day_with_one_kind_of_label_is_reported_and_not_evaluated(champion) -> None:
    rows = scored(1.0, np.zeros(ROWS))
    (found,) = check_heads([CLICK], rows, rows if champion else None, GateConfig(), 0)
    assert found.outcome is Verdict.PROMOTE
    assert found.detail == f"all {ROWS} labels are 0, an AUC needs both kinds: reported, not evaluated"


def test_lists_with_equal_labels_are_reported_and_not_evaluated() -> None:
    rows = scored(1.0, (np.arange(ROWS) // 10 % 2).astype(float))
    (found,) = check_heads([CLICK], rows, None, GateConfig(), 0)
    assert found.outcome is Verdict.PROMOTE
    assert f"in none of the lists do the {ROWS} labels differ" in found.detail


@pytest.mark.parametrize("champion", [True, False])
def test_a_head_is_held_when_it_no_longer_orders_its_lists(champion) -> None:
    """Who clicks much is still known: the predictions that the pooled AUC reads are the champion's own."""
    worse = scored(1.0, order=np.ones(ROWS))
    live = scored(1.0) if champion else None
    name = "click AUC inside lists"
    assert check(name, check_heads([CLICK], scored(1.0), live, GateConfig(), 0)).outcome is Verdict.PROMOTE
    found = check(name, check_heads([CLICK], worse, live, GateConfig(), 0))
    assert found.outcome is Verdict.HOLD, found.detail


def test_the_margin_is_a_share_of_what_the_champion_adds() -> None:
    found = check("click AUC inside lists", check_heads([CLICK], scored(1.0), scored(1.0), GateConfig(), 0))
    assert found.numbers["margin"] == pytest.approx(0.1 * (found.numbers["champion"] - 0.5))
    rating = next(task for task in default_config().tasks if task.name == "rating")
    rng = np.random.default_rng(0)
    stars = rng.normal(3.0, 1.0, ROWS)
    rows = scored(1.0).with_columns(
        label_rating=stars,
        prediction_rating=3.0 + 0.6 * (stars - 3.0),
        list_prediction_rating=3.0 + 0.6 * (stars - 3.0),
    )
    found = check("rating RMSE", check_heads([rating], rows, rows, GateConfig(), 0))
    assert found.numbers["champion"] == pytest.approx(0.4 * stars.std(), rel=0.01)
    assert found.numbers["margin"] == pytest.approx(0.1 * (stars.std() - found.numbers["champion"]))


def test_a_head_with_few_rows_is_reported_and_not_evaluated() -> None:
    (found,) = check_heads([CLICK], scored(1.0)[:100], None, GateConfig(), 0)
    assert found.outcome is Verdict.PROMOTE
    assert "100 labelled rows, 500 are needed" in found.detail


@pytest.mark.parametrize("calibrator", [Identity(), SamplingShift(b=-2.0)])
def test_a_head_that_should_be_calibrated_and_is_not_holds_the_night(calibrator) -> None:
    wanted = default_config().calibration
    (found,) = check_calibration([CLICK], {"click": calibrator}, wanted)
    assert (found.name, found.outcome) == ("click calibration", Verdict.HOLD)
    assert found.detail.startswith("uncalibrated: no label was known")
    assert check_calibration([CLICK], {"click": calibrator}, {**wanted, "binary": "none"}) == []
    assert check_calibration([CLICK], {"click": Platt(a=1.0, b=-2.0)}, wanted) == []
