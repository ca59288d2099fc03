"""Views of a config: what is declared can be read, anything else is an error of the code."""

import pickle

import pytest

from recsys.config_view import UndeclaredKeyError, values, view

KEYS = ("timezone", "features.daily_cap", "tasks.name", "tasks.window", "policy")


@pytest.fixture
def seen(config):
    return view(config, "stage x", KEYS)


def test_declared_keys_are_the_configs_own(seen, config):
    assert seen.timezone == config.timezone
    assert seen.features.daily_cap == config.features.daily_cap
    assert [t.window for t in seen.tasks] == [t.window for t in config.tasks]
    assert seen.policy is config.policy


@pytest.mark.parametrize(
    ("read", "key"),
    [
        (lambda c: c.serving, "serving"),
        (lambda c: c.features.min_count, "features.min_count"),
        (lambda c: c.tasks[0].head, "tasks.head"),
        (lambda c: c.tasks[0].kind, "tasks.head"),
        (lambda c: c.retrieval_task, "tasks.head"),
    ],
)
def test_reading_another_key_names_the_stage_and_the_key(seen, read, key):
    with pytest.raises(UndeclaredKeyError, match=rf"stage x reads the config key {key}, which it does not"):
        read(seen)


def test_a_view_goes_to_other_processes_as_a_view(seen):
    again = pickle.loads(pickle.dumps(seen))
    assert again == seen
    with pytest.raises(UndeclaredKeyError, match=r"stage x.*serving"):
        again.serving  # noqa: B018


def test_a_view_of_a_view_cannot_widen_it(seen):
    assert view(seen, "stage y", ("timezone",)).timezone == "UTC"
    with pytest.raises(UndeclaredKeyError, match="stage x reads the config key serving"):
        view(seen, "stage y", ("serving",))


def test_values_are_those_of_the_keys_alone(seen):
    found = values(seen)
    assert set(found) == {"timezone", "features", "task", "policy"}
    assert found["features"] == {"daily_cap": 5_000}
    assert found["task"][0] == {"name": "click", "window": "3600s"}


@pytest.mark.parametrize("key", ["servings", "features.nothing", "tasks.name.first"])
def test_a_key_that_does_not_exist_cannot_be_declared(config, key):
    with pytest.raises(ValueError, match=r"declares the config key .* which does not exist"):
        view(config, "stage x", (key,))


def test_a_section_and_a_part_of_it_are_the_section(config):
    assert view(config, "stage x", ("features.daily_cap", "features")).features is config.features
