"""Batches of whole lists: which rows, pairs and states they have; the same from memory and from files."""

from dataclasses import fields, replace
from datetime import date

import numpy as np
import polars as pl
import pytest
import torch

from features.encode import Encoder
from features.held import held_day
from recsys.metrics.columns import Lists
from recsys.metrics.examination import at_positions
from recsys.metrics.list_auc import list_auc
from training.data import BatchStream, Cutting, EncodedDays, encode_day, sizes_of
from training.data.chunks import LIST_ROWS, DaySize, cut_day
from training.data.list_rows import ListRows
from training.data.pairs import Pairs, by_chance
from training.train import make_batcher, retrieval_popularity
from training.trainer.batch_file import batch_tensors

DAY = 3
BATCH_SIZE = 64


def _batches(lists, batch_size=100, chunk_rows=100_000):
    cutting = Cutting(chunk_rows=chunk_rows, batch_size=batch_size, seed=3)
    (chunk,) = cut_day(DaySize(date(2026, 1, 5), lists.size), 0, cutting)
    return chunk, [rows for rows, _ in chunk.batches(0, lists)]


def test_lists_stay_together_and_batches_are_as_many_as_ever():
    lists = np.random.default_rng(0).integers(0, 300, 1_973)
    chunk, batches = _batches(lists)
    assert len(batches) == chunk.num_batches == 20
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(lists.size))
    assert all(abs(rows.size - lists.size / 20) <= 25 for rows in batches)
    of_list = [set(lists[rows]) for rows in batches]
    assert sum(map(len, of_list)) == np.unique(lists).size, "no list is in two batches"
    for rows in batches:
        changes = np.count_nonzero(np.diff(lists[rows])) + 1
        assert changes == np.unique(lists[rows]).size, "rows of a list are neighbours"


def test_lists_and_their_rows_are_shuffled():
    lists = np.repeat(np.arange(400), 5)
    _, batches = _batches(lists)
    order = np.concatenate(batches)
    assert np.abs(np.corrcoef(np.arange(order.size), lists[order])[0, 1]) < 0.2
    inside = order.reshape(400, 5) % 5
    assert np.abs(inside.mean(axis=0) - 2).max() < 0.3, "the first row of a list is not always its first"


def test_a_long_list_is_cut_into_parts_of_many_batches():
    lists = np.append(np.zeros(1_000, np.int64), np.arange(1, 3_001))
    _, batches = _batches(lists, batch_size=400)
    own = np.array([np.count_nonzero(lists[rows] == 0) for rows in batches])
    assert own.sum() == 1_000
    assert (own > 0).sum() > 5, f"parts of {LIST_ROWS} rows, drawn into batches"
    firsts = np.concatenate([rows[lists[rows] == 0] for rows in batches if (lists[rows] == 0).any()][:3])
    assert firsts.max() - firsts.min() > 800, "a part is of the whole list"


def test_pairs_by_hand():
    lists = np.array([7, 7, 7, 7, 2, 2, 5, 9, 9, 9])
    label = np.array([1, 0, np.nan, 0, 1, 1, 0, 0, 1, 1], float)
    pairs = Pairs.of(lists, label)
    found = sorted(zip(pairs.positive.tolist(), pairs.negative.tolist(), pairs.weight.tolist(), strict=True))
    assert found == [(0, 1, 1.5), (0, 3, 1.5), (8, 7, 1.5), (9, 7, 1.5)], "lists 2 and 5 have one label"
    assert Pairs.of(lists, np.full(10, np.nan)).weight.size == 0


@pytest.fixture(scope="module")
def encoder(trained, config):
    return Encoder.from_config(config, trained.state)


@pytest.fixture(scope="module")
def user_days(shop_chain):
    """A list is all that a user saw on a day."""
    return ListRows(columns=("user_id", "never_logged"), state=shop_chain.live_state)


@pytest.fixture(scope="module")
def encoded(shop_chain, encoder, config, user_days):
    return encode_day(encoder, shop_chain, DAY, config.tasks, lists=user_days)


