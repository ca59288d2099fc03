"""The list of features: each with its kind and freshness, nothing left out."""

import json

from features.definitions import define_features
from features.listing import list_features
from recsys.cli import run

NO_AGGREGATES = {"aggregates": False, "cross_user_by": []}


def test_every_feature_is_listed_with_its_freshness(make_config):
    config = make_config(
        feature=[
            {"name": "device", "entity": "context", "kind": "categorical"},
            {"name": "tags", "entity": "item", "kind": "multi_hot"},
            {"name": "age", "entity": "user", "kind": "number", "bins": 8, "log": True},
            {"name": "weight", "entity": "item", "kind": "number"},
        ]
    )
    rows = {row["name"]: row for row in list_features(config)}
    features = define_features(config)
    crossed = [n.name for c in features.crosses for n in c.numbers]
    defined = [f.name for f in (*features.looked_up, *features.numbers)]
    assert set(rows) == {*defined, *crossed, "history", "item_text"}
    assert rows["context_device"]["freshness"] == rows["user_live_click_count"]["freshness"] == "live"
    assert rows["item_tags"]["kind"] == "multi-hot"
    assert rows["user_age"]["kind"] == "number in 8 bins"
    assert rows["item_click_rate_7"]["from"] == "click_shown_7 / impressions_7"
    assert rows["user_by_category__click_count_life"]["entity"] == "user x category"
    assert rows["history"]["freshness"] == "live"
    read = make_config(item_item={"feature": True}, policy={"repeat": "learn"})
    past = {row["name"]: row for row in list_features(read)}
    names = {"item_item_score", "item_item_place", "repeat_score"}
    assert names.isdisjoint(rows)
    assert {past[name]["freshness"] for name in names} == {"live"}
    plain = make_config(
        features={"history_length": 0, "text_dim": 0, "cross_user_by": [], "live_counters": False}
    )
    names = {row["name"] for row in list_features(plain)}
    assert not names & {"history", "item_text", "user_live_click_count", *crossed}
    assert "item_click_rate_7" in names
    assert not any("_rate_" in row["name"] for row in list_features(make_config(features=NO_AGGREGATES)))


def test_the_command_prints_and_writes_the_list(tmp_path, capsys):
    assert run(["data", "features", "--json", str(tmp_path / "features.json")]) == 0
    printed = capsys.readouterr().out
    written = json.loads((tmp_path / "features.json").read_text())
    assert f"{len(written)} features" in printed
    assert "user_live_purchase_count" in printed


def test_a_value_is_listed_in_its_own_unit(make_config):
    """Aggregates hold whole steps (half stars); a click has no value that a history could show."""
    config = make_config(features={"history_length": 30, "history_kinds": ["click", "rating"]})
    rows = {row["name"]: row["from"] for row in list_features(config)}
    assert rows["item_rating_mean_7"] == "0.5 * rating_steps_7 / rating_count_7"
    assert rows["history"] == "last 30 of click, rating (in bins of its value), with kind and age"
