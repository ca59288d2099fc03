"""Wide guards: calibration of rare heads, shift, segments, pages, the bundle as served, the refit."""

import numpy as np
import polars as pl
import pytest

from recsys.bundle import load_bundle
from recsys.config import GateConfig, default_config
from recsys.index import ItemIndex
from recsys.levelled import with_mean
from recsys.records import Verdict
from training.gate import (
    ServedFacts,
    check_lists_alike,
    check_ratios,
    check_refit,
    check_served,
    check_shift,
)
from training.gate.calibration import predicted_over_observed
from training.gate.heads import check_heads, compare_with
from training.gate.refit import SEEN_SHIFT
from training.gate.segments import check_segments, segments_of
from training.gate.shift import stability_index
from training.served_facts import served_facts

CLICK, PURCHASE, RATING = default_config().tasks
P, H = Verdict.PROMOTE, Verdict.HOLD
ROWS, USERS = 8_000, 800


def scored(click=1.0, purchase=1.0, seed=0, spoiled=None):
    """Clicks of 2 to 40 %, purchases of 1 %; predictions off by a factor, that say nothing where spoiled."""
    rng = np.random.default_rng(seed)
    chance, rare = rng.uniform(0.02, 0.4, ROWS), np.full(ROWS, 0.01)
    order = chance.copy()
    past = np.arange(ROWS) // 10 % USERS % 3
    if spoiled is not None:
        order[past == spoiled] = rng.permutation(order[past == spoiled])
    return pl.DataFrame(
        {
            "impression_id": [f"r{n}:1" for n in range(ROWS)],
            "user_id": [f"u{n // 10 % USERS}" for n in range(ROWS)],
            "weight": np.ones(ROWS),
            "list_group": np.arange(ROWS) // 10,
            "examination": np.ones(ROWS),
            "user_past": past,
            "context_device": np.where(past == 0, "tv", "phone"),
            "label_click": (rng.random(ROWS) < chance).astype(float),
            "label_purchase": (rng.random(ROWS) < rare).astype(float),
            "prediction_click": np.minimum(order * click, 0.99),
            "list_prediction_click": order,
            "prediction_purchase": rare * purchase,
            "list_prediction_purchase": rng.random(ROWS),
        }
    )


@pytest.mark.parametrize(
    ("challenger", "champion", "outcome"),
    [
        ({}, {}, P),
        ({"purchase": 10.0}, {}, H),  # an absolute error of .09, and of .001 where one in ten thousand buys
        ({"purchase": 1.3}, {}, P),  # 80 purchases do not show that it is not 1.25
        ({"click": 1.5}, {}, H),
        ({"click": 0.6}, {}, H),
        ({"click": 1.5}, {"click": 1.6}, P),
        ({"click": 1.5}, {"click": 1.4}, P),
        ({"click": 1.7}, {"click": 1.4}, H),
        ({"click": 0.5}, {"click": 0.52}, P),
        ({"click": 0.5}, {"click": 0.7}, H),
        ({"click": 1.3}, {"click": 1.2}, H),  # not a tenth further off, but what is live is inside the limits
        ({"click": 0.72}, {"click": 0.8}, H),
    ],
)
def test_the_interval_of_predicted_over_observed_must_reach_the_limits(challenger, champion, outcome):
    checks = check_ratios([CLICK, PURCHASE], scored(**challenger), scored(**champion), GateConfig())
    assert [c.outcome for c in checks if c.outcome is H] == [H] * (outcome is H), [c.detail for c in checks]


def test_a_ratio_outside_the_limits_that_passes_says_why():
    def said(champion="champion", **ratios):
        rows = [scored(**{"click": value}) for value in ratios.values()]
        return next(c.detail for c in check_ratios([CLICK], *rows, GateConfig(), rival_name=champion))

    assert said(mine=1.0, theirs=1.0).endswith(", 0.8 to 1.25 are allowed, champion 1.019")
    far = said("before the refit", mine=1.5, theirs=1.6)
    assert far.endswith(", before the refit 1.631; that is hardly nearer to 1")
    (few,) = check_ratios([PURCHASE], scored(purchase=1.3), None, GateConfig())
    assert few.detail.endswith("; too few labels to tell: its interval reaches them")


