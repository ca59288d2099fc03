"""The sources' part of the score is found, and given where other users' lists show it to be better."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from recsys.config import default_config
from recsys.fusion import Fusion
from recsys.source_terms import SourceTerms
from training import source_fit
from training.evaluation import audience
from training.item_item_form import FormChoice
from training.list_problem import ListProblem
from training.source_fit import HALF_LIVES, SourceFit, has_own_impressions


def made_up(num_lists=60, *, by, seed=0):
    """Lists of 40 candidates, three of them wanted: those that a weighted sum of columns puts first."""
    rng = np.random.default_rng(seed)
    shape = (num_lists, 40)
    names = ["heads", "retrieval", "popular", "item_bias"]
    names += [f"{name} {days:g}" for name in ("item_item", "repeat") for days in HALF_LIVES]
    columns = {name: rng.random(shape).astype(np.float32) for name in names}
    truth = sum(weight * columns[name] for name, weight in by.items())
    wanted = np.zeros(shape, np.bool_)
    np.put_along_axis(wanted, np.argsort(-truth, axis=1)[:, :3], True, axis=1)
    return ListProblem(
        rows=np.tile(np.arange(40), (num_lists, 1)),
        columns=columns,
        wanted=wanted,
        num_wanted=np.full(num_lists, 3),
        users=[f"user {n}" for n in range(num_lists)],
        days=np.zeros(num_lists, np.int64),
    )


def config_of(repeat="learn", sources="auto", **fusion):
    config = default_config()
    return config.model_copy(
        update={
            "policy": config.policy.model_copy(update={"repeat": repeat}),
            "fusion": config.fusion.model_copy(update={"sources": sources, **fusion}),
        }
    )


NOT_ASKED = FormChoice()


@pytest.fixture
def fit(monkeypatch):
    """Fit on made-up lists, of a log without impressions of its own."""

    def fit(problem, config=None, own=False, form=NOT_ASKED):
        def asked(_model, audiences, _form):
            assert len(audiences) == (1 if own and (config or config_of()).fusion.sources == "auto" else 2)
            return problem

        monkeypatch.setattr(source_fit, "_problem", asked)
        monkeypatch.setattr(source_fit, "choose_form", lambda *_, **__: form)
        before, users = (SimpleNamespace(num_users=n) for n in (500, len(problem.users)))
        monkeypatch.setattr(source_fit, "_audiences", lambda *_: [before, users])
        monkeypatch.setattr(source_fit, "has_own_impressions", lambda *_: own)
        days = SimpleNamespace(labelled_for=lambda _tasks: None)
        return source_fit.fit_sources(SimpleNamespace(config=config or config_of()), days, 3, seed=0)

    return fit


def test_weights_and_half_lives_are_found(fit):
    found = fit(made_up(by={"item_item 14": 1.0, "repeat 120": 5.0}))
    terms = found.terms
    assert (terms.item_item_days, terms.repeat_days) == (14.0, 120.0)
    assert 2 <= terms.repeat / terms.item_item <= 10
    assert found.of_sources > 0.9 > 0.5 > found.of_heads
    assert "half-lives 14 and 120 days" in found.sentence()
    assert f"95 % interval of the difference from {found.at_least:+.4f};" in found.sentence()


def test_no_weight_is_too_large_for_requests_that_change_another(fit):
    """Heads in the unit of a price are wide."""
    problem = made_up(by={"item_item 14": 1.0, "repeat 120": 5.0})
    problem.columns["heads"][:] *= 1e7
    terms = fit(problem).terms
    assert terms.repeat == pytest.approx(1e6)
    Fusion(terms={}).with_sources(terms).override({"source:popular": 1.0})


def test_where_nobody_takes_again_what_was_taken_goes_down(fit):
    found = fit(made_up(by={"item_item 30": 1.0, "repeat 60": -3.0}))
    assert found.terms.repeat < 0 < found.terms.item_item


def test_where_the_heads_are_as_good_there_are_no_weights(fit):
    found = fit(made_up(by={"heads": 1.0}))
    assert found.terms == SourceTerms()
    assert found.users > 0
    assert "no weights of their own" in found.sentence()


@pytest.mark.parametrize(("share", "leads"), [(0.9, True), (1.5, False)])
def test_a_higher_mean_of_held_out_lists_decides_and_no_interval(fit, share, leads):
    """Both intervals hold 0: a small log has no narrow one."""
    found = fit(made_up(36, by={"heads": share, "item_item 14": 1.0}))
    assert found.at_least < 0 < found.of_sources
    assert (found.of_sources > found.of_heads) == leads
    assert bool(found.terms.weights) == leads


def test_users_who_compare_have_not_chosen(fit, monkeypatch):
    """Neither whether sources lead, nor how much of the heads is mixed in."""
    chose, pairs = [], []
    worth, compare = ListProblem.worth, source_fit.gain_of_users
    monkeypatch.setattr(ListProblem, "worth", lambda p, scores: chose.append({*p.users}) or worth(p, scores))
    monkeypatch.setattr(
        source_fit,
        "gain_of_users",
        lambda users, *args: pairs.append((chose[-1], {*users})) or compare(users, *args),
    )
    fit(made_up(100, by={"item_item 14": 1.0}))
    assert len(pairs) == 2
    for choosing, comparing in pairs:
        assert len(choosing) + len(comparing) == len(choosing | comparing) == 100


def test_a_choice_gives_way_only_to_one_that_is_worth_more_by_some_way():
    worth = {30: 0.5, 60: 0.5009, 120: 0.5011}
    problem = SimpleNamespace(
        rows=np.zeros((1, 1)),
        columns={f"item_item {days}": np.array([[days]], np.float32) for days in worth},
        worth=lambda scores: worth[int(scores[0, 0])],
    )
    terms = source_fit._Terms(weights={"item_item": 1.0}, item_item_days=30)
    for tried, kept in ((60, 30), (120, 120)):
        found, _ = source_fit._climb(problem, terms, [("item_item_days", (30, tried))])
        assert found.item_item_days == kept


def test_heads_get_more_of_a_part_where_a_new_day_shows_that_it_pays(fit):
    """With sources in the lead heads decide between equals; here they are worth as much, or more."""
    alone = fit(made_up(300, by={"repeat 60": 1.0}))
    for share in (1.0, 2.0):
        mixed = fit(made_up(300, by={"repeat 60": 1.0, "heads": share}))
        assert 0 < weighed_against_heads(mixed) < 0.1 * weighed_against_heads(alone)


def test_only_the_newest_day_says_what_heads_are_worth(fit):
    """Earlier days are in their weights: what they say of these flatters them."""
    learned = made_up(80, by={"repeat 60": 1.0, "heads": 1.0})
    new = replace(made_up(80, by={"repeat 60": 1.0}, seed=1), days=np.ones(80, np.int64))
    assert weighed_against_heads(fit(ListProblem.join([learned, new]))) > 50


@pytest.mark.parametrize("width", [1.0, 30.0])
def test_the_score_stays_as_wide_inside_a_list_as_the_heads_are(fit, width):
    """A temperature, and what likeness costs, are in its unit."""
    problem = made_up(by={"item_item 14": 1.0, "repeat 120": 5.0})
    problem.columns["heads"][:] *= width
    terms = fit(problem).terms
    by_source = {"item_item": problem.columns["item_item 14"], "repeat": problem.columns["repeat 120"]}
    score = terms.heads * problem.heads + sum(terms.weights[n] * part for n, part in by_source.items())
    assert score.std(axis=1).mean() == pytest.approx(problem.heads.std(axis=1).mean(), rel=1e-3)
    assert weighed_against_heads(SourceFit(terms=terms)) > 50 * width


def weighed_against_heads(found):
    return found.terms.repeat / found.terms.heads


def test_repeats_have_no_weight_unless_they_are_learned(fit):
    found = fit(made_up(by={"item_item 14": 1.0, "repeat 120": 1.0}), config_of("allow"))
    assert found.terms.repeat == 0 < found.terms.item_item


@pytest.mark.parametrize(
    ("sources", "own", "weighs"),
    [("off", False, False), ("off", True, False), ("fit", True, True), ("fit", False, True)],
)
def test_who_wants_no_weights_gets_none(fit, sources, own, weighs):
    """A log with impressions of its own is fitted by order of the config alone."""
    found = fit(made_up(by={"item_item 14": 1.0}), config_of(sources=sources), own=own)
    assert bool(found.terms.weights) == weighs
    assert weighs or found == SourceFit()


def test_a_log_with_impressions_of_its_own_gets_weights_by_the_rule(fit):
    """Whatever was wanted there: what heads miss weighs as much as the mean of the heads."""
    problem = made_up(by={"popular": 1.0})
    problem.rows[:, 30:] = -1  # lists of 30, padded with zeros
    for column in problem.columns.values():
        column[:, 30:] = 0.0
    found = fit(problem, own=True)
    assert found.by_rule
    assert set(found.terms.weights) == {"item_bias", "item_item"}
    heads, table = problem.heads, problem.columns["item_item 30"]
    by_hand = heads + heads[:, :30].mean() * problem.columns["item_bias"]
    by_hand += 0.6 * problem.ratio(heads, table) * table
    made = found.terms.heads * heads + found.terms.item_bias * problem.columns["item_bias"]
    made += found.terms.item_item * table
    assert (np.argsort(made, axis=1) == np.argsort(by_hand, axis=1)).all()
    assert problem.ratio(made, heads) == pytest.approx(1.0, rel=1e-3), "temperature and mmr act as before"
    assert "by the rule for logs with impressions: heads 0." in found.sentence()


def test_stars_that_every_item_has_do_not_let_the_bias_sort_alone(fit):
    problem = made_up(by={"popular": 1.0})
    problem.columns["heads"][:] += 1_000
    found = fit(problem, own=True).terms
    bias = found.item_bias * problem.columns["item_bias"]
    assert problem.ratio(bias, found.heads * problem.heads) == pytest.approx(4.0, rel=1e-3)


def test_the_rule_gives_nothing_where_the_score_wants_less_of_what_is_chosen(fit):
    problem = made_up(by={"popular": 1.0})
    problem.columns["heads"][:] *= -1
    assert fit(problem, own=True) == SourceFit()


def test_a_handful_of_users_gives_no_weights_by_the_rule(fit):
    assert fit(made_up(19, by={"popular": 1.0}), own=True) == SourceFit()


def test_without_an_item_item_table_the_rule_has_the_items_rates_alone(fit):
    problem = made_up(by={"popular": 1.0})
    problem.columns["item_item 30"][:] = 0
    assert set(fit(problem, own=True).terms.weights) == {"item_bias"}


def test_without_a_row_that_was_drawn_the_rule_has_no_rates(fit):
    """A policy that leaves nothing to chance: nobody knows what its items would have got otherwise."""
    problem = made_up(by={"popular": 1.0})
    problem.columns["item_bias"][:] = 0
    assert set(fit(problem, own=True).terms.weights) == {"item_item"}
    problem.columns["item_item 30"][:] = 0
    assert fit(problem, own=True) == SourceFit()


def test_a_newcomer_is_lifted_as_what_is_chosen_so_much_oftener_than_expected(fit):
    config = config_of(newcomers=0.4, newcomer_impressions=70)
    terms = fit(made_up(by={"popular": 1.0}), config, own=True).terms
    assert terms.newcomer == pytest.approx(0.4 * terms.item_bias, rel=1e-6)
    assert terms.newcomer_impressions == 70
    assert SourceTerms.model_validate_json(terms.model_dump_json()) == terms
    config = config_of(newcomers=0.0, newcomer_impressions=70)
    off = fit(made_up(by={"popular": 1.0}), config, own=True).terms
    assert off == terms.model_copy(update={"newcomer": 0.0, "newcomer_impressions": 50.0})


@pytest.mark.parametrize("own", [False, True], ids=["fitted", "by the rule"])
def test_what_the_item_item_table_counts_is_kept_with_and_without_weights(fit, own):
    form = FormChoice(terms=SourceTerms(item_item_order=True), said=("order +0.1 (from +0.05), taken",))
    found = fit(made_up(by={"item_item 14": 1.0}), own=own, form=form)
    assert found.terms.item_item_order
    assert not found.terms.item_item_attributes
    assert found.by_rule == own
    assert found.sentence().startswith("item-item: order +0.1 (from +0.05), taken\nsources")


def test_few_users_show_nothing(fit):
    assert fit(made_up(10, by={"item_item 14": 1.0})) == SourceFit()


def test_finding_users_reads_no_feedback_of_all_earlier_days(shop_chain, config, monkeypatch):
    """It would be read once more for each of up to 42 days; only what measures lists asks for it."""
    monkeypatch.setattr(audience, "_given", lambda *_: pytest.fail("the feedback of all days was read"))
    found = source_fit._audiences(shop_chain, 5, config, 0)
    assert len(found) > 1
    assert all(of_day.again is None for of_day in found)


def day_of(labels, sampled):
    """One day: a label of clicks for each impression, and whether it was drawn as a negative."""
    key = {"impression_id": [f"m{n}" for n in range(len(labels))], "user_id": ["u"] * len(labels)}
    marks = pl.DataFrame({**key, "sampled": pl.Series(sampled, dtype=pl.Boolean)})
    rows = pl.DataFrame({**key, "label_click": pl.Series(labels, dtype=pl.Float32)})
    rows = rows.with_columns(label_purchase=pl.lit(None, pl.Float32), label_rating=pl.lit(None, pl.Float32))

    class Day:
        def __getitem__(self, _i):
            return SimpleNamespace(table=lambda _name, columns: marks.select(columns))

        def labels_in_pieces(self, _i, _rows):
            yield rows

    return Day()


@pytest.mark.parametrize(
    ("labels", "sampled", "own"),
    [
        ([1, 1, 0, 0], [False, False, True, True], False),
        ([1, 0, 0, 0], [False, False, False, True], True),
        ([0], [True], False),
    ],
    ids=["what was not chosen was drawn", "it was shown", "nothing was shown"],
)
def test_a_log_has_impressions_of_its_own_if_some_were_shown_and_not_chosen(labels, sampled, own):
    assert has_own_impressions(day_of(labels, sampled), 0, default_config().tasks) == own
