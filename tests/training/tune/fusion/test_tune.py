"""tune fusion: the front, its truth on the simulated shop, what is written, what is refused."""

import json
import tomllib
from contextlib import suppress
from dataclasses import replace

import numpy as np
import optuna
import pytest

from recsys.config import build_fusion
from recsys.errors import ConfigError, DataError
from recsys.policy import PolicyParameters
from recsys.simulator.dials import ShopDials
from recsys.simulator.log_writer import simulate_day
from recsys.simulator.oracle import add_labels
from recsys.simulator.shop import Shop
from recsys.source_terms import NO_SOURCES, SourceTerms
from training.evaluation.choices import Choice
from training.evaluation.off_policy import Asked, compare_off_policy
from training.tune.fusion.fusion_pages import write_fusion
from training.tune.fusion.fusion_report import fusion_toml
from training.tune.fusion.search import Point, Space, knee, rescaled, with_share, within
from training.tune.fusion.tune import Material, _notes, tune_fusion
from training.tune.fusion.value import is_checked, list_values, lists_of
from training.tune.study import Budget, finished, open_study, search

DIALS = ShopDials(
    users=400, items=150, days=2, candidates=60, candidates_logged=1.0, relatedness=-0.6, click_base=-2.5,
    purchase_base=-1.5, purchase_taste=1.2, requests_per_user_day=2.0, rated_clicks=0.5,
)  # fmt: skip


@pytest.fixture(scope="module")
def shop():
    return Shop.from_seed(DIALS, 11)


@pytest.fixture(scope="module")
def material(shop, config):
    """Give a day of a shop where the clicked and the bought differ, predicted by the shop's own chances."""
    day = DIALS.first_day
    tables = simulate_day(shop, day)
    rows = add_labels(tables.impressions, tables.feedback)
    truth = shop.true_predictions(rows.with_columns(position=np.int64(1)))
    rows = rows.rename({t: f"label_{t}" for t in ("click", "purchase", "rating")}).with_columns(
        prediction_click=truth["p_click"].cast(float),
        prediction_purchase=truth["p_purchase"],
        prediction_rating=truth["expected_rating"],
        weight=1.0,
    )
    lists = lists_of(rows, config.tasks, config.tasks[0])
    return Material(
        version="v",
        days=(day,),
        searched=lists.take(~lists.checked),
        checked=lists.take(lists.checked),
        choices=[c for c in choices(shop, tables, rows) if is_checked(c.user_id)],
        examination=tuple(lists.examination[:10].tolist()),
    )


def choices(shop, tables, rows):
    groups = rows.partition_by("request_id", as_dict=True)
    for request in tables.requests.iter_rows(named=True):
        shown = groups[(request["request_id"],)].sort("position")
        wanted = shown[:1].select("user_id", "shown_at", "context_device", "request_id", "impression_id")
        ids = request["candidates"]
        many = wanted[[0] * len(ids)].with_columns(
            item_id=np.array(ids), position=np.ones(len(ids), np.int64)
        )
        truth = shop.true_predictions(many)
        yield Choice(
            request_id=request["request_id"],
            user_id=request["user_id"],
            shown_at=request["requested_at"],
            item_ids=many["item_id"],
            predictions={
                "click": truth["p_click"].to_numpy(),
                "purchase": truth["p_purchase"].to_numpy(),
                "rating": truth["expected_rating"].to_numpy(),
            },
            shown=np.array([ids.index(i) for i in shown["item_id"]]),
            position=shown["position"].to_numpy().astype(np.int64),
            propensity=shown["propensity"].to_numpy(),
            kind=("exact",) * shown.height,
            rules=PolicyParameters(epsilon=1.0, temperature=0.5),
            categories=np.full(len(ids), -1),
            pins={},
            labels={t: shown[f"label_{t}"].cast(float).fill_null(float("nan")).to_numpy() for t in TASKS},
        )


TASKS = ("click", "purchase", "rating")


def tuned(material, config, shop, path, formula="additive", trials=40, seconds=None):
    return tune_fusion(
        material,
        build_fusion(config.tasks, config.fusion),
        formula,
        path,
        Budget.of(trials, seconds),
        k=5,
        seed=0,
        shop=shop,
    )


@pytest.fixture(scope="module")
def report(material, config, shop, tmp_path_factory):
    return tuned(material, config, shop, tmp_path_factory.mktemp("study") / "study.db")


def test_weights_preferred_for_purchases_truly_raise_purchases(report):
    """Checked on users that were not searched on, against the chances that made the log."""
    best = next(c for c in report.candidates if c.name == "best purchase")
    gain = best.truth["p_purchase"]
    assert gain.ci_low > 0.05 * gain.a, gain
    assert best.effects["purchase"].difference > 0
    best_click = next(c for c in report.candidates if c.name == "best click")
    assert best_click.truth["p_click"].b > best.truth["p_click"].b


def test_no_point_of_the_front_is_worse_in_everything(report):
    values = [list(point.found.values()) for point in report.front]
    assert len(values) > 3
    for one in values:
        assert not any(
            all(o >= v for o, v in zip(other, one, strict=True)) for other in values if other != one
        )
    tops = {t: max(point.found[t] for point in report.front) for t in TASKS}
    assert all(tops[t] >= report.current.found[t] for t in TASKS), "the corners are among what is tried"