def test_the_held_state_is_that_of_the_lists_first_impression(shop_chain, encoder, encoded, config, tmp_path):
    shown = shop_chain[DAY].table("examples")
    group = shown["user_id"].rank("dense").cast(pl.Int64)
    assert np.unique(encoded.lists).size == group.n_unique()
    assert (np.unique(encoded.lists, return_inverse=True)[1][group.arg_sort()][1:] >= 0).all()
    with held_day(shop_chain, DAY, group, tmp_path) as held:
        wanted = encode_day(encoder, held.days, DAY, config.tasks)
        moved = held.rows
    assert moved.size > 100
    np.testing.assert_array_equal(np.flatnonzero(encoded.held.state_at < encoded.state_at), moved)
    for name in ("state_at", "start", "stop"):
        values = getattr(encoded.held, name)
        np.testing.assert_array_equal(values[moved], getattr(wanted, name), err_msg=name)
        rest = np.delete(np.arange(encoded.size), moved)
        np.testing.assert_array_equal(values[rest], getattr(encoded, name)[rest], err_msg=name)
    for name in ("ids", "numbers"):
        values = getattr(encoded.held.contexts, name)
        np.testing.assert_array_equal(values[moved], getattr(wanted.contexts, name), err_msg=name)
        assert (values != getattr(encoded.contexts, name)).any()


@pytest.mark.parametrize("shards", [1, 3])
def test_files_hold_the_same_lists_and_states(
    shop_chain, split_chain, encoder, encoded, config, tmp_path, user_days, shards
):
    days = shop_chain if shards == 1 else split_chain
    files = EncodedDays(
        folder=tmp_path / "days",
        encoder=encoder,
        days=days,
        tasks=config.tasks,
        hidden=lambda _: (),
        piece_rows=64,
        lists=user_days,
    )(DAY)
    bounds = np.array([[3, 50], [120, 121], [200, encoded.size]])
    found, wanted = files.read(bounds), encoded.read(bounds)
    np.testing.assert_array_equal(found.lists, wanted.lists)
    np.testing.assert_array_equal(found.held.state_at, wanted.held.state_at)
    np.testing.assert_array_equal(found.held.contexts.ids, wanted.held.contexts.ids)
    np.testing.assert_array_equal(found.held.contexts.numbers, wanted.held.contexts.numbers)
    items = [
        [of.events.items[a:b].tolist() for a, b in zip(of.held.start, of.held.stop, strict=True)]
        for of in (found, wanted)
    ]
    assert items[0] == items[1]
    assert any(items[0])


@pytest.fixture(scope="module")
def make_stream(shop_chain, trained, config, encoder, encoded):
    popularity = retrieval_popularity(shop_chain, [DAY], config, trained.state)

    def make(epochs=1, **settings):
        batcher = make_batcher(encoder, shop_chain[DAY].table("items"), config, config.tasks)
        changed = {"id_dropout": 0.3, "num_uniform": 7, "list_tasks": ("click", "purchase"), **settings}
        batcher.settings = replace(batcher.settings, **changed)
        return BatchStream(
            days=sizes_of(shop_chain, [DAY]),
            read_day=lambda _: encoded,
            batcher=batcher,
            cutting=Cutting(chunk_rows=200, batch_size=BATCH_SIZE, seed=5),
            epochs=epochs,
            popularity=popularity,
        )

    return make


def _looked_up(batch, name):
    return batch.rows[name][batch.index[name]]


def test_rows_are_there_once_more_as_their_list_began_for_pairs_alone(make_stream):
    num_held = 0
    for batch in make_stream(id_dropout=0.0).batches():
        again = slice(batch.num_shown, batch.size)
        num_held += batch.num_held
        assert not any(observed[again].any() for observed in batch.observed.values())
        for task, pairs in batch.pairs.items():
            both = torch.stack([pairs.positive_P, pairs.negative_P])
            assert torch.equal(batch.labels[task][both], torch.tensor([[1.0], [0.0]]).expand_as(both))
            users = _looked_up(batch, "user_id")[both]
            assert torch.equal(users[0], users[1]), "a pair is of one list"
            hours = _looked_up(batch, "hour")[both]
            assert torch.equal(hours[0], hours[1]), "and of one instant"
    assert num_held > 100


