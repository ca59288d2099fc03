"""Fusion: the formulas, the request's weights, and values that are refused."""

import numpy as np
import pytest
from pydantic import ValidationError

from recsys.config import build_fusion
from recsys.errors import ConfigError
from recsys.fusion import FORMULAS, Fusion, Term
from recsys.source_terms import SourceTerms

PREDICTIONS = {
    "click": np.array([0.1, 0.5], dtype=np.float32),
    "purchase": np.array([0.05, 0.01], dtype=np.float32),
}


def _fusion(formula="additive", offset=0.0, **weights):
    terms = {task: Term(weight=w, offset=offset) for task, w in weights.items()}
    return Fusion(formula=formula, terms=terms)


def test_additive_is_the_weighted_sum():
    assert _fusion(click=1.0, purchase=10.0).score(PREDICTIONS) == pytest.approx([0.6, 0.6], rel=1e-6)


def test_multiplicative_is_a_product_of_powers():
    scores = _fusion("multiplicative", click=1.0, purchase=2.0).score(PREDICTIONS)
    assert scores == pytest.approx([0.1 * 0.05**2, 0.5 * 0.01**2], rel=1e-5)


def test_multiplicative_adds_the_offset_first():
    scores = _fusion("multiplicative", offset=0.1, click=2.0).score(PREDICTIONS)
    assert scores == pytest.approx([0.2**2, 0.6**2], rel=1e-5)


def test_multiplicative_scales_stars_to_their_range():
    fusion = Fusion(formula="multiplicative", terms={"rating": Term(weight=1.0, low=1.0, high=5.0)})
    stars = np.array([0.5, 1.0, 3.0, 5.0], dtype=np.float32)
    assert fusion.score({"rating": stars}) == pytest.approx([1e-12, 1e-12, 0.5, 1.0])


@pytest.mark.parametrize("weight", [1e4, -1e4])
def test_a_power_beyond_all_bounds_stays_finite(weight):
    fusion = _fusion("multiplicative", offset=1e-9, click=weight)
    assert np.isfinite(fusion.score({"click": np.zeros(2, dtype=np.float32)})).all()


@pytest.mark.parametrize("formula", FORMULAS)
def test_the_tasks_parts_make_the_score(formula):
    fusion = _fusion(formula, click=1.0, purchase=2.0).override({"click": 0.5})
    parts = fusion.contributions(PREDICTIONS)
    assert parts.keys() == {"click", "purchase"}
    total = parts["click"] + parts["purchase"]
    assert fusion.score(PREDICTIONS) == pytest.approx(np.exp(total) if fusion.is_product else total)
    assert fusion.override({"click": 0.0}).contributions(PREDICTIONS).keys() == {"purchase"}


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_request_may_change_some_weights(formula):
    fusion = _fusion(formula, click=1.0, purchase=10.0)
    alone = fusion.override({"purchase": 0.0}).score(PREDICTIONS)
    assert alone == pytest.approx(_fusion(formula, click=1.0).score(PREDICTIONS))
    assert fusion.override({"click": 0.0, "purchase": 0.0}).score(PREDICTIONS).tolist() == [0.0, 0.0]
    assert fusion.override({}) is fusion


def test_an_unknown_task_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"'clik'.*known tasks: click"):
        _fusion(click=1.0).override({"clik": 2.0})


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), 1e308, -1e308])
def test_a_weight_that_overflows_is_refused(weight):
    """1e308 of two tasks is infinite for every item: the list had no order."""
    with pytest.raises(ConfigError, match=r"^the weight .* is not between -1e\+06 and 1e\+06"):
        _fusion(click=1.0).override({"click": weight})
    with pytest.raises(ConfigError, match=r"^the weight .* of 'source:repeat' is not between"):
        _fusion(click=1.0).override({"source:repeat": weight})


def test_a_negative_power_needs_an_offset():
    with pytest.raises(ConfigError, match="negative power"):
        _fusion("multiplicative", click=1.0).override({"click": -1.0})
    assert (
        _fusion("multiplicative", offset=0.1, click=1.0).override({"click": -1.0}).terms["click"].weight == -1
    )
    assert _fusion(click=1.0).override({"click": -1.0}).score(PREDICTIONS) == pytest.approx([-0.1, -0.5])


def test_the_config_says_formula_weights_and_offsets(make_config):
    section = {"formula": "multiplicative", "weights": {"purchase": 3.0}, "offsets": {"click": 0.1}}
    config = make_config(fusion=section)
    fusion = build_fusion(config.tasks, config.fusion)
    assert fusion.formula == "multiplicative"
    assert {t: term.weight for t, term in fusion.terms.items()} == {
        "click": 1.0,
        "purchase": 3.0,
        "rating": 1.0,
    }
    assert fusion.terms["click"].offset == 0.1
    assert (fusion.terms["rating"].low, fusion.terms["rating"].high) == (1.0, 5.0)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"formula": "sum"}, "known: additive, multiplicative"),
        ({"weights": {"clik": 1.0}}, "known tasks: click"),
        ({"formula": "multiplicative", "offsets": {"clik": 1.0}}, "known tasks: click"),
        ({"offsets": {"click": 0.1}}, "does nothing"),
        ({"formula": "multiplicative", "offsets": {"click": -0.1}}, "below 0"),
        ({"formula": "multiplicative", "weights": {"click": -1.0}}, "negative power"),
        ({"weights": {"click": float("inf")}}, "finite"),
    ],
)
def test_a_wrong_section_is_refused(make_config, section, said):
    with pytest.raises(ConfigError, match=said):
        make_config(fusion=section)