def test_the_knee_is_nearest_to_the_best_of_both(report):
    fusion = report.current.fusion
    made = [Point(fusion=fusion, values={"a": a, "b": b}) for a, b in ((1.0, 0.0), (0.9, 50.0), (0.0, 60.0))]
    assert knee(made, {"a": 2.0, "b": 0.0}) is made[1], "none is safe: the nearest to (1, 60)"
    assert knee(made, {"a": 1.0, "b": 0.0}) is made[0], "the only one that loses nothing"


def test_scores_spread_as_before(report, material):
    before, now = (
        np.std(f.score(material.searched.predictions))
        for f in (report.current.fusion, report.recommended.fusion)
    )
    assert 0.3 < now / before < 3


SOURCES = SourceTerms(heads=0.5, item_bias=0.3, popular=-0.1)


def test_the_sources_keep_their_share_of_the_heads_width(material, config):
    lists = material.searched
    own = build_fusion(config.tasks, config.fusion).with_sources(SOURCES)

    def width(fusion):
        return within(lists, fusion.with_sources(NO_SOURCES).score(lists.predictions))

    space = Space.of(lists, own, "additive")
    drawn = space.fusion({"click": 1.0, "purchase": 30.0, "rating": 0.1}, {})
    assert drawn.sources == SOURCES, "as a server that is sent the weights"
    assert width(drawn) == pytest.approx(width(own), rel=1e-5)
    product = Space.of(lists, own, "multiplicative").fusion(
        {"click": 1.0, "purchase": 1.0, "rating": 1.0}, dict.fromkeys(TASKS, 0.01)
    )
    doubled = own.model_copy(
        update={"terms": {n: t.model_copy(update={"weight": 2 * t.weight}) for n, t in own.terms.items()}}
    )
    for other in (product, with_share(doubled.with_sources(NO_SOURCES), lists, own)):
        ratio = width(other) / width(own)
        assert ratio != pytest.approx(1.0, rel=0.1)
        assert other.sources.item_bias == pytest.approx(ratio * SOURCES.item_bias)
        assert other.sources.popular == pytest.approx(ratio * SOURCES.popular)
        assert other.sources.heads == SOURCES.heads
    nothing = own.model_copy(
        update={"terms": {n: t.model_copy(update={"weight": 0.0}) for n, t in own.terms.items()}}
    )
    assert rescaled(nothing, lists, own) == nothing


def test_sources_move_the_order_of_lists_and_candidates(material, config):
    """A source that is all there is to a score sorts by itself: clicked items first."""
    best = {"popular": np.nan_to_num(material.checked.labels["click"]).astype(np.float32)}
    lists = replace(material.checked, sources=best)
    heads = build_fusion(config.tasks, config.fusion)
    leading = heads.with_sources(SourceTerms(popular=1e4))
    assert list_values(lists, leading, 1)["click"].mean > 2 * list_values(lists, heads, 1)["click"].mean
    choice = material.choices[0]
    last = np.zeros(choice.item_ids.len(), np.float32)
    last[-1] = 1.0
    assert replace(choice, sources={"popular": last}).ranked(leading)[0] == last.size - 1


def test_the_toml_gives_the_recommended_fusion(report, make_config):
    section = tomllib.loads(report.toml)
    config = make_config(**section)
    assert build_fusion(config.tasks, config.fusion) == report.recommended.fusion
    assert config.chosen.fusion_days == report.days, "and the days that chose it"


def test_another_formula_is_searched_with_its_offsets(material, config, shop, tmp_path, make_config):
    found = tuned(material, config, None, tmp_path / "s.db", "multiplicative", trials=12).recommended.fusion
    assert found.formula == "multiplicative"
    assert all(term.offset > 0 for term in found.terms.values())
    reread = make_config(**tomllib.loads(fusion_toml(found, [])))
    again = build_fusion(reread.tasks, reread.fusion)
    assert again == found


def test_a_search_goes_on_where_it_was(material, config, shop, tmp_path, report):
    tuned(material, config, None, tmp_path / "s.db", trials=15)
    whole = tuned(material, config, None, tmp_path / "s.db")
    assert whole.front == report.front
    with pytest.raises(ConfigError, match="holds another search"):
        tuned(material, config, None, tmp_path / "s.db", "multiplicative")


def test_a_task_without_labels_keeps_its_part_of_the_score(material, config, tmp_path):
    """What is not searched still makes the score, and weighs against the rest as it did."""
    few = [t for t in config.tasks if t.name != "rating"]

    def cut(lists):
        return replace(lists, tasks=tuple(few), labels={t.name: lists.labels[t.name] for t in few})

    blind = replace(material, searched=cut(material.searched), checked=cut(material.checked))
    found = tuned(blind, config, None, tmp_path / "s.db", trials=8)
    assert set(found.current.found) == {"click", "purchase"}
    now, current = found.recommended.fusion.terms, found.current.fusion.terms

    def parts(terms):
        lists = blind.searched
        return {n: terms[n].weight * within(lists, lists.predictions[n].astype(float)) for n in terms}

    strongest = max(parts(current)[t.name] for t in few)
    assert parts(now)["rating"] / parts(now)["click"] == pytest.approx(
        parts(current)["rating"] / strongest, rel=1e-4
    )


