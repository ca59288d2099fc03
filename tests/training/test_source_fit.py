"""The sources' part of the score is found, and given where other users' lists show it to be better."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from recsys.config import default_config
from recsys.fusion import Fusion
from recsys.source_terms import SourceTerms
from training import source_fit
from training.evaluation import audience
from training.list_problem import ListProblem
from training.source_fit import HALF_LIVES, SourceFit, has_own_impressions


def made_up(num_lists=60, *, by, seed=0, days=1):
    """Lists of 40 candidates, three of them wanted: those that a weighted sum of columns puts first."""
    rng = np.random.default_rng(seed)
    shape = (num_lists, 40)
    names = ["heads", "retrieval", "popular"]
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
        days=np.arange(num_lists) % days,
    )


def config_of(repeat="learn", sources="auto"):
    config = default_config()
    return config.model_copy(
        update={
            "policy": config.policy.model_copy(update={"repeat": repeat}),
            "fusion": config.fusion.model_copy(update={"sources": sources}),
        }
    )


@pytest.fixture
def fit(monkeypatch):
    """Fit on made-up lists, of a log without impressions of its own."""

    def fit(problem, config=None, own=False):
        monkeypatch.setattr(source_fit, "_problem", lambda _model, _audiences: problem)
        users = SimpleNamespace(num_users=len(problem.users))
        monkeypatch.setattr(source_fit, "_audiences", lambda *_: [users])
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
    problem.columns["heads"][:] *= 1e5
    terms = fit(problem).terms
    assert terms.repeat > 1e5
    Fusion(terms={}).with_sources(terms).override({"source:popular": 1.0})


def test_where_nobody_takes_again_what_was_taken_goes_down(fit):
    found = fit(made_up(by={"item_item 30": 1.0, "repeat 60": -3.0}))
    assert found.terms.repeat < 0 < found.terms.item_item


def test_where_the_heads_are_as_good_there_are_no_weights(fit):
    found = fit(made_up(by={"heads": 1.0}))
    assert found.terms == SourceTerms()
    assert found.users > 0
    assert "no weights of their own" in found.sentence()


def test_heads_get_more_of_a_part_where_a_new_day_shows_that_it_pays(fit):
    """With sources in the lead heads decide between equals; here they are worth as much, or more."""
    alone = fit(made_up(300, by={"repeat 60": 1.0}))
    for share in (1.0, 2.0):
        mixed = fit(made_up(300, by={"repeat 60": 1.0, "heads": share}))
        assert 0 < mixed.terms.repeat < 0.1 * alone.terms.repeat


def test_repeats_have_no_weight_unless_they_are_learned(fit):
    found = fit(made_up(by={"item_item 14": 1.0, "repeat 120": 1.0}), config_of("allow"))
    assert found.terms.repeat == 0 < found.terms.item_item


@pytest.mark.parametrize(
    ("sources", "own", "weighs"), [("off", False, False), ("auto", True, False), ("fit", True, True)]
)
def test_who_wants_no_weights_gets_none(fit, sources, own, weighs):
    """A log with impressions of its own is fitted by order of the config alone."""
    found = fit(made_up(by={"item_item 14": 1.0}), config_of(sources=sources), own=own)
    assert bool(found.terms.weights) == weighs
    assert weighs or found == SourceFit()


def test_few_users_show_nothing(fit):
    assert fit(made_up(10, by={"item_item 14": 1.0})) == SourceFit()


def test_finding_users_reads_no_feedback_of_all_earlier_days(shop_chain, config, monkeypatch):
    """It would be read once more for each of up to 42 days; only what measures lists asks for it."""
    monkeypatch.setattr(audience, "_taken", lambda *_: pytest.fail("the feedback of all days was read"))
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
