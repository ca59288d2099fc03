"""What orders the rows of a list: rows whose inputs are exchanged, and the figures made of them."""

import numpy as np
import pytest

from benchmarks.quality.inside_lists import diagnosis
from benchmarks.quality.inside_lists.diagnosis import HeadLists, diagnose, scorer
from benchmarks.quality.inside_lists.exchanged import exchanged, parts_of
from benchmarks.quality.inside_lists.list_rows import ListRows
from benchmarks.quality.inside_lists.run_diagnosis import inputs_grid, orders_grid, run_diagnosis
from benchmarks.quality.sets.night import Night
from recsys.errors import ConfigError
from recsys.metrics.columns import Lists
from recsys.metrics.list_auc import list_auc
from recsys.stages import Stages
from training.crosses import cross_numbers

SIZE, PER_LIST = 40_000, 8


@pytest.fixture(scope="module")
def night(lone_log, config, tmp_path_factory):
    """A night of the shop's log, each impression a request of its own: lists have a state that is held."""
    return Night(lone_log, config, Stages(tmp_path_factory.mktemp("inside")))


@pytest.fixture(scope="module")
def labelled(night):
    return night.labelled(night.config.tasks[0], night.runs.plan.calibrate)


@pytest.fixture(scope="module")
def chosen(labelled):
    """The places of rows in lists."""
    return labelled.rows[labelled.lists.group >= 0]


@pytest.fixture(scope="module")
def rows(night, labelled, chosen):
    day = night.runs.plan.calibrate["click"]
    lists = Lists.unplaced(night.runs.lists(day).fill_null(-1))
    held = (labelled.held.encoded, labelled.held.places)
    return ListRows.of(labelled.encoded, held, lists, chosen, ["context_device"])


def test_rows_of_their_own_say_what_the_day_says(rows, labelled, chosen):
    day, own = labelled.encoded, rows.encoded
    np.testing.assert_array_equal(own.items.numbers[:-1], day.items.numbers[day.item_row[chosen]])
    np.testing.assert_array_equal(own.users.ids[:-1], day.users.ids[day.user_row[chosen]])
    crosses = cross_numbers(day.crosses, day.user_row[chosen], day.item_row[chosen])
    assert (np.ptp(crosses, axis=0) > 0).any()
    np.testing.assert_array_equal(cross_numbers(own.crosses, own.user_row, own.item_row), crosses)
    for number in np.unique(rows.list_code):
        mine = rows.list_code == number
        assert set(own.state_at[mine]) == {own.shown_at[mine].min()}, "the state is held"


def test_items_are_exchanged_inside_lists_and_users_between_them(rows):
    rng = np.random.default_rng(0)
    shuffled, others = rows.shuffled(rng), rows.other_users(rng)
    assert sorted(shuffled) == list(range(rows.size))
    assert (shuffled != np.arange(rows.size)).mean() > 0.3
    np.testing.assert_array_equal(rows.list_code[shuffled], rows.list_code)
    np.testing.assert_array_equal(rows.context_code[others], rows.context_code)
    user = rows.encoded.user_key
    assert (user[others] != user).mean() > 0.9
    for number in np.unique(rows.list_code):
        assert np.unique(others[rows.list_code == number]).size == 1, "one other user for a list"


def test_an_exchange_changes_its_own_columns_and_no_others(rows, night):
    features = night.encoder.features
    parts = parts_of(features, text=True)
    of_item = [part for part in parts if part.entity == "item"]
    assert sorted(c for p in of_item for c in p.numbers) == list(range(features.width_of("item")))
    assert sorted(c for p in of_item for c in p.ids) == list(range(len(features.ids_of("item"))))
    source = rows.shuffled(np.random.default_rng(1))
    own = rows.encoded.items
    for part in of_item:
        found = exchanged(rows, [part], source).items
        for name in ("ids", "numbers"):
            before, after = getattr(own, name), getattr(found, name)
            moved = np.isin(np.arange(before.shape[1]), getattr(part, name))
            np.testing.assert_array_equal(after[:-1][:, moved], before[source][:, moved])
            np.testing.assert_array_equal(after[:, ~moved], before[:, ~moved])
        np.testing.assert_array_equal(found.text[:-1], own.text[source] if part.text else own.text[:-1])