def test_a_search_that_was_interrupted_in_its_first_trials_finds_the_same(tmp_path):
    first = ({"x": 0.0}, {"x": -2.0}, {"x": 2.0})

    def searched(path, stop_in=None):
        started = []

        def evaluate(trial):
            started.append(trial)
            x = trial.suggest_float("x", -2.0, 2.0)
            if len(started) == stop_in:
                raise KeyboardInterrupt
            return [x, -x * x]

        def sampler(seed):
            return optuna.samplers.NSGAIISampler(population_size=4, seed=seed)

        with open_study(path, ["maximize"] * 2, optuna.pruners.NopPruner(), {}) as study:
            with suppress(KeyboardInterrupt):
                search(study, sampler, 0, Budget.of(8, None), evaluate, first=first)
            return [trial.params["x"] for trial in finished(study)]

    unbroken = searched(tmp_path / "a.db")
    assert unbroken[:3] == [0.0, -2.0, 2.0]
    assert searched(tmp_path / "b.db", stop_in=2) == [0.0]
    assert searched(tmp_path / "b.db") == unbroken


def test_no_time_is_an_error(material, config, tmp_path):
    with pytest.raises(DataError, match="raise --seconds"):
        tuned(material, config, None, tmp_path / "s.db", seconds=0.0)


def test_what_rests_on_too_little_has_no_verdict(report, tmp_path):
    best = report.candidates[1]
    both = best.off_policy["click"]
    assert both.problems, "the shop's own policy is not the bundle's: few lists speak of it"
    assert report.verdicts(best)["off-policy"]["click"] == "not trustworthy"
    assert any("NOT TRUSTWORTHY: the off-policy value of click" in note for note in report.notes)
    sides = {side: getattr(both, side).model_copy(update={"problems": ()}) for side in "ab"}
    better = both.effects["cascade_dr"].model_copy(update={"ci_low": 0.1, "ci_high": 0.2})
    sure = both.model_copy(update={**sides, "effects": {"cascade_dr": better}})
    strong = best.model_copy(update={"off_policy": {"click": sure}})
    assert report.verdicts(strong)["off-policy"] == {"click": "better"}
    few = report.model_copy(update={"effective": {"click": 3.0}, "candidates": (best,)})
    assert few.verdicts(best)["re-ranked"]["click"] == "not trustworthy"
    page = next(f for f in write_fusion(few, tmp_path / "out") if f.suffix == ".html").read_text()
    assert page.count("<td>not trustworthy</td>") == 3, "re-ranked clicks, off-policy clicks and purchases"


def test_the_notes_read_every_verdict_that_may_be_trusted(report):
    """Re-ranked lists alone would miss what a server would draw, and a verdict on 3 labels is none."""
    candidate, current = report.candidates[0], report.current.fusion
    both = candidate.off_policy["click"]
    sides = {side: getattr(both, side).model_copy(update={"problems": ()}) for side in "ab"}

    def said(effective, low, high):
        effect = both.effects["cascade_dr"].model_copy(update={"ci_low": low, "ci_high": high})
        sure = both.model_copy(update={**sides, "effects": {"cascade_dr": effect}})
        rating = candidate.effects["rating"].model_copy(update={"ci_low": -0.2, "ci_high": -0.1})
        made = candidate.model_copy(update={"off_policy": {"click": sure}, "effects": {"rating": rating}})
        return [note for note in _notes(made, current, {"rating": effective}) if "recommended" in note]

    nothing = "no evidence on the checked users that the recommended weights beat the current ones"
    worse = "the recommended weights are worse than the current ones: "
    assert said(3.0, 0.1, 0.2) == []
    assert said(300.0, 0.1, 0.2) == [worse + "re-ranked rating"]
    one, other = said(300.0, -0.2, -0.1)
    assert one.startswith(nothing)
    assert other == worse + "re-ranked rating, off-policy click"
    assert any(note.startswith("NOT TRUSTWORTHY") and "current: " in note for note in report.notes)


def test_requests_without_candidates_are_said(config, report):
    nobody = Asked(choices=[], fusion=report.current.fusion)
    assert compare_off_policy(nobody, nobody, config.tasks, 5, seed=0) == (
        {},
        ["no request of these users has a logged candidate set: no off-policy check"],
    )


def test_the_page_stands_alone_and_the_json_is_the_report(report, tmp_path):
    files = {f.name: f.read_text() for f in write_fusion(report, tmp_path / "out")}
    page = files["report.html"]
    assert page.count("<svg") >= 3 + len(report.candidates)
    assert "http" not in page.replace('"http://www.w3.org', "")
    assert "[fusion.weights]" in page
    assert json.loads(files["report.json"])["k"] == 5
    assert tomllib.loads(files["fusion.toml"])["fusion"]["formula"] == "additive"