def test_from_any_step_the_same_batches_follow(make_stream):
    stream = make_stream(epochs=2)
    whole = [batch_tensors(batch) for batch in stream.batches()]
    assert any(name.startswith("pairs/") for name in whole[0])
    for step in (1, len(whole) // 2, len(whole) - 1):
        rest = [batch_tensors(batch) for batch in stream.batches(step)]
        assert len(rest) == len(whole) - step
        for one, other in zip(whole[step:], rest, strict=True):
            assert one.keys() == other.keys()
            assert all(torch.equal(one[name], other[name]) for name in one)


def test_ranks_have_whole_lists_and_together_all_rows_and_pairs(make_stream):
    ranks = [make_stream(rank=rank, ranks=3).batches() for rank in range(3)]
    for one, *shares in zip(make_stream().batches(), *ranks, strict=True):
        assert sum(share.num_shown for share in shares) == one.num_shown
        for name in ("user_id", "item_id"):
            parts = [_looked_up(share, name)[: share.num_shown] for share in shares]
            assert torch.equal(torch.cat(parts), _looked_up(one, name)[: one.num_shown])
        for task, pairs in one.pairs.items():
            weight = sum(float(share.pairs[task].weight_P.sum()) for share in shares)
            assert weight == pytest.approx(float(pairs.weight_P.sum()))
            assert sum(share.pairs[task].weight_P.numel() for share in shares) == pairs.weight_P.numel()


def test_without_a_weight_batches_are_those_of_rows(make_stream, encoded):
    batches = list(make_stream(list_tasks=()).batches())
    assert all(not batch.pairs and not batch.num_held for batch in batches)
    plain = replace(encoded, lists=None, held=None)
    other = replace(make_stream(list_tasks=()), read_day=lambda _: plain)
    for one, two in zip(batches, other.batches(), strict=True):
        found, wanted = batch_tensors(one), batch_tensors(two)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_selected_rows_keep_their_lists_and_states(encoded):
    rows = np.array([5, 2, 300])
    some = encoded.take(rows)
    np.testing.assert_array_equal(some.lists, encoded.lists[rows])
    for field in fields(some.held):
        if field.name != "contexts":
            np.testing.assert_array_equal(
                getattr(some.held, field.name), getattr(encoded.held, field.name)[rows]
            )


def test_pairs_weigh_as_in_the_metric_by_the_chance_of_their_labels():
    """Wins of an order, by the pairs' weights, are the metric's."""
    rng = np.random.default_rng(0)
    lists, position = np.repeat(np.arange(50), 6), np.tile(np.arange(1, 7), 50)
    label, prediction = (rng.random(300) < 0.3).astype(float), rng.random(300)
    curve = np.array([1.0, 1.0, 0.7, 0.5, 0.3, 0.2])
    looked_at = at_positions(curve, position)
    pairs = Pairs.of(lists, label, by_chance(label, looked_at))
    wins = prediction[pairs.positive] > prediction[pairs.negative]
    wanted = list_auc(label, prediction, Lists(group=lists, examination=looked_at))
    # A list's AUC is its wins / its weighed pairs; it weighs its rows times the mean weight of its pairs.
    assert np.average(wins, weights=pairs.weight) == pytest.approx(wanted, rel=1e-6)
    assert np.average(wins, weights=Pairs.of(lists, label).weight) != pytest.approx(wanted, rel=1e-3)


def test_batches_weigh_pairs_by_the_settings_examination(make_stream):
    plain, weighed = make_stream().batches(), make_stream(examination=(1.0, 1.0, 0.5)).batches()
    for one, other in zip(plain, weighed, strict=True):
        at, ratio = one.position_B, other.pairs["click"].weight_P / one.pairs["click"].weight_P
        above = at[one.pairs["click"].positive_P] == 1
        assert (ratio[above] <= 1.0).all()
        assert (ratio[~above] > 1.2).all(), "2 for the click, times less than 1 for the unseen"