def test_the_interval_of_a_ratio_holds_the_truth_in_nine_draws_of_ten():
    ratios = [predicted_over_observed(PURCHASE, scored(seed=seed), 0.05) for seed in range(60)]
    assert 48 <= sum(ratio.low <= 1 <= ratio.high for ratio in ratios) <= 60


def test_where_nothing_was_bought_many_predicted_purchases_are_held_and_few_are_not():
    nothing = pl.lit(0.0).alias("label_purchase")
    for factor, outcome in ((0.01, P), (1.0, H)):
        rows = scored(purchase=factor).with_columns(nothing)
        (check,) = check_ratios([PURCHASE], rows, None, GateConfig())
        assert check.outcome is outcome, check.detail


def test_a_first_night_is_not_held_by_a_rare_head_that_chance_put_below_the_floor():
    tasks, config = [CLICK, PURCHASE], GateConfig()

    def floors(rows):
        checks = {c.name: c for c in check_heads(tasks, rows, None, config, 0)}
        return [checks[f"{task} AUC inside lists"] for task in ("click", "purchase")]

    guessed = scored()
    turned = guessed.with_columns(-pl.col("list_prediction_purchase"))
    rows = min((guessed, turned), key=lambda r: floors(r)[1].numbers["list_auc"])
    click, purchase = floors(rows)
    assert purchase.numbers["list_auc"] < config.min_list_auc < purchase.numbers["high"]
    assert (click.outcome, purchase.outcome) == (P, P)
    assert "too few labels to tell" in purchase.detail
    wrong = rows.with_columns(list_prediction_purchase=-pl.col("label_purchase"))
    assert floors(wrong)[1].outcome is H, "what is shown to be below is held"
    blind = rows.with_columns(list_prediction_click=pl.lit(0.5))
    assert [c.outcome for c in floors(blind)] == [H, H], "where no head orders, nothing excuses"
    assert "lower [gate] min_list_auc" in floors(blind)[0].detail


def test_a_comparison_says_how_many_lists_tell():
    clicked = pl.int_range(pl.len()).is_in([0, 3, 15]).cast(pl.Float64)  # two of them in one list
    rows = scored().with_columns(
        label_click=clicked, label_rating=clicked, prediction_rating=clicked, list_prediction_rating=clicked
    )
    click, rating = compare_with([CLICK, RATING], rows, rows, GateConfig(), 0)
    assert (click.telling, rating.telling) == (2, None)


@pytest.mark.parametrize(("times", "outcome"), [(0.45, P), (10.0, H), (0.1, H)])
def test_where_most_rows_are_drawn_negatives_the_limits_are_wide(times, outcome):
    """Their rate follows how many items they were drawn from, and moves with it."""
    rows = scored(click=times)
    (plain,) = check_ratios([CLICK], rows, None, GateConfig())
    assert plain.outcome is H
    rows = rows.with_columns(sampled=pl.int_range(pl.len()) % 5 > 0)
    (check,) = check_ratios([CLICK], rows, None, GateConfig())
    assert check.outcome is outcome, check.detail


def test_heads_with_few_rows_are_not_asked_what_they_predict():
    assert check_ratios([CLICK], scored(click=3.0)[:400], None, GateConfig()) == []


def test_predictions_that_moved_are_held_and_those_of_another_draw_are_not():
    same, moved = scored(), scored(click=0.3)
    assert [c.outcome for c in check_shift([CLICK], same, scored(seed=1), GateConfig())] == [P]
    (held,) = check_shift([CLICK], moved, same, GateConfig())
    assert held.outcome is H
    broken = same.with_columns(pl.lit(float("nan")).alias("prediction_click"))
    assert [c.outcome for c in check_shift([CLICK], broken, None, GateConfig())] == [H]


def test_a_shift_that_the_labels_ask_for_is_not_held():
    """The live bundle's level has drifted away: holding what mends it would hold every night to come."""
    right, drifted, config = scored(), scored(click=0.3), GateConfig()
    (check,) = check_shift([CLICK], right, drifted, config)
    assert check.numbers["psi"] > config.max_prediction_shift
    assert check.outcome is P, check.detail
    assert "the labels ask for it" in check.detail
    (learned,) = check_shift([CLICK], right, drifted, config, learned=True)
    assert learned.outcome is H, "labels that were learned excuse nothing"
    hidden = pl.when(pl.int_range(pl.len()) < 5).then("label_click").alias("label_click")
    (few,) = check_shift([CLICK], right.with_columns(hidden), drifted, config)
    assert few.outcome is H, "five labels show nothing"


