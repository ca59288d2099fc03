"""Lists side by side: their metrics agree with those of evaluation, and padding is never shown."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from recsys.metrics import ranking
from training.list_problem import ListProblem, gain_of_users


def problem_of(rows, codes, columns=None, users=None):
    """Lists of candidate rows; codes: the rows that each wanted."""
    offsets = np.concatenate([[0], np.cumsum([len(c) for c in codes])])
    from datetime import date

    audience = SimpleNamespace(
        offsets=offsets,
        codes=np.concatenate([np.array(c, np.int64) for c in codes]),
        requests=pl.DataFrame({"user_id": users or [f"u{n}" for n in range(len(codes))]}),
        day=date(2026, 1, 5),
    )
    rows = np.array(rows, np.int64)
    return ListProblem.of(audience, rows, columns or {"heads": np.zeros(rows.shape, np.float32)})


def test_metrics_are_those_of_evaluation():
    rng = np.random.default_rng(0)
    rows = np.stack([rng.permutation(80)[:60] for _ in range(9)])
    rows[3, 40:] = -1
    codes = [np.sort(rng.permutation(90)[: 1 + n]).tolist() for n in range(9)]
    problem = problem_of(rows, codes)
    scores = rng.normal(size=rows.shape).astype(np.float32)
    scores[3, 40:] = 9.0  # of no candidates
    order = np.argsort(-np.where(rows >= 0, scores, -np.inf), axis=1, kind="stable")
    lists = np.take_along_axis(rows, order, axis=1)
    offsets = np.concatenate([[0], np.cumsum([len(c) for c in codes])])
    matches = ranking.match(lists[:, :50], offsets, np.concatenate(codes))
    expected = ranking.ndcg_at_k(matches, 10)
    np.testing.assert_allclose(problem.ndcg(scores), expected)
    recall = ranking.recall_at_k(matches, 50)
    assert problem.worth(scores) == pytest.approx(float(np.mean(expected + 0.5 * recall)))


def test_lists_are_chosen_and_joined_with_their_own_width():
    wide = problem_of([[1, 2, 3], [4, 5, 6]], [[2], [4]], users=["a", "b"])
    narrow = problem_of([[7]], [[7]], users=["c"])
    both = ListProblem.join([wide, narrow])
    assert both.rows.tolist() == [[1, 2, 3], [4, 5, 6], [7, -1, -1]]
    kept = both.only(np.array([False, True, True]))
    assert kept.users == ["b", "c"]
    assert kept.ndcg(np.zeros((2, 3), np.float32)).tolist() == [1.0, 1.0]


def test_a_users_lists_are_averaged_before_users_are_compared():
    before, after = np.array([0.0, 1.0, 0.5]), np.array([1.0, 1.0, 0.5])
    effect = gain_of_users(["a", "a", "b"], before, after, seed=0)
    assert (effect.users, effect.a, effect.b) == (2, 0.5, 0.75)


def test_width_is_that_inside_lists():
    problem = problem_of([[1, 2], [3, 4]], [[1], [3]])
    wide, other = np.array([[0.0, 4.0], [100.0, 104.0]]), np.array([[0.0, 1.0], [0.0, 1.0]])
    assert problem.ratio(wide, other) == pytest.approx(4.0)
    assert problem.ratio(np.zeros((2, 2)), other) == 1.0
