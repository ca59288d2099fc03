"""The stream of batches: every row once an epoch, from any step on, one rank's slices of the same batches."""

from collections import Counter
from dataclasses import fields, is_dataclass, replace
from datetime import date

import numpy as np
import pytest
import torch

from features.encode import Encoder
from training.data import BatchStream, Cutting, count_steps, encode_day, sizes_of
from training.data.chunks import DaySize, cut_day
from training.train import make_batcher, retrieval_popularity

DAY = date(2026, 1, 5)
PLACES = (1, 3)


def _rows(chunk):
    """Spell the chunk's batches out as rows of the day."""
    own = np.concatenate([np.arange(*bound) for bound in chunk.bounds])
    return [own[rows] for rows, _ in chunk.batches(0)]


def test_every_row_is_in_one_batch_of_one_chunk():
    cutting = Cutting(chunk_rows=640, batch_size=100, seed=3)
    chunks = cut_day(DaySize(DAY, 2_005), 0, cutting)
    assert len(chunks) == 4
    batches = [rows for chunk in chunks for rows in _rows(chunk)]
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(2_005))
    assert {rows.size for rows in batches} <= set(range(80, 101))
    assert [c.num_batches for c in chunks] == [len(_rows(c)) for c in chunks]
    assert count_steps([DaySize(DAY, 2_005)], cutting, 1) == len(batches)
    assert cut_day(DaySize(DAY, 0), 0, cutting) == []


def test_a_chunk_is_a_sample_of_the_whole_day():
    cutting = Cutting(chunk_rows=6_400, batch_size=100, seed=3)
    for chunk in cut_day(DaySize(DAY, 64_000), 0, cutting):
        hours = np.bincount(np.concatenate(_rows(chunk)) * 4 // 64_000, minlength=4)
        assert hours.min() > 0.9 * 6_400 / 4, "every quarter of the day has its part"
        first = np.concatenate(_rows(chunk)[:5])
        assert np.bincount(first * 4 // 64_000, minlength=4).min() > 60, "also of the first batches"


@pytest.mark.parametrize("chunk_rows", [640, 10_000])
def test_orders_differ_by_seed_epoch_day_and_chunk_and_are_repeated(chunk_rows):
    def order(seed=0, epoch=0, day=DAY):
        cutting = Cutting(chunk_rows=chunk_rows, batch_size=100, seed=seed)
        chunks = cut_day(DaySize(day, 1_280), epoch, cutting)
        return [np.concatenate(_rows(chunk)).tolist() for chunk in chunks]

    found = [order(), order(seed=1), order(epoch=1), order(day=date(2026, 1, 6))]
    shuffled = [tuple(np.argsort(np.argsort(rows))) for chunks in found for rows in chunks]
    assert max(Counter(shuffled).values()) == 1, "no two chunks are shuffled alike"
    assert order() == found[0]


@pytest.fixture(scope="module")
def make_stream(shop_chain, trained, config):
    encoder = Encoder.from_config(config, trained.state)
    encoded = {i: encode_day(encoder, shop_chain, i, config.tasks) for i in PLACES}
    popularity = retrieval_popularity(shop_chain, PLACES, config, trained.state)

    def make(epochs=2, **slices):
        batcher = make_batcher(encoder, shop_chain[3].table("items"), config, config.tasks)
        batcher.settings = replace(batcher.settings, id_dropout=0.3, num_uniform=7, **slices)
        return BatchStream(
            days=sizes_of(shop_chain, PLACES),
            read_day=encoded.__getitem__,
            batcher=batcher,
            cutting=Cutting(chunk_rows=200, batch_size=64, seed=5),
            epochs=epochs,
            popularity=popularity,
        )

    return make


def _tensors(value, name=""):
    if isinstance(value, torch.Tensor):
        return {name: value}
    if is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in fields(value)}
    pairs = value.items() if isinstance(value, dict) else ()
    return {k: v for key, inner in pairs for k, v in _tensors(inner, f"{name}.{key}").items()}


def test_from_any_step_the_same_batches_follow(make_stream):
    stream = make_stream()
    whole = [_tensors(batch) for batch in stream.batches()]
    assert len(whole) == count_steps(stream.days.values(), stream.cutting, stream.epochs) > 20
    for step in (1, 7, len(whole) // 2, len(whole) - 1, len(whole)):
        rest = [_tensors(batch) for batch in stream.batches(step)]
        assert len(rest) == len(whole) - step
        for one, other in zip(whole[step:], rest, strict=True):
            assert one.keys() == other.keys()
            assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_lies_before_the_first_step_is_not_read(make_stream):
    read = []
    stream = make_stream(epochs=1)
    counted = replace(stream, read_day=lambda i: read.append(i) or stream.read_day(i))
    next(counted.batches(count_steps(stream.days.values(), stream.cutting, 1) - 1))
    assert read == [PLACES[1]]


def test_ranks_share_the_rows_and_what_is_drawn(make_stream):
    """What is looked up differs from rank to rank; what it stands for is the whole batch's, in order."""
    whole = make_stream(epochs=1).batches()
    ranks = [make_stream(epochs=1, rank=rank, ranks=3).batches() for rank in range(3)]
    for one, *shares in zip(whole, *ranks, strict=True):
        assert [s.size for s in shares] == [(one.size * (r + 1)) // 3 - one.size * r // 3 for r in range(3)]
        for name in ("user_id", "item_id", "category"):
            parts = [share.rows[name][share.index[name]] for share in shares]
            assert torch.equal(torch.cat(parts), one.rows[name][one.index[name]]), name
        drawn = torch.cat([share.negatives.item_M for share in shares])
        assert torch.equal(drawn, one.negatives.item_M)
        assert {share.negatives.uniform for share in shares} == {one.negatives.uniform}


def test_where_histories_are_sequences_a_users_rows_stay_together(make_stream):
    def users_of_batches(**settings):
        found = make_stream(epochs=1, **settings).batches()
        return sum(batch.index["user_id"].unique().numel() for batch in found)

    assert users_of_batches(sequences=True) < 0.8 * users_of_batches()