@pytest.mark.parametrize(("bought", "factor"), [(0, 1e-4), (1, 0.3), (2, 0.5)])
def test_next_to_no_purchases_do_not_ask_for_a_head_that_fell(bought, factor):
    """Of 600 rows six were expected to be bought: the gains hardly vary, so by themselves they seem sure."""
    place = pl.int_range(pl.len())
    label = pl.when(place < 600).then((place % 60 == 0) & (place < 60 * bought))
    expected = pl.Series(np.random.default_rng(1).uniform(0.008, 0.012, ROWS))
    live = scored().with_columns(label_purchase=label.cast(pl.Float64), prediction_purchase=expected)
    fallen = live.with_columns(pl.col("prediction_purchase") * factor)
    (check,) = check_shift([PURCHASE], fallen, live, GateConfig())
    assert check.numbers["psi"] > GateConfig().max_prediction_shift
    assert check.outcome is H, check.detail


def test_a_shift_of_values_is_asked_for_by_labels_of_rows_enough():
    rng = np.random.default_rng(0)
    stars = rng.integers(1, 6, ROWS).astype(float)
    right = scored().with_columns(
        label_rating=pl.Series(stars), prediction_rating=pl.Series(stars) * 0.5 + 1.5
    )
    drifted = right.with_columns(prediction_rating=pl.col("prediction_rating") - 3.0)
    few = right.with_columns(pl.when(pl.int_range(pl.len()) < 400).then("label_rating").alias("label_rating"))
    for rows, outcome in ((right, P), (few, H)):
        (check,) = check_shift([RATING], rows, drifted, GateConfig())
        assert check.outcome is outcome, check.detail


@pytest.mark.parametrize(("move", "outcome"), [(0.2, P), (2.0, H)])
def test_values_that_were_narrow_may_move_a_little(move, outcome):
    rng = np.random.default_rng(0)
    rows = scored().with_columns(label_rating=pl.Series(rng.integers(1, 6, ROWS).astype(float)))
    old = rows.with_columns(prediction_rating=pl.Series(rng.normal(3, 0.01, ROWS)))
    new = old.with_columns(pl.col("prediction_rating") + move)
    (check,) = check_shift([RATING], new, old, GateConfig())
    assert check.numbers["psi"] > GateConfig().max_prediction_shift
    assert check.outcome is outcome, check.detail


def test_the_stability_index_by_hand():
    old = np.arange(1000.0)
    assert stability_index(old, old) == 0
    # All in the lowest tenth: (1 - .1) ln(1 / .1), and nine times (.1 - 1e-4) ln(.1 / 1e-4).
    all_low = 0.9 * np.log(10) + 9 * (0.1 - 1e-4) * np.log(1000)
    assert stability_index(np.full(1000, -1.0), old) == pytest.approx(all_low)


def test_a_segment_without_an_order_is_held_although_all_others_hide_it():
    tasks, config = [CLICK], GateConfig()
    fine = check_segments(tasks, scored(), scored(), config, 0)
    assert [(c.name, c.outcome) for c in fine] == [("segments", P)]
    held = check_segments(tasks, scored(spoiled=0), scored(), config, 0)
    assert {c.outcome for c in held} == {H}
    assert {c.name.split(":")[0] for c in held} == {"new users", "device tv"}
    assert check_segments(tasks, scored(spoiled=0), scored(), GateConfig(min_segment_users=USERS), 0) == []


def test_segments_are_of_users_and_contexts_with_enough_users():
    names = [name for name, _ in segments_of(scored(), 100)]
    assert sorted(names) == ["device phone", "device tv", "heavy users", "light users", "new users"]
    assert [name for name, _ in segments_of(scored(), 300)] == ["device phone"]


def test_a_refit_that_was_poisoned_is_held_and_says_that_its_days_are_learned():
    config = GateConfig()
    assert {c.outcome for c in check_refit([CLICK, PURCHASE], scored(), scored(), config, 0)} == {P}
    held = [
        c for c in check_refit([CLICK, PURCHASE], scored(click=3.0), scored(), config, 0) if c.outcome is H
    ]
    assert held
    assert all("on days it has learned" in c.name for c in held)
    (level,) = (c.detail for c in held if "predicted over observed" in c.name)
    assert ", before the refit 1.0" in level


