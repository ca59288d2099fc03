import numpy as np
import pytest

from benchmarks.quality.baselines.item_rankers import best_ranker, ease, item_knn, popularity
from benchmarks.quality.catalogue_lists import (
    Wanted,
    list_metrics,
    mean_ndcg,
    positives,
    split_per_user,
    wanted,
)
from benchmarks.quality.models.negatives import negatives_of
from benchmarks.quality.models.pair_data import Pairs
from benchmarks.quality.models.spectral import spectral_start

USERS, ITEMS = 30, 20


def pairs_of(*cells):
    user, item = np.array(cells).T
    return Pairs(user=user, item=item, labels={"view": np.ones(user.size, np.float32)})


@pytest.fixture
def pairs():
    """Two tastes: users like even or odd items."""
    rng = np.random.default_rng(0)
    liked = (np.arange(ITEMS) % 2 == np.arange(USERS)[:, None] % 2) & (rng.random((USERS, ITEMS)) < 0.7)
    user, item = np.nonzero(liked)
    return Pairs(user=user, item=item, labels={"view": np.ones(user.size, np.float32)})


def test_lists_by_hand():
    """User 1 has met item 0; item 3 is held out and third of the others: its gain is 1 / log2(4)."""
    of = wanted(pairs_of((1, 3)), pairs_of((0, 2), (1, 0)), (2, 4), 9)
    found = list_metrics(lambda users: np.tile([9.0, 3, 2, 1], (users.size, 1)), of)
    assert of.users.tolist() == [1]
    assert found["recall@10"].tolist() == [1.0]
    assert found["ndcg@10"] == pytest.approx([0.5])


def test_a_repeated_pair_counts_once():
    pairs = Pairs(user=np.array([0, 0, 1]), item=np.array([1, 1, 2]), labels={})
    assert positives(pairs, (2, 3)).toarray().tolist() == [[0, 1, 0], [0, 0, 1]]


def test_only_ten_places_count():
    of = wanted(pairs_of((0, 11)), pairs_of((0, 0)), (1, 12), 9)
    assert list_metrics(lambda users: -np.arange(12.0)[None, :], of)["recall@10"].tolist() == [0.0]


def test_users_are_drawn_the_same_each_time(pairs):
    one, other = (wanted(pairs, pairs_of((0, 0)), (USERS, ITEMS), 5) for _ in range(2))
    assert one.users.size == 5
    assert np.array_equal(one.users, other.users)


def test_parts_of_the_split_share_no_pair_and_each_user_gives_a_share(pairs):
    parts = split_per_user(pairs, (0.2, 0.1))
    codes = [part.user * ITEMS + part.item for part in parts]
    assert np.array_equal(np.sort(np.concatenate(codes)), np.sort(pairs.user * ITEMS + pairs.item))
    count = np.bincount(pairs.user, minlength=USERS)
    assert np.array_equal(np.bincount(parts[2].user, minlength=USERS), np.round(0.2 * count))
    assert parts[1].size > 0


def test_a_drawn_negative_is_no_training_pair(pairs):
    drawn = negatives_of(pairs, ITEMS, 5, {"view": 0.0})(np.random.default_rng(1))
    known = np.isin(drawn.user * ITEMS + drawn.item, pairs.user * ITEMS + pairs.item)
    assert drawn.size == 5 * pairs.size
    assert known.any()
    assert np.isnan(drawn.labels["view"][known]).all()
    assert (drawn.labels["view"][~known] == 0).all()


@pytest.mark.parametrize("wide", [True, False])
def test_ease_is_the_closed_form(pairs, wide):
    """Steck, WWW 2019, with the inverse over items, by whichever side is solved."""
    dense = positives(pairs, (USERS, ITEMS)).toarray()
    dense = dense.T if dense.shape[0] > dense.shape[1] and wide else dense
    inverse = np.linalg.inv(dense.T @ dense + 7 * np.eye(dense.shape[1]))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    assert ease(7.0)(dense) == pytest.approx(dense @ weights, abs=1e-4)


def test_rankers_of_taste_beat_popularity(pairs):
    train, _, test = split_per_user(pairs, (0.3, 0.1))
    matrix, of = (
        positives(train, (USERS, ITEMS)).toarray(),
        wanted(test, train, (USERS, ITEMS), USERS),
    )
    by_name = {"popularity": popularity(matrix), "item_knn": item_knn(matrix), "ease": ease(1.0)(matrix)}
    ndcg = {
        name: list_metrics(lambda users, scores=scores: scores[users], of)["ndcg@10"].mean()
        for name, scores in by_name.items()
    }
    assert ndcg["popularity"] < 0.8 * ndcg["item_knn"]
    assert ndcg["popularity"] < 0.8 * ndcg["ease"]


def test_a_variant_is_chosen_on_the_lists_given(pairs):
    train, known, _ = split_per_user(pairs, (0.2, 0.3))
    shape = (USERS, ITEMS)
    of: Wanted = wanted(known, train, shape, USERS)
    right = positives(train, shape).toarray()
    signals = {"wrong": np.roll(right, 1, axis=1), "right": right}
    again = {"wrong": right, "right": np.ones_like(right)}
    ranked = best_ranker("item_knn", signals, lambda scores: mean_ndcg(scores.__getitem__, of), again)
    assert ranked.note == "of right"
    assert np.array_equal(ranked.scores, item_knn(right))
    assert np.array_equal(ranked.again, item_knn(np.ones_like(right)))


def test_the_spectral_start_is_the_best_matrix_of_its_rank(pairs):
    """Eckart & Young: nothing of rank 3 is nearer, so what is left is what the other values hold."""
    matrix = positives(pairs, (USERS, ITEMS))
    rows = matrix.toarray() / np.sqrt(matrix.sum(axis=1))
    start = spectral_start(matrix, 3, 40.0)
    left = np.linalg.norm(rows - start.users @ start.items.T / 40.0)
    assert left == pytest.approx(np.sqrt(np.square(np.linalg.svd(rows)[1][3:]).sum()), rel=1e-4)
