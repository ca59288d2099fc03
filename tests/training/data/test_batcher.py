"""Encoded rows and batches: every example once, gathers that point at the right rows, strangers unknown."""

import dataclasses

import numpy as np
import pytest
import torch

from features.encode import Encoder
from features.sequences import history_slices
from training.data import (
    Batcher,
    BatchSettings,
    encode_day,
    positive_share,
    text_by_number,
)


@pytest.fixture(scope="module")
def encoder(trained, config):
    return Encoder.from_config(config, trained.state)


@pytest.fixture(scope="module")
def encoded(shop_chain, encoder, config):
    return encode_day(encoder, shop_chain, 3, config.tasks)


@pytest.fixture
def make_batches(encoded, encoder, shop_chain, config):
    text = text_by_number(encoder, shop_chain[3].table("items"))

    def make(seed=0, popularity=None, of=encoded, **settings):
        tasks = tuple(t.name for t in config.tasks)
        chosen = {
            "batch_size": 128,
            "history_length": config.features.history_length,
            "lag_ms": 1000 * config.features.ingestion_lag,
            "tasks": tasks,
            "retrieval_task": "click",
            **settings,
        }
        batcher = Batcher(encoder, text, BatchSettings(**chosen))
        return list(batcher.batches(of, np.random.default_rng(seed), popularity))

    return make


def test_gathers_point_at_the_examples_own_numbers(make_batches, encoded, encoder, config):
    batches = make_batches()
    at = 0
    for batch in batches:
        rows = np.arange(at, at + batch.size)
        user, item = encoded.users.take(encoded.user_row[rows]), encoded.items.take(encoded.item_row[rows])
        for entity, ids in (("user", user.ids), ("item", item.ids), ("context", encoded.contexts.ids[rows])):
            for n, feature in enumerate(encoder.features.ids_of(entity)):
                numbers = batch.rows[feature.vocabulary][batch.index[feature.name]]
                np.testing.assert_array_equal(numbers.numpy(), ids[:, n])
        history = history_slices(
            encoded.start[rows],
            encoded.stop[rows],
            config.features.history_length,
            encoded.state_at[rows],
            1000 * config.features.ingestion_lag,
            encoded.events,
        )
        np.testing.assert_array_equal(batch.rows["item_id"][batch.history.item_E].numpy(), history.items)
        np.testing.assert_array_equal(batch.history.kind_E.numpy(), history.kinds)
        np.testing.assert_array_equal(batch.history.start_B.numpy(), history.offsets[:-1])
        np.testing.assert_array_equal(batch.user_numbers_BF.numpy(), user.numbers)
        np.testing.assert_array_equal(batch.item_text_BT.numpy(), item.text)
        at += batch.size
    assert at == encoded.size


def test_rows_are_distinct_ascending_and_inside_their_tables(make_batches, encoder, encoded):
    popularity = np.full(encoded.items.ids.shape[0], 0.01)
    for batch in make_batches(popularity=popularity, num_uniform=16):
        for vocabulary, numbers in batch.rows.items():
            assert (numbers.diff() > 0).all()
            assert numbers[0] >= 0
            assert numbers[-1] < encoder.state.vocabularies[vocabulary].size
        torch.testing.assert_close(
            batch.item_text_UT[batch.index["item_id"]][batch.rows["item_id"][batch.index["item_id"]] > 0],
            batch.item_text_BT[batch.rows["item_id"][batch.index["item_id"]] > 0],
        )


