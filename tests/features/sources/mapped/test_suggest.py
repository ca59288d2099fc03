"""The settings that `convert` writes follow from what was measured, and say so."""

from datetime import date, timedelta

import polars as pl
import pytest

from features.sources.mapped import suggest
from features.sources.mapped.chosen import choose_batch, choose_period, choose_window, first_night
from features.sources.mapped.mapping import parse_mapping
from features.sources.mapped.measured import KindFacts, LogFacts
from recsys.config import parse_config
from recsys.settings import tomllib

MONDAY = date(2026, 1, 5)


def kind(name="click", **changes):
    known = {
        "kind": name, "events": 5_000, "credited": 5_000, "valued": 0, "low": None, "high": None,
        "distinct": 0, "delay_s": 40.0, "repeats": 0.3, "implies": {},
    }  # fmt: skip
    return KindFacts(**{**known, **changes})


STARS = {"valued": 5_000, "low": 1.0, "high": 5.0, "distinct": 5}


def facts(kinds=None, *, days=30, impressions=1_000, closed=(), alone=False, history=10.0, **per_day):
    """A log of some days; `per_day`: events of a kind on each, default 200."""
    kinds = kinds or [kind()]
    dates = [MONDAY + timedelta(n) for n in range(days)]
    shown = [0 if day.weekday() in closed else impressions for day in dates]
    counts = {k.kind: [(per_day.get(k.kind, 200) if n else 0) for n in shown] for k in kinds}
    daily = pl.DataFrame({"date": dates, "impressions": shown, "stream": [float(n) for n in shown], **counts})
    return LogFacts(kinds=tuple(kinds), daily=daily, alone=alone, history=history)


def mapping(**changes):
    kinds = {"v": "impression", "c": "click", "p": "purchase"}
    data = {"events": {"user": "u", "item": "i", "kind": "k", "time": "t", "kinds": kinds}, **changes}
    return parse_mapping(data, "MAP")


OF_CHOICES = {"feedback": {"user": "u", "item": "i", "only_kind": "click", "time": "t"}, "events": None}


@pytest.fixture
def suggested(monkeypatch):
    def make(found, **changes):
        monkeypatch.setattr(suggest, "measure_log", lambda _log: found)
        text = suggest.suggest_config(None, mapping(**changes)).text
        return parse_config(tomllib.loads(text), "suggested"), text

    return make


@pytest.mark.parametrize(
    ("found", "period"),
    [
        (facts(days=30), "P1D"),
        (facts(days=70, click=20), "P1W"),
        (facts(days=70, impressions=90), "P1W"),
        (facts(days=240, click=3), "P1M"),
        (facts(days=60, closed=(5, 6)), "P1D"),
        (facts(days=6, click=20), "P1D"),
        # Weeks would hold enough of them, but three days of the log make no five weeks.
        (facts(days=21, click=20), "P1D"),
        # All rows are labels of an event, but of stars only those that were given.
        (facts([kind("stars", **STARS)], days=70, stars=100), "P1W"),
    ],
)
def test_the_period_is_the_shortest_with_enough_labels(found, period) -> None:
    assert choose_period(found).period == period


def test_a_few_thin_days_do_not_decide_and_many_do() -> None:
    def thin(share):
        found = facts(days=60)
        click = pl.when(pl.int_range(pl.len()) % 20 < 20 * share).then(5).otherwise(pl.col("click"))
        daily = found.daily.with_columns(click=click)
        return LogFacts(kinds=found.kinds, daily=daily, alone=False, history=1.0)

    assert choose_period(thin(0.05)).period == "P1D"
    assert choose_period(thin(0.2)).period == "P1W"


def test_a_first_night_ends_a_whole_period() -> None:
    weekly = facts(days=73, click=20)
    assert weekly.daily["date"][-1] == MONDAY + timedelta(72)
    assert first_night(weekly, choose_period(weekly)) == MONDAY + timedelta(69), "a Sunday"
    daily = facts(days=30)
    assert first_night(daily, choose_period(daily)) == MONDAY + timedelta(29)


@pytest.mark.parametrize(
    ("delay_s", "longest_s", "window_s"),
    [(0, 86_400, 60), (40, 86_400, 60), (61, 86_400, 300), (7_300, 86_400, 43_200), (90_000, 86_400, 86_400)],
)
def test_a_window_holds_nearly_all_of_the_feedback(delay_s, longest_s, window_s) -> None:
    assert choose_window(kind(delay_s=float(delay_s)), longest_s) == window_s


@pytest.mark.parametrize(
    ("impressions", "batch", "epochs"),
    [(100, 128, 2), (1_000, 256, 2), (8_000, 2_048, 2), (100_000, 2_048, 1)],
)
def test_few_rows_are_learned_in_small_batches(impressions, batch, epochs) -> None:
    found = facts(days=30, impressions=impressions)
    assert choose_batch(found, choose_period(facts())) == (28 * impressions, epochs, batch)


def test_a_funnel_has_a_child_that_counts_as_much_as_its_parent(suggested) -> None:
    bought = kind("purchase", implies={"click": 0.995}, delay_s=1_000.0)
    config, text = suggested(facts([kind(), bought], purchase=80))
    click, purchase = config.tasks
    assert (purchase.parent, click.parent) == ("click", None)
    assert (purchase.window, click.window) == (1_800, 60)
    assert purchase.fusion_weight == pytest.approx(200 / 80)
    assert "# 95% came within 17 minutes of the impression." in text
    assert "# 99.5% of them came with a 'click'" in text
    alone, _ = suggested(facts([kind(), kind("purchase", implies={"click": 0.9})], purchase=10 * 6))
    assert alone.tasks[1].parent is None
    rare, _ = suggested(facts([kind(), bought], impressions=9_000, click=6_000, purchase=60))
    assert rare.tasks[1].fusion_weight == 10.0


