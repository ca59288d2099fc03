"""Config: every wrong key is named with its value and the known ones; every example loads."""

from datetime import date
from pathlib import Path

import pytest

from recsys.config import RunConfig, default_config, load_config, parse_config, period_start
from recsys.config.renamed import RENAMED
from recsys.errors import ConfigError
from recsys.settings import known_keys

ROOT = Path(__file__).parents[2]
CLICK = {"name": "click", "feedback": "click", "head": "binary", "window": "1h"}
STARS = {"name": "stars", "feedback": "rating", "head": "regression", "window": "1d"}
EXAMPLES = sorted([*(ROOT / "examples").glob("*.toml"), ROOT / "recsys" / "shop.toml"])


def _refused(data, *parts):
    with pytest.raises(ConfigError) as caught:
        parse_config({"task": [CLICK], **data}, "FILE")
    message = str(caught.value)
    assert message.startswith("FILE")
    for part in parts:
        assert part in message, message


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_every_example_loads_and_defines_features(path):
    from features.definitions import define_features

    config = load_config(path)
    assert define_features(config).ids


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_renamed_key_is_told_its_new_name(old, new):
    *sections, key = old.split(".")
    data = {key: 1}
    for section in reversed(sections):
        data = {section: [{**CLICK, **data}] if section == "task" else data}
    _refused(data, f"{old.replace('task.', 'task.0.')} was renamed to {new}; write the new name")
    *sections, key = new.split(".")
    assert key in known_keys(RunConfig, sections)
    assert key not in (old, old.split(".")[-1])


def test_the_packaged_config_is_the_shops():
    assert [t.name for t in default_config().tasks] == ["click", "purchase", "rating"]


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        ({"colour": 1}, ("colour: unknown key", "timezone", "training", "task")),
        ({"training": {"batchsize": 1}}, ("training.batchsize: unknown key", "batch_size", "learning_rate")),
        ({"model": {"trunk": {"experts": 2}}}, ("model.trunk.experts: unknown key", "num_experts")),
        ({"task": [{**CLICK, "windw": "1h"}]}, ("windw: unknown key", "window", "feedback")),
    ],
)
def test_an_unknown_key_lists_the_known(data, parts):
    _refused(data, *parts)


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        ({"training": {"batch_size": "many"}}, ("training.batch_size = 'many'", "integer")),
        ({"training": {"batch_size": 1}}, ("training.batch_size = 1", "greater than or equal to 2")),
        ({"training": {"seed": -1}}, ("training.seed = -1", "greater than or equal to 0")),
        ({"training": {"learning_rate": float("inf")}}, ("training.learning_rate = inf", "finite")),
        ({"retrieval": {"weight": float("inf")}}, ("retrieval.weight = inf", "finite")),
        ({"model": {"dropout": 1.0}}, ("model.dropout = 1.0", "less than 1")),
        ({"gate": {"alpha": 0.5}}, ("gate.alpha = 0.5", "less than 0.5")),
        ({"model": {"trunk": {"hidden": []}}}, ("model.trunk.hidden = []",)),
        ({"model": {"trunk": {"hidden": [0]}}}, ("model.trunk.hidden.0 = 0",)),
        ({"features": {"window_days": [0]}}, ("features.window_days.0 = 0",)),
        ({"features": {"ingestion_lag": "soon"}}, ("features.ingestion_lag = 'soon'", "'2h'")),
        ({"features": {"ingestion_lag": -1}}, ("features.ingestion_lag = -1",)),
        ({"timezone": "Mars/Olympus"}, ("timezone = 'Mars/Olympus'", "Asia/Shanghai")),
        ({"period": "P2D"}, ("period = 'P2D'", "P1M")),
        (
            {"serving": {"workers": 0}},
            ("1 wrong", 'serving.workers = 0: is neither "auto" nor a number from 1 to 256'),
        ),
        ({"serving": {"workers": 257}}, ("serving.workers = 257",)),
        ({"serving": {"workers": "many"}}, ("1 wrong", "serving.workers = 'many'")),
        ({"policy": {"name": "best"}}, ("policy.name = 'best'", "greedy")),
        ({"task": [{**CLICK, "head": "ordnal"}]}, ("head = 'ordnal'", "binary")),
        ({"calibration": {"binary": "affine"}}, ("'affine' is no calibrator", "platt, platt_items")),
        ({"calibration": {"binry": "platt"}}, ("'binry' is no head kind", "binary, reg")),
        ({"task": [{**CLICK, "name": "Click!"}]}, ("name = 'Click!'",)),
        ({"task": "click"}, ("task = 'click'",)),
        ({"training": 5}, ("training = 5",)),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(data, parts):
    _refused(data, *parts)