def test_a_formula_that_this_code_does_not_know_is_no_fusion():
    with pytest.raises(ValidationError, match="no fusion formula"):
        Fusion.model_validate({"formula": "harmonic", "terms": {}})


def test_a_prediction_outside_its_range_counts_as_the_end_of_it():
    """An uncalibrated head may say 6 of 5 stars: a power of more than 1 would outgrow every probability."""
    stars = Fusion(
        formula="multiplicative", terms={"rating": Term(weight=2.0, offset=0.5, low=1.0, high=5.0)}
    )
    outside, ends = (np.array(v, np.float32) for v in ([6.0, -3.0], [5.0, 1.0]))
    np.testing.assert_array_equal(stars.score({"rating": outside}), stars.score({"rating": ends}))


@pytest.mark.parametrize("weight", [1.0, 300.0, 1e4, 1e6])
def test_no_weight_makes_different_products_equal(weight):
    """exp ends at e^709: the order of items goes on."""
    predictions = {"click": np.linspace(0.01, 1.0, 50).astype(np.float32)}
    for sign, offset in ((1.0, 0.0), (1.0, 9.0), (-1.0, 0.5), (-1.0, 9.0)):
        fusion = Fusion(formula="multiplicative", terms={"click": Term(weight=sign * weight, offset=offset)})
        scores = fusion.score(predictions)
        assert np.isfinite(scores).all()
        assert (scores > 0).all()
        assert (np.diff(scores) * sign > 0).all()


def test_sources_add_their_parts_to_either_formula():
    sources = {"item_item": np.array([0.5, 0.0], np.float32), "repeat": np.array([0.0, 2.0], np.float32)}
    predictions = {"click": np.array([0.5, 0.25], np.float32)}
    terms = SourceTerms(item_item=2.0, repeat=-1.0)
    for formula in ("additive", "multiplicative"):
        fusion = Fusion(formula=formula, terms={"click": Term(weight=1.0)}).with_sources(terms)
        np.testing.assert_allclose(fusion.score(predictions, sources), [1.5, -1.75])
        parts = fusion.contributions(predictions, sources)
        assert set(parts) == {"click", "source:item_item", "source:repeat"}
    assert fusion.weights == {"click": 1.0, "source:item_item": 2.0, "source:repeat": -1.0}


def test_a_request_overrides_a_source_and_names_unknown_ones():
    fusion = Fusion(terms={"click": Term(weight=1.0)}).with_sources(SourceTerms(repeat=1.0))
    changed = fusion.override({"source:repeat": 0.0, "source:popular": 3.0})
    assert changed.sources.weights == {"popular": 3.0}
    assert changed.terms == fusion.terms
    with pytest.raises(ConfigError, match=r"'source:friends'; known tasks: click, source:retrieval"):
        fusion.override({"source:friends": 1.0})
    with pytest.raises(ConfigError, match=r"the weight 10000000\.0 of 'source:repeat'"):
        fusion.override({"source:repeat": 1e7})


def test_beside_sources_heads_have_a_factor():
    sources, predictions = (
        {"repeat": np.array([0.0, 2.0], np.float32)},
        {"click": np.array([0.5, 0.25], np.float32)},
    )
    terms = SourceTerms(heads=0.01, repeat=0.25)
    for formula in ("additive", "multiplicative"):
        fusion = Fusion(formula=formula, terms={"click": Term(weight=1.0)}).with_sources(terms)
        np.testing.assert_allclose(fusion.score(predictions, sources), [0.005, 0.5025])
        # Without sources a score is in the unit of the heads again.
        alone = fusion.override({"source:repeat": 0.0})
        np.testing.assert_allclose(alone.score(predictions, sources), [0.5, 0.25])
    fusion = Fusion(terms={"click": Term(weight=1.0)}).with_sources(terms)
    parts = fusion.contributions(predictions, sources)
    np.testing.assert_allclose(sum(parts.values()), fusion.score(predictions, sources))
    alone = fusion.override({"source:repeat": 0.0})
    np.testing.assert_allclose(alone.contributions(predictions, sources)["click"], [0.5, 0.25])


def test_the_sources_of_an_older_bundle_leave_the_heads_as_they_are():
    older = {"terms": {"click": {"weight": 1.0}}, "sources": {"repeat": 100.0}}
    fusion = Fusion.model_validate(older)
    assert fusion.score({"click": np.array([0.5])}, {"repeat": np.array([1.0])}) == pytest.approx([100.5])
    # The hash of a manifest is of what is read from it, written again.
    written = {"retrieval", "item_item", "repeat", "popular", "item_item_days", "repeat_days"}
    assert fusion.model_dump(mode="json")["sources"].keys() == written
    newer = fusion.sources.model_copy(update={"heads": 0.5, "item_item_order": True})
    assert newer.model_dump().keys() == written | {"heads", "item_item_order"}
    assert SourceTerms.model_validate(newer.model_dump()) == newer