def test_a_window_that_a_night_waits_for_is_said_to_be_so(suggested) -> None:
    config, text = suggested(facts([kind(delay_s=40_000.0)]))
    assert config.tasks[0].window == 43_200
    assert "within 11 hours of the impression; a night waits for it, and evaluates an earlier day." in text


def test_a_kind_without_labels_is_left_to_histories(suggested) -> None:
    config, text = suggested(facts([kind(), kind("share"), kind("gift", credited=0)], share=20, gift=0))
    assert [task.name for task in config.tasks] == ["click"]
    assert "share, gift.\n# They are in histories." in text
    assert set(config.features.history_kinds) == {"click", "share", "gift"}


@pytest.mark.parametrize(
    ("repeats", "decided", "said"),
    [(0.049, "exclude", "4.9% of the 'purchase'"), (0.05, "allow", "5.0% of the 'purchase'")],
)
def test_whether_an_item_is_shown_again_follows_from_the_repeats(suggested, repeats, decided, said) -> None:
    """Of the end of the funnel: a click on something seen before says nothing of what is bought twice."""
    config, text = suggested(facts([kind(repeats=0.0), kind("purchase", repeats=repeats)]))
    assert (config.policy.repeat, config.policy.repeat_kinds) == (decided, ("purchase",))
    assert not config.item_item.feature
    assert not config.training.stream_odds
    assert f"# {said} are of an item that the user had on an earlier day" in text


@pytest.mark.parametrize(("clicks_again", "read"), [(0.049, False), (0.05, True)])
def test_heads_read_the_past_where_drawn_negatives_have_one(suggested, clicks_again, read) -> None:
    found = facts([kind(repeats=clicks_again), kind("purchase", repeats=0.08)])
    config, _ = suggested(found, **OF_CHOICES)
    assert config.policy.repeat == "learn"
    assert config.item_item.feature == read
    assert not config.training.stream_odds, "negatives of one head are in part chosen for the other"


def test_a_head_alone_learns_the_odds_of_the_stream(suggested) -> None:
    config, _ = suggested(facts([kind(repeats=0.08)]), **OF_CHOICES)
    assert config.item_item.feature
    assert config.training.stream_odds


def test_heads_do_not_read_a_past_that_no_drawn_negative_has(suggested) -> None:
    config, _ = suggested(facts([kind(repeats=0.08)]), **OF_CHOICES, negatives={"taken_before": "leave_out"})
    assert not config.item_item.feature
    assert not config.training.stream_odds


def test_ratings_alone_get_a_head_that_finds_what_to_list(suggested) -> None:
    found = facts([kind("stars", repeats=0.0, **STARS)], alone=True, impressions=3_000, stars=600)
    choices = {"feedback": {**OF_CHOICES["feedback"], "only_kind": "stars", "value": "v"}, "events": None}
    config, text = suggested(found, **choices)
    given, stars = config.tasks
    assert (given.name, given.head, given.feedback) == ("stars_given", "binary", "stars")
    assert (stars.head, stars.space, stars.low, stars.high) == ("regression", "observed", 1.0, 5.0)
    assert stars.fusion_weight == pytest.approx(0.2 / 4), "the whole range moves a score as far as the rate"
    assert "it moves a score as 'stars_given' does" in text
    assert config.retrieval_task == given
    assert config.policy.excluded_kinds == ("stars",)
    assert not config.model.position_bias
    assert "4 items that the user did not take" in text


def test_what_was_logged_has_no_word_of_negatives_and_a_choice_has_its_window(suggested) -> None:
    _, logged = suggested(facts())
    config, chosen = suggested(facts(alone=True), **OF_CHOICES)
    assert "egatives" not in logged
    assert "per_positive" in chosen
    assert (config.policy.repeat, config.policy.repeat_kinds) == ("learn", ("click",))
    assert config.item_item.feature
    assert "# It is the impression itself" in chosen
    assert config.tasks[0].window == 60


def test_histories_are_as_long_as_most_users(suggested) -> None:
    lengths = [suggested(facts(history=n))[0].features.history_length for n in (3, 30, 47, 800)]
    assert lengths == [30, 30, 50, 100]


def test_longer_periods_have_windows_of_counts_to_match(suggested) -> None:
    weekly, _ = suggested(facts(days=70, click=20))
    monthly, _ = suggested(facts(days=2_400, impressions=120, click=3))
    assert (weekly.period, weekly.features.window_days) == ("P1W", (7, 28, 91))
    assert (monthly.period, monthly.features.window_days) == ("P1M", (31, 366))
    assert monthly.training.max_days > 70, "all months"


def test_a_log_without_enough_labels_in_any_period_says_that_evaluations_say_less(suggested) -> None:
    config, text = suggested(facts(days=6, impressions=130, click=20))
    assert config.gate.min_rows == 130
    assert "A day has about 130 labels of 'click'" in text


def test_a_log_without_feedback_says_what_is_missing(bench, events) -> None:
    bench.csv("log.csv", "user_id,product_id,event,at\nu1,a,view,2026-01-05 10:00:00")
    found = suggest.suggest_config(bench.convert(events()), parse_mapping(events(), "MAP"))
    assert "no feedback" in found.text
    assert found.night == date(2026, 1, 5)