def test_all_wrong_keys_are_listed_at_once():
    _refused(
        {"training": {"seed": "x", "epochs": 0}, "nope": 1},
        "3 wrong setting(s)",
        "training.seed",
        "training.epochs",
        "nope",
    )


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        ({"task": []}, ("no [[task]]",)),
        ({"task": [CLICK, CLICK]}, ("'click' is defined twice",)),
        ({"retrieval": {"task": "rating"}}, ("[retrieval] task = 'rating'",)),
        ({"item_item": {"feature": True, "candidates": 0}}, ("feature = true, candidates = 0",)),
        ({"feature": [{"name": "a", "entity": "user", "kind": "number"}] * 2}, ("[[feature]] 'a'", "twice")),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_together(data, parts):
    _refused(data, *parts)


def test_a_config_without_tasks_at_all():
    with pytest.raises(ConfigError, match="task"):
        parse_config({}, "FILE")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.toml: No such file.*--config FILE"):
        load_config(tmp_path / "nowhere.toml")
    (tmp_path / "bad.toml").write_text("a = = 1")
    with pytest.raises(ConfigError, match=r"bad\.toml is not valid TOML"):
        load_config(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        load_config(tmp_path / "bad.toml")


def test_a_config_survives_the_manifest(config):
    assert parse_config(config.model_dump(mode="json", by_alias=True), "manifest") == config


@pytest.mark.parametrize("head", ["regression", "ordinal"])
@pytest.mark.parametrize(("low", "refused"), [(1, True), (0, False), (-5, False)])
def test_a_value_over_all_impressions_can_be_0(head, low, refused):
    """No feedback is the label 0 there; of 1 to 5 stars it is none."""
    task = STARS | {"head": head, "low": low}
    if refused:
        _refused({"task": [task]}, "'stars'", "no feedback is the label 0", "[1, 5]", "space = 'observed'")
    else:
        parse_config({"task": [task]}, "FILE")
    parse_config({"task": [task | {"space": "observed"}]}, "FILE")
    assert parse_config({"task": [task]}, "FILE", in_use=True).tasks[0].low == low, "bundles stay in use"


def test_a_config_cannot_be_changed(config):
    with pytest.raises(ValueError, match="frozen"):
        config.training.seed = 5


def test_head_kinds_that_calibration_does_not_name_have_their_first(make_config):
    first = {"binary": "platt", "regression": "affine", "ordinal": "affine"}
    assert make_config().calibration == first
    assert make_config(calibration={"ordinal": "none"}).calibration == first | {"ordinal": "none"}


def test_the_retrieval_task_is_the_first_binary_one(make_config):
    assert make_config().retrieval_task.name == "click"
    assert make_config(retrieval={"task": "purchase"}).retrieval_task.name == "purchase"
    stars = STARS | {"space": "observed"}
    assert make_config(task=[stars], feature=[]).retrieval_task is None


def test_periods_begin_where_calendars_do():
    day = date(2026, 1, 30)
    assert period_start(day, "P1D") == day
    assert period_start(day, "P1W") == date(2026, 1, 26)
    assert period_start(day, "P1M") == date(2026, 1, 1)


@pytest.mark.parametrize("sources", ["fit", "off"])
def test_newcomers_are_refused_where_nothing_would_lift_them(sources):
    assert parse_config({"task": [CLICK], "fusion": {"newcomers": 0.6}}, "FILE").fusion.newcomers == 0.6
    _refused(
        {"fusion": {"newcomers": 0.6, "sources": sources}}, f'with sources = "{sources}" nothing is lifted'
    )
