"""Two fused scores compared on lists that a third one drew: under rules, pins and all."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from recsys.fusion import Fusion, Term
from recsys.policy import PolicyParameters, draw_ranking
from recsys.policy.given import place_distributions
from recsys.schema import empty
from training.evaluation.choices import Choice, _candidate_sets
from training.evaluation.off_policy import Asked, compare_off_policy, discount
from training.report.off_policy import _in_both

CHANCE = np.array([0.1, 0.2, 0.3, 0.4, 0.8])
BELIEVED = (1.0 - CHANCE).astype(np.float32)
"""The model believes the opposite of the truth."""
RULES = PolicyParameters(epsilon=0.9, temperature=0.7, max_per_category=1, uniform_share=0.2)
LISTS = 1_800


def by_click(weight):
    return Fusion(terms={"click": Term(weight=weight, low=0.0, high=5.0)})


def one(number, rng, fusion, task="click"):
    """A page of 3 of five candidates and its clicks; in half of the requests one is pinned to place 2."""
    choice = Choice(
        request_id=str(number),
        user_id=f"u{number % 900}",
        shown_at=datetime(2026, 1, 5, tzinfo=UTC),
        item_ids=pl.Series([f"i{n}" for n in range(5)]),
        predictions={task: BELIEVED},
        shown=np.arange(3),
        position=np.arange(1, 4),
        propensity=np.ones(3),
        kind=("exact",) * 3,
        labels={task: np.zeros(3)},
        rules=RULES,
        categories=np.array([0, 0, 1, -1, -1]),
        pins={1: 1} if number % 2 else {},
    )
    drawn = draw_ranking(choice.policy_input(fusion), RULES, 3, int(rng.integers(1 << 60)))
    clicks = (rng.random(3) < CHANCE[drawn.order] / np.arange(1, 4)).astype(float)
    return Choice(
        **{
            s: getattr(choice, s)
            for s in Choice.__slots__
            if s not in ("shown", "propensity", "kind", "labels")
        },
        shown=drawn.order,
        propensity=drawn.propensity,
        kind=drawn.kinds,
        labels={task: clicks},
    )


def truth(fusion, choices):
    """What lists that a fusion draws are truly expected to earn at the places that are drawn: all lists."""
    worth = CHANCE[None, :] / np.arange(1, 4)[:, None] * discount(np.arange(1, 4), 3)[:, None]
    total = 0.0
    for choice in choices[:2]:
        pins = choice.pins
        for order in itertools.permutations(range(5), 3):
            if any(order.index(c) != k if c in order else k < 3 for k, c in pins.items()):
                continue
            chances = place_distributions(choice.policy_input(fusion), RULES, np.array(order))
            earned = sum(worth[k, c] for k, c in enumerate(order) if k not in pins)
            total += chances[np.arange(3), order].prod() * earned / 2
    return total


@pytest.fixture(scope="module")
def choices():
    rng = np.random.default_rng(5)
    return [one(n, rng, by_click(0.5)) for n in range(LISTS)]


def test_the_difference_of_two_scores_is_found_though_predictions_are_wrong(choices, config):
    sides = [Asked(choices=choices, fusion=by_click(w)) for w in (1.0, -0.5)]
    compared, notes = compare_off_policy(*sides, config.tasks[:1], 3, seed=0)
    click = compared["click"]
    assert notes == []
    assert click.a.problems == ()
    for side, asked in ((click.a, sides[0]), (click.b, sides[1])):
        expected = truth(asked.fusion, choices)
        for name in ("rips", "snrips", "cascade_dr"):
            found = side.estimates[name]
            assert found.low < expected < found.high, (name, found, expected)
    assert click.effects["cascade_dr"].verdict == "better"
    assert click.a.estimates["dm"].value > click.b.estimates["dm"].value, "as the model believes"
    assert click.a.left_out == {"pinned places": LISTS // 2}


def test_the_logging_score_itself_has_weights_of_one(choices, config):
    own = Asked(choices=choices[:200], fusion=by_click(0.5))
    support = compare_off_policy(own, own, config.tasks[:1], 3, seed=0, replicates=20)[0]["click"].a.support
    assert support.max_weight == pytest.approx(1.0)
    assert support.effective == pytest.approx(200)


def test_the_model_values_as_many_places_as_the_page_has(choices, config):
    """A page of three is asked for its first ten places: the policy would show three as well."""
    sides = [Asked(choices=choices, fusion=by_click(w)) for w in (1.0, -0.5)]
    at_three, at_ten = (compare_off_policy(*sides, config.tasks[:1], k, seed=0)[0]["click"] for k in (3, 10))
    for name in ("dm", "dr", "switch_dr", "cascade_dr"):
        assert at_ten.a.estimates[name] == at_three.a.estimates[name], name
    assert not any("disagree" in problem for problem in at_ten.problems)


def test_lists_that_no_estimator_may_use_are_counted(choices, config):
    own = [
        Choice(**{s: getattr(c, s) for s in Choice.__slots__ if s != "kind"}, kind=("degraded",) * 3)
        for c in choices[:3]
    ]
    asked = Asked(choices=[*choices[:50], *own], fusion=by_click(1.0))
    compared = compare_off_policy(asked, asked, config.tasks[:1], 3, seed=0, replicates=20)[0]
    assert compared["click"].a.left_out["lists with a place that is degraded"] == 3
    capped = [replace(c, rules=replace(RULES, max_repeats=1)) for c in choices[:4]]
    asked = Asked(choices=[*choices[:50], *capped], fusion=by_click(1.0))
    compared = compare_off_policy(asked, asked, config.tasks[:1], 3, seed=0, replicates=20)[0]
    unknown = "lists with a place that is under max_repeats of a past that is not known"
    assert compared["click"].a.left_out[unknown] == 4
    nothing = Asked(choices=own, fusion=by_click(1.0))
    compared, notes = compare_off_policy(nothing, nothing, config.tasks[:1], 3, seed=0)
    assert compared == {}
    assert "no list is left of 3" in notes[0]


def test_rules_and_pins_are_those_that_were_logged():
    class Log:
        def days(self, _table):
            return [datetime(2026, 1, 5, tzinfo=UTC).date()]

        def read(self, _table, _day):
            rows = [
                {
                    "policy": "greedy",
                    "policy_parameters": '{"epsilon":0.0,"mmr":0.5,"seed":3,"pins":{"2":"b"}}',
                },
                {"policy": "simulated_plackett_luce", "policy_parameters": '{"candidates":600}'},
                {"policy": "greedy", "policy_parameters": '{"call":"similar"}'},
            ]
            same = {"user_id": "u", "candidates": ["a", "b"]}
            return pl.DataFrame([{**same, **row, "request_id": f"r{n}"} for n, row in enumerate(rows)])

    class Day:
        def table(self, _name):
            shown = pl.DataFrame({"request_id": ["r0", "r1", "r2"], "user_id": "u"})
            return shown.with_columns(shown_at=pl.lit(datetime(2026, 1, 5, 12, tzinfo=UTC)))

    assert "policy_parameters" in empty("requests").columns
    sets = _candidate_sets(Log(), Day(), RULES)
    ours, other = sets["r0", "u"], sets["r1", "u"]
    assert (ours.rules, ours.pins) == (PolicyParameters(name="greedy", epsilon=0.0, mmr=0.5), {1: "b"})
    assert (other.rules, other.pins) == (RULES, {})
    assert len(sets) == 2, "a list of similar items is not sorted by the score"


def test_a_day_that_showed_nothing_has_no_candidate_sets():
    class Day:
        def table(self, _name):
            return empty("impressions").select("request_id", "user_id", "shown_at")

    assert _candidate_sets(None, Day(), RULES) == {}


def test_a_list_that_shows_an_item_twice_is_none_of_the_policy(choices, config):
    twice = replace(choices[0], shown=np.array([0, 2, 0]))
    asked = Asked(choices=[*choices[2:50:2], twice], fusion=by_click(0.5))
    click = compare_off_policy(asked, asked, config.tasks[:1], 3, seed=0, replicates=20)[0]["click"]
    assert (click.a.support.lists, click.a.left_out) == (25, {})
    assert click.a.support.coverage == pytest.approx(24 / 25)


def test_two_bundles_are_compared_on_the_impressions_that_both_read(choices):
    fewer = replace(choices[1], shown=choices[1].shown[:2], position=choices[1].position[:2])
    ours, theirs = _in_both(choices[:3], [choices[2], fewer, choices[0]])
    assert [c.request_id for c in ours] == [c.request_id for c in theirs] == ["0", "2"]
