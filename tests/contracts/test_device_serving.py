"""On a second device a scorer leaves nothing behind, answers as on the processor, and seldom waits."""

import dataclasses

import numpy as np
import pytest
import torch

from features.encode import Encoder
from features.golden import check_golden
from features.online import OnlineFeatures, encode_items
from features.store import StoredUser, open_store
from recsys.batch import move_together
from recsys.bundle import load_bundle
from recsys.config import StoreConfig
from recsys.model.scorer import Scorer

ROWS = np.array([3, 1, 8, 5])


@pytest.fixture(scope="module")
def bundle(bundle_folder):
    return load_bundle(bundle_folder)


@pytest.fixture(scope="module")
def encoder(bundle):
    return Encoder.from_config(bundle.config, bundle.encoder)


@pytest.fixture(scope="module")
def items(bundle, encoder):
    return encode_items(encoder, bundle.items)


@pytest.fixture(scope="module")
def here(bundle, items):
    return Scorer(bundle, items)


@pytest.fixture
def there(bundle, items, pretend):
    return Scorer(bundle, items, pretend)


@pytest.fixture
def online(bundle, encoder, tmp_path):
    store = open_store(StoreConfig(), tmp_path)
    return OnlineFeatures(store, bundle.version, bundle.config, encoder, bundle.snapshot_at_ms)


def test_golden_requests_are_reproduced(bundle, there, online):
    """Users with histories, contexts, crosses and retrieval: all that a request is."""
    assert check_golden(bundle.golden, there, online)["max_difference"] < 1e-5


def test_what_is_kept_is_on_the_device(there, pretend):
    parts = (there.network, there.network.first_layer, there._one_user)
    own = [value for part in parts for value in vars(part).values() if isinstance(value, torch.Tensor)]
    assert len(own) > 10
    kept = [*there.ranker.parameters(), *there.network.parameters(), there.items.packed_IW, *own]
    assert {tensor.device for tensor in kept} == {pretend}
    assert {table.device.type for table in there.tables.values()} == {"cpu"}


@pytest.fixture
def user(bundle, online):
    """Give the golden user with the longest history."""
    row = max(bundle.golden.iter_rows(named=True), key=lambda row: len(row["input_history_items"]))
    return online.assemble(StoredUser(row["value"].encode(), ()), "", row["at_ms"]).inputs


@pytest.fixture
def context(bundle, online):
    return online.context({}, bundle.golden["at_ms"][0])


def test_a_request_copies_its_inputs_together_and_reads_its_logits_together(there, user, context, waits):
    """Inputs go over in one copy per type of number; the user's vector and all tasks' logits come back."""
    waits.clear()
    side = there.user_side(user)
    assert len(waits) == 3
    there.retrieve(side, 5)
    assert len(waits) == 3
    there.predict(side, context, ROWS)
    assert len(waits) == 6


def test_fresh_items_are_scored_with_the_others(bundle, here, there, items, user, context):
    """A changed item of the bundle and a new one, twice."""
    size, answers = len(bundle.items), []
    for scorer in (here, there):
        first = scorer.with_items(np.array([1, size]), items_at(items, [7, 8]))
        fresh = first.with_items(np.array([1, size + 1]), items_at(items, [9, 2]))
        side = fresh.user_side(user)
        rows = np.array([size + 1, 3, 1, size])
        answers.append(
            (
                fresh.predict(side, context, rows),
                fresh.vectors(rows),
                fresh.retrieve(side, 8),
                fresh.similar(size, 3),
            )
        )
    for one, other in zip(answers[0][0].values(), answers[1][0].values(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    np.testing.assert_allclose(answers[0][1], answers[1][1], atol=1e-6)
    assert answers[0][2].tolist() == answers[1][2].tolist()
    assert answers[0][3].tolist() == answers[1][3].tolist()


def items_at(items, rows):
    known = items.ids[rows]
    assert not items.bags, "the small shop's items have no lists"
    return dataclasses.replace(
        items,
        ids=known,
        numbers=items.numbers[rows],
        text=items.text[rows],
        groups=tuple([values[row] for row in rows] for values in items.groups),
    )


def test_no_candidates(there, user, context):
    found = there.predict(there.user_side(user), context, np.zeros(0, int))
    assert all(values.shape == (0,) for values in found.values())


def test_tensors_move_together_and_keep_their_places(pretend, waits):
    given = {
        "a": torch.arange(6.0).view(2, 3),
        "b": (torch.tensor([3, 4]), torch.tensor(True)),
        "c": torch.zeros(0, 4),
        "d": torch.tensor([9.0, 8.0]),
    }
    moved = move_together(given, pretend)
    assert moved["a"].device == moved["b"][1].device == pretend
    assert moved["a"].cpu().tolist() == given["a"].tolist()
    assert moved["b"][0].cpu().tolist() == [3, 4]
    assert bool(moved["b"][1].cpu())
    assert moved["c"].shape == (0, 4)
    assert moved["d"].cpu().tolist() == [9.0, 8.0]
    assert move_together(given, torch.device("cpu")) is given
