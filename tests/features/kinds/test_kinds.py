"""What a [[feature]] may say: every wrong kind, entity and option is named, with what is known."""

import pytest

from features.definitions import define_features, read_config
from recsys.cli import run
from recsys.errors import ConfigError
from recsys.settings import to_toml

WRONG = [
    ({"kind": "colour"}, ("kind = 'colour' is unknown", "categorical, multi_hot, number")),
    (
        {"kind": "categorical", "bins": 4},
        ("'categorical'", "bins: unknown key", "dim, hash_buckets, min_count"),
    ),
    ({"kind": "number", "min_count": 4}, ("'number'", "min_count: unknown key", "bins, dim, log")),
    ({"kind": "number", "size": 1}, ("'number'", "size: unknown key", "bins, dim, log")),
    ({"kind": "categorical", "dim": 0}, ("dim = 0", "greater than or equal to 1")),
    ({"kind": "number", "log": "perhaps"}, ("log = 'perhaps'", "boolean")),
    (
        {"kind": "multi_hot", "entity": "context"},
        ("'multi_hot' is for user and item only", "kinds for 'context': categorical, number"),
    ),
]


@pytest.mark.parametrize(("feature", "parts"), WRONG)
def test_what_does_not_fit_its_kind_is_named(make_config, feature, parts):
    declared = {"name": "a", "entity": "user", **feature}
    with pytest.raises(ConfigError) as caught:
        define_features(make_config(feature=[declared]))
    for part in (f"[[feature]] 'a' of entity {declared['entity']!r}", *parts):
        assert part in str(caught.value), str(caught.value)


@pytest.fixture
def wrong_config(config, tmp_path):
    """Write a config with an unknown kind of feature."""
    data = config.model_dump(mode="json", by_alias=True, exclude_none=True)
    data["feature"] = [{"name": "a", "entity": "user", "kind": "colour"}]
    path = tmp_path / "wrong.toml"
    path.write_text(to_toml(data))
    return path


def test_the_error_names_the_file(wrong_config):
    with pytest.raises(ConfigError, match=r"wrong\.toml: \[\[feature\]\] 'a'.*'colour' is unknown"):
        read_config(wrong_config)


@pytest.mark.parametrize(
    "command",
    [
        ["data", "features"],
        ["data", "validate", "--log", "LOG", "--date", "2026-01-30"],
        ["data", "profile", "LOG"],
        ["nightly", "--log", "LOG", "--runs", "OUT", "--date", "2026-01-30"],
        ["serve", "--log", "LOG", "--runs", "OUT"],
        ["report", "transfer", "--log", "LOG", "--out", "OUT"],
        ["tune", "model", "--log", "LOG", "--out", "OUT"],
    ],
    ids=lambda c: " ".join(c[:2]),
)
def test_every_command_says_it_as_soon_as_it_reads_its_config(
    command, wrong_config, shop_log, tmp_path, capsys
):
    places = {"LOG": str(shop_log.root), "OUT": str(tmp_path / "out")}
    if command[0] == "serve":  # it makes no RUNS
        (tmp_path / "out").mkdir()
    arguments = [places.get(part, part) for part in command]
    assert run([*arguments, "--config", str(wrong_config)]) == ConfigError.exit_code
    said = capsys.readouterr().err
    assert "kind = 'colour' is unknown; known: categorical, multi_hot, number" in said
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())
