"""What a changed definition makes of what was fitted: forgotten, or kept."""

from dataclasses import replace

import numpy as np
import pytest

from features.lineage import still_fitted
from recsys.encoding import EncoderState, NumberStatistics, TextModel
from recsys.vocabulary import Vocabulary

SIZE = {"name": "size", "entity": "item", "kind": "number"}
COLOUR = {"name": "colour", "entity": "item", "kind": "categorical"}
FITTED = NumberStatistics(prior=0.0, mean=1.0, std=2.0)
NAMES = ("item_size", "item_colour", "item_gone", "user_rating_mean_7", "user_by_category__rating_mean_7")


@pytest.fixture
def old():
    return EncoderState(
        vocabularies=dict.fromkeys(("user_id", *NAMES[:2]), Vocabulary(ids=("a",), hash_buckets=2)),
        numbers=dict.fromkeys(NAMES, FITTED),
        history={"rating": (2.5,)},
    )


@pytest.mark.parametrize(
    ("was", "now", "kept"),
    [
        (SIZE, SIZE, True),
        (SIZE, SIZE | {"log": True}, False),
        (SIZE, SIZE | {"bins": 4}, False),
        (SIZE | {"bins": 3}, SIZE | {"bins": 4}, False),
        (SIZE | {"bins": 4}, SIZE | {"bins": 4, "dim": 16}, True),
    ],
)
def test_statistics_stay_while_a_number_is_read_in_the_same_form(make_config, old, was, now, kept):
    found = still_fitted(old, make_config(feature=[was]), make_config(feature=[now]))
    assert ("item_size" in found.numbers) == kept
    assert ("item_size" in found.vocabularies) == (kept and "bins" in now)
    assert "item_gone" not in found.numbers


def test_a_vocabulary_outlives_its_settings(make_config, old):
    """Numbers of ids depend on the buckets it began with: it keeps them."""
    other = COLOUR | {"min_count": 9, "dim": 16, "hash_buckets": 5}
    was, now = make_config(feature=[COLOUR]), make_config(feature=[other])
    assert still_fitted(old, was, now).vocabularies["item_colour"].hash_buckets == 2


def test_a_value_of_another_unit_or_range_is_fitted_anew(make_config, old):
    tasks = [t.model_dump(mode="json") for t in make_config().tasks]
    finer = make_config(task=[*tasks[:2], tasks[2] | {"step": 0.1}])
    assert still_fitted(old, make_config(), finer).numbers == {}
    assert still_fitted(old, make_config(), finer).history == {"rating": (2.5,)}
    wider = make_config(task=[*tasks[:2], tasks[2] | {"high": 10.0}])
    assert still_fitted(old, make_config(), wider).history == {}


def test_crosses_and_users_stay_when_a_task_is_added(make_config, old):
    """What a new task counts decides which users are counted, and not what their numbers mean."""
    tasks = [t.model_dump(mode="json") for t in make_config().tasks]
    more = make_config(task=[*tasks, tasks[0] | {"name": "like", "feedback": "like"}])
    found = still_fitted(old, make_config(), more)
    assert {*found.numbers} == {*NAMES[3:]}
    assert "user_id" in found.vocabularies


@pytest.mark.parametrize("changed", [{}, {"text_dim": 7}, {"text_columns": ["title"]}, {"text_model": "m"}])
def test_a_text_model_stays_while_text_is_read_alike(make_config, old, changed):
    old = replace(old, text=TextModel(terms=("a",), idf=np.ones(1), components=np.ones((1, 6))))
    found = still_fitted(old, make_config(), make_config(features=changed))
    assert (found.text is old.text) == (not changed)