def test_batches_are_near_equal(make_batches, encoded):
    sizes = [b.size for b in make_batches(batch_size=300)]
    assert len(sizes) == -(-encoded.size // 300)
    assert max(sizes) - min(sizes) <= 1


def test_labels_carry_what_is_not_known(make_batches, encoded):
    for task, labels in encoded.labels.items():
        observed = torch.cat([b.observed[task] for b in make_batches()]).numpy()
        values = torch.cat([b.labels[task] for b in make_batches()]).numpy()
        np.testing.assert_array_equal(observed, ~np.isnan(labels))
        np.testing.assert_array_equal(values[observed], labels[observed])
        assert np.isfinite(values).all()
    assert 0 < (~np.isnan(encoded.labels["rating"])).sum() < encoded.size / 4


def test_ids_are_hidden_on_a_share_of_rows(make_batches):
    shown, hidden = (
        torch.cat([b.rows["item_id"][b.index["item_id"]] for b in make_batches(id_dropout=p)])
        for p in (0.0, 0.5)
    )
    changed = shown != hidden
    assert 0.4 < changed.float().mean() < 0.6
    assert not hidden[changed].any(), "what is hidden is unknown"
    category = [
        torch.cat([b.rows["category"][b.index["category"]] for b in make_batches(id_dropout=p)])
        for p in (0.0, 0.5)
    ]
    assert torch.equal(*category), "attributes stay"


def test_the_last_row_knows_nothing(encoded):
    for entity in (encoded.users, encoded.items):
        assert not entity.numbers[-1].any()
        assert not entity.text[-1].any()
    assert (encoded.user_row <= len(encoded.users.numbers) - 1).all()


def test_sampling_weights_are_one_over_the_rate(shop_chain, encoder, config, encoded):
    assert (encoded.weight == 1).all()


def test_negatives_are_the_catalogues_own(make_batches, encoded):
    popularity = np.linspace(0.0, 0.02, encoded.items.ids.shape[0])
    batch = make_batches(popularity=popularity, num_uniform=50)[0]
    drawn = batch.negatives
    known = encoded.items.ids.shape[0] - 1
    assert drawn.item_M.max() < known, "never the row of the unknown"
    np.testing.assert_array_equal(
        batch.rows["item_id"][drawn.index["item_id"]].numpy(), encoded.items.ids[drawn.item_M.numpy(), 0]
    )
    np.testing.assert_allclose(drawn.share_M.numpy(), popularity[drawn.item_M.numpy()], rtol=1e-6)
    np.testing.assert_allclose(drawn.share_B.numpy(), popularity[drawn.item_B.numpy()], rtol=1e-6)
    assert drawn.uniform == 50 / known
    assert make_batches()[0].negatives is None


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_positives_are_the_tasks_own_and_counted_over_all_ranks(make_batches, encoded, ranks):
    labels = encoded.labels["purchase"].copy()
    labels[::3] = np.nan
    of = dataclasses.replace(encoded, labels={**encoded.labels, "purchase": labels})
    share = np.ones(encoded.items.ids.shape[0])
    slices = [
        make_batches(of=of, popularity=share, retrieval_task="purchase", rank=rank, ranks=ranks)
        for rank in range(ranks)
    ]
    total = 0
    for step in zip(*slices, strict=True):
        for batch in step:
            wanted = (batch.observed["purchase"] & (batch.labels["purchase"] > 0.5)).nonzero().squeeze(1)
            assert torch.equal(batch.negatives.positive_P, wanted)
        count = sum(batch.negatives.positive_P.numel() for batch in step)
        assert [batch.negatives.num_positives for batch in step] == [count] * ranks
        total += count
    assert total == (labels > 0.5).sum() > 0


def test_a_day_without_any_item_trains_without_negatives(make_batches, encoded):
    none = dataclasses.replace(
        encoded, items=encoded.items.take(np.array([-1])), item_row=np.zeros(encoded.size, np.int64)
    )
    batch = make_batches(of=none, popularity=np.ones(1), num_uniform=5)[0]
    assert batch.negatives is None
    assert not batch.rows["item_id"][batch.index["item_id"]].any()


def test_shares_are_of_all_positives_and_never_zero():
    share = positive_share(np.array([1, 3, 1]), np.array([4, 2, 1]), 5)
    assert share.sum() == pytest.approx(1)
    assert share[1] > share[3] > share[0] > 0


def test_histories_of_a_whole_day_are_the_same_however_its_users_are_split(
    shop_chain, split_chain, encoder, encoded
):
    assert split_chain[3].num_parts == 3
    other = encode_day(encoder, split_chain, 3, shop_chain.tasks)
    own = encoded.frame.select("impression_id").with_row_index("own")
    rows = other.frame.select("impression_id").join(own, on="impression_id", maintain_order="left")["own"]

    def histories(of, chosen):
        return history_slices(of.start[chosen], of.stop[chosen], 30, of.shown_at[chosen], 0, of.events)

    expected = histories(encoded, rows.to_numpy())
    assert (np.diff(expected.offsets) > 0).mean() > 0.2, "the comparison must cover histories"
    found = histories(other, np.arange(other.size))
    for part in dataclasses.fields(expected):
        np.testing.assert_array_equal(getattr(found, part.name), getattr(expected, part.name))