def test_a_refit_that_mends_the_level_is_not_held_and_one_of_another_form_is():
    chance = pl.col("prediction_click")
    off = scored().with_columns(prediction_click=chance * 2.5 / (1 - chance + chance * 2.5))
    config = GateConfig()
    assert {c.outcome for c in check_refit([CLICK, PURCHASE], scored(), off, config, 0)} == {P}
    narrow = scored().with_columns(prediction_click=0.21 + 0.02 * (pl.col("prediction_click") - 0.21))
    held = [c.name for c in check_refit([CLICK, PURCHASE], narrow, scored(), config, 0) if c.outcome is H]
    assert held == ["click shift of the refit, on days it has learned"]


def test_a_refit_may_be_surer_of_rows_that_it_has_just_learned():
    """By as much as a challenger, on a day that it has not seen, may not."""
    config, chance = GateConfig(), scored()["prediction_click"].to_numpy()
    odds = chance / (1 - chance)
    apart = with_mean(odds**4 / (1 + odds**4), float(chance.mean()))
    surer = scored().with_columns(prediction_click=pl.Series(apart))
    psi = stability_index(*(f["prediction_click"].to_numpy() for f in (surer, scored())))
    assert config.max_prediction_shift < psi < SEEN_SHIFT * config.max_prediction_shift
    outcomes = {c.name: c.outcome for c in check_refit([CLICK], surer, scored(), config, 0)}
    assert outcomes["click shift of the refit, on days it has learned"] is P
    (plain,) = check_shift([CLICK], surer, scored(), config)
    assert plain.outcome is H


def test_a_refit_that_lost_the_order_is_held_although_its_level_is_right():
    lost = scored(spoiled=1)
    checks = check_refit([CLICK, PURCHASE], lost, scored(), GateConfig(), 0)
    assert [c.name for c in checks if c.outcome is H] == [
        "click AUC inside lists of the refit, on days it has learned"
    ]


PAGES = [[f"i{u}-{k}" for k in range(10)] for u in range(50)]


@pytest.mark.parametrize(
    ("pages", "outcomes"),
    [
        (PAGES, [P, P]),
        ([PAGES[0]] * 50, [P, H]),
        ([[f"x{u}-{k}" for k in range(10)] for u in range(50)], [H, P]),
        ([], []),
    ],
)
def test_pages_of_one_list_for_all_and_of_nothing_in_common_are_held(pages, outcomes):
    found = check_lists_alike(pages, PAGES[: len(pages)], GateConfig())
    assert [c.outcome for c in found] == outcomes


FACTS = ServedFacts(golden=None, index_recall=1.0, min_recall=0.95, size_bytes=100, request_ms=2.0)


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({}, None),
        ({"golden": "predictions differ"}, "golden requests"),
        ({"index_recall": 0.9}, "its own index"),
        ({"size_bytes": 301}, "size of the bundle"),
        ({"request_ms": 6.1}, "time of a request"),
    ],
)
def test_what_a_server_could_not_carry_is_held(changed, name):
    checks = check_served(FACTS.model_copy(update=changed), FACTS, GateConfig())
    assert [c.name for c in checks if c.outcome is H] == ([name] if name else [])
    alone = check_served(FACTS.model_copy(update=changed), None, GateConfig())
    assert [c.name for c in alone if c.outcome is H] == [name] * (
        name in ("golden requests", "its own index")
    )


def test_a_bundle_is_measured_as_a_server_loads_it(bundle_folder):
    bundle = load_bundle(bundle_folder)
    facts = served_facts({"live": bundle})["live"]
    assert (facts.golden, facts.index_recall) == (None, 1.0)
    files = [path for path in bundle_folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    assert facts.size_bytes == sum(path.stat().st_size for path in files)
    assert 0 < facts.request_ms < 1000
    wrong = ItemIndex.build(bundle.index.embeddings_ID[::-1])
    object.__setattr__(bundle, "index", ItemIndex(wrong.index, bundle.index.embeddings_ID))
    bad = served_facts({"live": bundle})["live"]
    assert bad.index_recall < 0.95
    assert "retrieved items agree" in bad.golden