def test_another_users_crosses_are_of_the_rows_own_item(rows, night):
    part = next(p for p in parts_of(night.encoder.features, text=False) if p.cross == 0)
    source = rows.other_users(np.random.default_rng(2))
    found = exchanged(rows, [part], source)
    day = rows.crosses_of
    np.testing.assert_array_equal(
        cross_numbers(found.crosses, found.user_row, found.item_row),
        cross_numbers(day.crosses, day.user_row[source], day.item_row),
    )


def test_the_users_part_of_a_score_is_found():
    rng = np.random.default_rng(3)
    item, own = rng.normal(size=SIZE), rng.normal(size=SIZE) * 3**0.5
    others = item + rng.normal(size=(4, SIZE)) * 3**0.5
    head = _head((rng.random(SIZE) < 1 / (1 + np.exp(-item - own))).astype(float))
    of_list = np.repeat(rng.normal(size=SIZE // PER_LIST) * 10, PER_LIST)
    assert head.personal_share(of_list + item + own, others + of_list) == pytest.approx(0.75, abs=0.02)
    assert head.personal_share(item, np.stack([item, item])) == pytest.approx(0)


def test_what_is_lost_has_an_interval():
    rng = np.random.default_rng(4)
    score = rng.normal(size=SIZE)
    head = _head((rng.random(SIZE) < 1 / (1 + np.exp(-score))).astype(float))
    chance = [rng.normal(size=SIZE) for _ in range(2)]
    lost = head.lost([score], [chance])
    assert lost["value"] == pytest.approx(head.auc(score) - np.mean([head.auc(c) for c in chance]))
    assert 0 < lost["low"] < lost["value"] < lost["high"]


def _head(label):
    group = np.arange(SIZE) // PER_LIST
    return HeadLists(
        task=None, known=np.ones(SIZE, bool), label=label, user=group, weight=np.ones(SIZE),
        lists=Lists.unplaced(group), item_rate=label,
    )  # fmt: skip


def test_a_model_is_diagnosed_on_the_day_that_choices_look_at(night, rows, labelled, monkeypatch):
    monkeypatch.setattr(diagnosis, "OTHER_USERS", 2)
    monkeypatch.setattr(diagnosis, "REPEATS", 1)
    inside_lists: dict[str, set[bool]] = {"item": set(), "user": set()}

    def noted(of, parts, source):
        for part in parts:
            inside_lists[part.side].add(bool((of.list_code[source] == of.list_code).all()))
        return exchanged(of, parts, source)

    monkeypatch.setattr(diagnosis, "exchanged", noted)
    config, runs = night.config, night.runs
    trained = runs.train(config, config.tasks, 0, prepared=runs.prepared)
    tree = diagnose(night, [trained])
    assert inside_lists == {"item": {True}, "user": {False}}
    day = runs.plan.calibrate["click"]
    known = runs.score(trained, config, config.tasks)["click"].known
    score = scorer(trained, night, day, config)(rows.encoded)["click"]
    probability = 1 / (1 + np.exp(-score))
    np.testing.assert_allclose(probability, known.list_prediction[labelled.lists.group >= 0], rtol=1e-4)
    assert tree["day"] == str(runs.days[day].day)
    # An item that a list has twice is a tie, which rounding may break one way or the other.
    assert tree["heads"]["click"]["list_auc"]["model"] == pytest.approx(
        list_auc(known.label, known.list_prediction, known.lists, known.weight), abs=5e-3
    )
    assert list(tree["heads"]) == ["click", "purchase"], "only heads that predict a chance"
    inputs = {i["input"]: i for i in tree["heads"]["click"]["inputs"]}
    assert inputs["item_price"]["value"] is not None
    titles = orders_grid(tree)[0]
    assert titles == ["list_auc", "click", "purchase"]
    assert len(inputs_grid(tree)) == 1 + len(inputs)


def test_a_set_without_a_night_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"--set 'coat' has no night .* kuairand, shop"):
        run_diagnosis("coat", tmp_path, 1)
