"""Feature definitions: one name each, freshness as promised, and values that follow the config."""

import pytest

from features.definitions import define_features, windows
from recsys.errors import ConfigError


def test_names_are_unique_and_entities_agree(config):
    features = define_features(config)
    names = [f.name for f in features.all]
    assert len(set(names)) == len(names)
    for entity in ("user", "item", "context"):
        of = (*features.ids_of(entity), *features.bags_of(entity), *features.numbers_of(entity))
        assert all(f.entity == entity for f in of)
    assert features.ids_of("item")[0].name == "item_id", "the model takes the first one as the item's row"


def test_only_the_request_is_live(config):
    features = define_features(config)
    for feature in features.all:
        assert feature.freshness == ("live" if feature.entity == "context" else "nightly")


def test_every_task_has_counts_and_a_rate_or_a_mean_per_window(config):
    names = {f.name for f in define_features(config).numbers}
    for window in windows(config):
        for entity in ("user", "item", "item_by_category"):
            assert f"{entity}_{'_' if entity == 'item_by_category' else ''}click_rate_{window}" in names
            assert f"{entity}_{'_' if entity == 'item_by_category' else ''}rating_mean_{window}" in names


def test_organic_feedback_has_rates_where_it_has_a_base(make_config):
    def organic(**features: object) -> set[str]:
        found = define_features(make_config(features=features))
        numbers = (*found.numbers, *(f for cross in found.crosses for f in cross.numbers))
        return {f.name for f in numbers if "organic" in f.name and f.name.endswith("_life")}

    assert organic() == set()
    of = ("user", "item", "item_by_category_", "user_by_category_")
    assert organic(organic_base="view") == {
        f"{entity}_{name}_life"
        for entity in of
        for name in ("organic_base", "click_organic_rate", "purchase_organic_rate")
    }
    assert not any("click_organic" in name for name in organic(organic_base="click"))


def test_by_the_item_itself_a_user_is_counted_in_the_longest_window_alone(make_config):
    def numbers(**features: object) -> set[str]:
        [cross] = define_features(make_config(features={"cross_user_by": ["item_id"], **features})).crosses
        return {f.name.removeprefix("user_by_item_id__") for f in cross.numbers}

    of_28 = {"impressions", "click_count", "click_rate", "purchase_count", "purchase_rate"}
    assert numbers() == {f"{name}_28" for name in (*of_28, "rating_count", "rating_mean")}
    assert all(name.endswith("_9") for name in numbers(window_days=[9, 2]))
    assert "click_rate_life" in numbers(window_days=[]), "else nothing would be counted"


def test_without_aggregates_no_head_is_told_of_feedback_by_a_count(make_config):
    weight = {"name": "weight", "entity": "item", "kind": "number"}
    features = define_features(make_config(feature=[weight], features={"aggregates": False}))
    static = {"item_price", "item_weight", "item_age_hours"}
    assert {f.name for f in features.numbers if f.entity != "context"} == static
    assert features.numbers_of("context"), "live counters have a switch of their own"
    assert features.crosses[0].numbers, "and so have crosses"
    bare = make_config(features={"aggregates": False, "live_counters": False, "cross_user_by": []})
    assert {f.name for f in define_features(bare).numbers} == {"item_price", "item_age_hours"}


def test_a_config_may_do_without_users_text_and_history(make_config):
    config = make_config(features={"user_id_dim": 0, "history_kinds": [], "group_items_by": []})
    features = define_features(config)
    assert "user_id" not in {f.name for f in features.ids}
    assert features.history == ()


@pytest.mark.parametrize(
    "feature",
    [
        {"name": "id", "entity": "item", "kind": "categorical"},
        {"name": "id", "entity": "user", "kind": "categorical"},
        {"name": "price", "entity": "item", "kind": "number"},
        {"name": "click_rate_7", "entity": "user", "kind": "number"},
    ],
)
def test_a_feature_may_not_take_a_standard_name(make_config, feature):
    with pytest.raises(ConfigError, match=f"two features are called '{feature['entity']}_{feature['name']}'"):
        define_features(make_config(feature=[feature]))
